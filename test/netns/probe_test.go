package netns

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// answer is one request of a prober, and how it ended.
type answer struct {
	kind         string // w or r
	slot         int64
	n            uint64
	began, ended time.Duration // boot time
	failure      string        // "" when it was answered well
}

// probe is a prober as the test sees it.
type probe struct {
	p    *pair
	node string
	kind string // of the requests that count as progress
	cmd  *exec.Cmd
	done chan struct{} // closed when its output ended

	mu      sync.Mutex
	answers []answer
	garbled string
	more    chan struct{}
}

// probe starts a prober on the device of the Primary.
func (p *pair) probe(node string) *probe {
	p.t.Helper()
	return p.probeDevice(node, p.device(node))
}

// probeReads starts a prober that only reads: no write or flush that waits for
// the peer stands before its requests in the kernel's queue, so it sees the
// very end of the lease.
func (p *pair) probeReads(node string) *probe {
	p.t.Helper()
	return p.probeDevice(node, p.device(node), "-reads-only")
}

// lateProbe starts a prober on a node that should not answer any more.
func (p *pair) lateProbe(node string) *probe {
	p.t.Helper()
	return p.probeDevice(node, "/dev/hapair/"+p.Resource()+"/0")
}

func (p *pair) probeDevice(node, device string, more ...string) *probe {
	p.t.Helper()
	self, err := os.Executable()
	p.must(err)
	args := append([]string{proberWord, "-device", device, "-first", fmt.Sprint(p.next)}, more...)
	b := &probe{p: p, node: node, kind: "w", done: make(chan struct{}), more: make(chan struct{}, 1), cmd: exec.Command(self, args...)}
	if slices.Contains(more, "-reads-only") {
		b.kind = "r"
	}
	p.next += writerSpan
	r, out, err := os.Pipe()
	p.must(err)
	b.cmd.Stdout, b.cmd.Stderr = out, os.Stderr
	if err := errors.Join(p.Enter(node, b.cmd), out.Close()); err != nil {
		p.t.Fatal(errors.Join(err, r.Close()))
	}
	go b.read(r)
	go b.cmd.Wait()                              //nolint:errcheck // killed, or its output says how it ended
	p.t.Cleanup(func() { b.cmd.Process.Kill() }) //nolint:errcheck // it may have ended; a hung one ends with its node
	return b
}

func (p *pair) device(node string) string {
	p.t.Helper()
	return p.takeover(node).Volumes[0].Device
}

func (b *probe) read(r *os.File) {
	defer close(b.done)
	defer r.Close()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var a answer
		words := strings.SplitN(lines.Text(), " ", 6)
		var err error
		if len(words) == 6 {
			a.kind = words[0]
			if words[5] != "ok" {
				a.failure = words[5]
			}
			_, err = fmt.Sscan(strings.Join(words[1:5], " "), &a.slot, &a.n, &a.began, &a.ended)
		}
		b.mu.Lock()
		if len(words) != 6 || err != nil {
			b.garbled = lines.Text()
		} else {
			b.answers = append(b.answers, a)
		}
		b.mu.Unlock()
		select {
		case b.more <- struct{}{}:
		default:
		}
	}
}

// end kills the prober.
func (b *probe) end() {
	b.p.t.Helper()
	b.cmd.Process.Kill() //nolint:errcheck // it may have ended by itself
	select {
	case <-b.done:
	case <-time.After(patience):
		b.p.t.Fatalf("the prober on %s cannot be killed: it waits for its device", b.node)
	}
}

func (b *probe) answered() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, a := range b.answers {
		if a.kind == b.kind && a.failure == "" {
			n++
		}
	}
	return n
}

// progress waits until more requests are answered: writes, of a prober that
// writes.
func (b *probe) progress(requests int) {
	b.p.t.Helper()
	want := b.answered() + requests
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for b.answered() < want {
		select {
		case <-b.more:
		case <-b.done:
			b.p.t.Fatalf("the prober ended: %+v", b.failures())
		case <-timeout.C:
			b.p.t.Fatalf("%d requests were answered, and not %d after %s", b.answered(), want, patience)
		}
	}
}

func (b *probe) failures() []answer {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []answer
	for _, a := range b.answers {
		if a.failure != "" {
			out = append(out, a)
		}
	}
	return out
}

// awaitEnd waits until the device has failed the prober's reads and writes.
func (b *probe) awaitEnd() {
	b.p.t.Helper()
	select {
	case <-b.done:
	case <-time.After(patience):
		b.p.t.Errorf("the prober on %s still waits for its device after %s", b.node, patience)
	}
}

// stop ends the prober and adds what it was answered to what must be there.
func (b *probe) stop() {
	b.p.t.Helper()
	b.end()
	if b.garbled != "" {
		b.p.t.Errorf("the prober said %q", b.garbled)
	}
	for _, a := range b.answers {
		if a.kind == "w" && a.failure == "" {
			b.p.slots[a.slot] = max(b.p.slots[a.slot], a.n)
		}
		if strings.Contains(a.failure, "stale") {
			b.p.t.Errorf("%s: slot %d: %s", b.node, a.slot, a.failure)
		}
	}
	b.p.say("%s: %d answered, %d requests in all, then %+v", b.node, b.answered(), len(b.answers), b.failures())
}

// silentAfter checks that nothing which was asked after an instant was
// answered well: the lease was over.
func (b *probe) silentAfter(end time.Duration) {
	b.p.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	wrong, last := 0, answer{}
	for _, a := range b.answers {
		if a.failure != "" {
			continue
		}
		if a.began > end {
			wrong++
			b.p.t.Errorf("%s answered a request that came %s after its lease was over: %+v", b.node, a.began-end, a)
		}
		if last.ended < a.ended {
			last = a
		}
		if wrong > 5 {
			return
		}
	}
	if last.ended == 0 {
		b.p.say("%s: nothing was answered", b.node)
		return
	}
	b.p.say("%s: the last request was answered %s before the latest end of its lease", b.node, end-last.ended)
}

// verifySlots reads every slot of the Primary's device, past the caches.
func (p *pair) verifySlots(primary string) {
	p.t.Helper()
	for slot, n := range p.readSlots(primary) {
		if n < p.slots[slot] {
			p.t.Errorf("slot %d on %s holds %d, though %d was answered", slot, primary, n, p.slots[slot])
		}
	}
	p.say("the slots of %s looked at, %d with answered writes", primary, len(p.slots))
}

// readSlots is what the slots of the Primary's device hold, past the caches.
func (p *pair) readSlots(primary string) map[int64]uint64 {
	p.t.Helper()
	return p.readSlotsOf(primary, p.device(primary))
}

func (p *pair) readSlotsOf(primary, device string) map[int64]uint64 {
	p.t.Helper()
	self, err := os.Executable()
	p.must(err)
	text, err := p.Run(p.ctx, primary, self, proberWord, "-dump", "-device", device)
	p.must(err)
	slots := map[int64]uint64{}
	for line := range strings.Lines(text) {
		left, right, _ := strings.Cut(strings.TrimSpace(line), " ")
		slot, err1 := strconv.ParseInt(left, 10, 64)
		n, err2 := strconv.ParseUint(right, 10, 64)
		p.must(errors.Join(err1, err2))
		slots[slot] = n
	}
	if len(slots) != slotCount {
		p.t.Errorf("%d slots of %d were read", len(slots), slotCount)
	}
	return slots
}
