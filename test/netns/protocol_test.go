package netns

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// by has the resource replicated by a protocol; further keys of it may follow.
func by(protocol string, more ...string) func(*lab.Options) {
	return func(o *lab.Options) { o.Settings = append([]string{"protocol: " + protocol}, more...) }
}

// speaks waits until writes are answered by a protocol.
func (p *pair) speaks(node, protocol string) {
	p.t.Helper()
	p.resource(node, "answers by protocol "+protocol, func(r *apiv1.Resource) bool { return serving(r) && r.Protocol == protocol })
}

// typical is the median time that the latest answers to writes took.
func (b *probe) typical(latest int) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	var took []time.Duration
	for _, a := range slices.Backward(b.answers) {
		if a.kind == "w" && a.failure == "" && len(took) < latest {
			took = append(took, a.ended-a.began)
		}
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// newest is the number of the latest write that was answered.
func (b *probe) newest() (n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.answers {
		if a.kind == "w" && a.failure == "" {
			n = max(n, a.n)
		}
	}
	return n
}

// The peer's disk is slow, and is waited for in C only; the protocol is changed
// under the application. What was answered in B survives a power cut of the
// Primary, all of it, though nothing was flushed.
func TestProtocolB(t *testing.T) {
	const slow = 20 * time.Millisecond
	p := newPair(t, false, nil)
	primary, secondary := p.settle()
	p.must(p.Fault(p.ctx, secondary, "write delay="+slow.String()))
	b := p.probeDevice(primary, p.device(primary), "-cached")
	for _, protocol := range []string{"C", "A", "B"} {
		for _, node := range p.Data() {
			p.run(node, "hactl", "set", p.Resource(), "protocol="+protocol)
		}
		p.speaks(primary, protocol)
		for wrote := b.newest(); b.newest() < wrote+steady; {
			b.progress(steady)
		}
		took := b.typical(steady / 2)
		p.say("protocol %s: a write takes %s, at the disk of the peer %s", protocol, took, slow)
		if waits := took >= slow; waits != (protocol == "C") {
			t.Errorf("protocol %s: a write takes %s, at the disk of the peer %s", protocol, took, slow)
		}
	}
	p.must(p.PowerOff(primary))
	p.takeover(secondary)
	b.stop()
	p.verify(secondary)
	p.must(p.Fault(p.ctx, secondary, "clear"))
	p.must(p.PowerOn(primary))
	p.rejoined(primary)
	p.finish()
}

// mute loses everything that a node sends to the others, without a word: its
// cables stay in, and what they say it hears. Told with the way back.
func (p *pair) mute(node string) (heal func()) {
	p.t.Helper()
	var there, back []string
	for _, other := range p.Nodes() {
		for path, dev := range map[string]string{lab.LAN: "eth0", lab.Crossover: "eth1"} {
			if address := p.Address(other, path); other != node && other != lab.Client && address != "" {
				there = append(there, fmt.Sprintf("ip neigh replace %s dev %s lladdr 02:00:00:00:00:fe nud permanent", address, dev))
				back = append(back, fmt.Sprintf("ip neigh del %s dev %s", address, dev))
			}
		}
	}
	run := func(commands []string) {
		_, err := p.Run(p.ctx, node, "sh", "-ec", strings.Join(commands, "\n"))
		p.must(err)
	}
	run(there)
	return func() { run(back) }
}

// Protocol A: a Primary whose frames reach nobody goes on answering within its
// window, and no further. The other takes over with everything up to an instant;
// what came after it is lost, and does not come back with the old Primary, which
// never crashed.
func TestProtocolALosesItsWindowOnly(t *testing.T) {
	const fill, block = 64 << 10, 4 << 10
	p := newPair(t, false, by("A", "congestion: {fill: 64KiB}"))
	primary, secondary := p.settle()
	p.speaks(primary, "A")
	b := p.probeDevice(primary, p.device(primary), "-cached")
	for b.newest() < p.next-writerSpan+2*slotCount { // each slot has been written
		b.progress(steady)
	}
	heal := p.mute(primary)
	p.takeover(secondary)
	kept, last := uint64(0), b.newest()
	slots := p.readSlots(secondary)
	for _, n := range slots {
		kept = max(kept, n)
	}
	for slot, n := range slots {
		if n+slotCount <= kept || n%slotCount != uint64(slot) {
			t.Errorf("slot %d holds %d, though %d, which came later, is there: not all up to an instant", slot, n, kept)
		}
	}
	p.say("up to %d answered, up to %d kept", last, kept)
	if kept > last+1 || last-min(kept, last) > fill/block {
		t.Errorf("up to %d was answered and up to %d is there: at most %d may be lost", last, kept, fill/block)
	}
	if kept >= last {
		t.Error("nothing was lost: this test shows nothing")
	}
	heal()
	p.rejoined(primary)
	b.end() // it waited: a frozen device does
	p.finish()
	if again := p.readSlots(secondary); !mapsEqual(again, slots) {
		t.Error("what was lost came back")
	}
}

func mapsEqual(a, b map[int64]uint64) bool {
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return len(a) == len(b)
}

// Protocol A under a file system: after a power cut of the Primary it is mounted
// at the other node without errors, and the records there are all up to an
// instant.
func TestProtocolAUnderAFileSystem(t *testing.T) {
	long(t)
	p := newPair(t, true, by("A"))
	primary, secondary := p.settle()
	p.speaks(primary, "A")
	w := p.write()
	for range 2 {
		w.progress(steady)
		p.must(p.PowerOff(primary))
		p.takeover(secondary)
		w.progress(steady)
		p.must(p.PowerOn(primary))
		p.rejoined(primary)
		errs, err := p.Run(p.ctx, secondary, "sh", "-c", "cat /sys/fs/ext4/*/errors_count")
		p.must(err)
		if strings.Trim(errs, "0\n") != "" {
			t.Errorf("ext4 on %s counts errors: %q", secondary, errs)
		}
		primary, secondary = secondary, primary
	}
	w.end()
	p.say("%d records were answered", w.count())
	p.identical(primary)
}
