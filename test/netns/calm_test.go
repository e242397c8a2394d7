package netns

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hapair/agent/apiv1"
	"hapair/failover"
)

// burnersEach is how many processes of the load there are for each processor.
const burnersEach = 2

// spare is how much of the machine's memory is left to all of it, the page cache too,
// while memory is short. stress-ng's children are what the kernel ends first.
const (
	spare     = 384 << 20
	squeezing = 5 * time.Minute // until it is taken: a virtual machine may have to get it from its host first
	thrashing = "1g"            // of a file in the page cache: more than there is room for
)

// Nobody fails over for want of processors, nor of memory: while all processors are
// busy twice over, at the same priority as the agents, a program writes to the volume,
// another one to a service on it, and one resync follows the other, for as long as
// HAPAIR_CALM says. In the second half of it the memory of the machine is used up too,
// so that whoever wants some has to wait until the kernel has written out or thrown
// away what another one holds.
func TestCalm(t *testing.T) {
	text := os.Getenv("HAPAIR_CALM")
	if text == "" {
		t.Skip("takes as long as it is told to: make calm CALM=1h")
	}
	lasts, err := time.ParseDuration(text)
	if err != nil || lasts <= 0 {
		t.Fatalf("HAPAIR_CALM=%q: want a time such as 1h", text)
	}
	has(t, tool{"stress-ng", "stress-ng"}, tool{"fio", "fio"})
	p := newPairFor(t, lasts, true, nil)
	primary, secondary := p.settle()
	before, err := p.Status(p.ctx, primary)
	p.must(err)
	c := &calm{pair: p, primary: primary, secondary: secondary, before: before, since: map[string]uint64{primary: before.EventSeq, secondary: 0}}
	p.background("stress-ng", "--cpu", strconv.Itoa(burnersEach*runtime.NumCPU()), "--quiet", "--timeout", strconv.Itoa(int(lasts.Seconds())+600))
	c.last(lasts/2, "busy processors")
	reclaimed := vmstat(t, "pgscan_direct")
	p.squeeze(lasts)
	c.last(lasts/2, "busy processors and full memory")
	if reclaimed = vmstat(t, "pgscan_direct") - reclaimed; reclaimed == 0 {
		t.Error("nobody had to wait for memory: this has shown nothing")
	}
	p.say("%d pages were looked at by those who waited for memory", reclaimed)
	p.finish()
}

// calm is a pair under load that is to remain what it was.
type calm struct {
	*pair
	primary, secondary string
	before             *apiv1.Status
	since              map[string]uint64 // the newest event of each node that was looked at
}

// last writes, and lets one resync follow the other, for a while.
func (c *calm) last(lasts time.Duration, load string) {
	c.t.Helper()
	c.start(c.primary, "fio", "--name=calm", "--filename=/srv/pg/calm", "--size=16M", "--bs=4k", "--rw=randrw", "--ioengine=libaio", "--iodepth=8",
		"--direct=1", "--fsync=32", "--time_based", fmt.Sprintf("--runtime=%d", int(lasts.Seconds())))
	w := c.write()
	w.progress(steady)
	resyncs := 0
	for began := time.Now(); time.Since(began) < lasts; resyncs++ {
		c.resyncOnce(w)
		for node := range c.since {
			c.look(node)
		}
	}
	gap := w.stop()
	c.say("%s of %s, %d resyncs: nobody failed over; the longest time without an answer was %s", lasts, load, resyncs, gap.Round(time.Millisecond))
}

// background runs a program of this machine until the test ends.
func (p *pair) background(argv ...string) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), argv[0], argv[1:]...)
	// It ends its own children when it is told to end, not when it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	p.must(cmd.Start())
	p.t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM) //nolint:errcheck // it may have ended by itself
		cmd.Wait()                       //nolint:errcheck // ended
	})
}

// squeeze takes all memory of the machine but spare, for at most a while after lasts,
// and has more read and written through the page cache than there is room for.
func (p *pair) squeeze(lasts time.Duration) {
	p.t.Helper()
	take := meminfo(p.t, "MemAvailable") - spare
	timeout := strconv.Itoa(int(lasts.Seconds()) + 600)
	p.background("stress-ng", "--vm", "4", "--vm-bytes", strconv.FormatUint(take, 10), "--vm-keep", "--vm-hang", "0", "--quiet", "--timeout", timeout)
	limit := time.NewTimer(squeezing)
	defer limit.Stop()
	for meminfo(p.t, "MemAvailable") > 2*spare {
		select {
		case <-limit.C:
			p.t.Fatalf("%d MiB are still available after %s", meminfo(p.t, "MemAvailable")>>20, squeezing)
		case <-time.After(100 * time.Millisecond): // the kernel tells nobody
		}
	}
	p.background("fio", "--name=thrash", "--directory="+p.t.TempDir(), "--size="+thrashing, "--bs=64k", "--rw=randrw", "--ioengine=psync",
		"--direct=0", "--fallocate=none", "--time_based", "--runtime="+timeout)
}

// meminfo returns bytes of /proc/meminfo.
func meminfo(t *testing.T, name string) uint64 { return 1024 * counter(t, "/proc/meminfo", name+":") }

// vmstat returns one of the counters of /proc/vmstat.
func vmstat(t *testing.T, name string) uint64 { return counter(t, "/proc/vmstat", name) }

// counter returns the number that follows a word at the beginning of a line.
func counter(t *testing.T, file, word string) uint64 {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == word {
			n, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				t.Fatalf("%s: %s: %v", file, word, err)
			}
			return n
		}
	}
	t.Fatalf("%s has no %s", file, word)
	return 0
}

// resyncOnce disconnects the nodes while they are written to, and lets the Secondary
// get what it lacks.
func (c *calm) resyncOnce(w *writer) {
	c.t.Helper()
	c.must(c.Verb(c.ctx, c.secondary, apiv1.VerbDisconnect, apiv1.DisconnectRequest{Force: true}, nil))
	c.resource(c.primary, "goes on alone", func(r *apiv1.Resource) bool { return len(r.InSync) == 1 })
	w.progress(steady)
	c.must(c.Verb(c.ctx, c.secondary, apiv1.VerbConnect, apiv1.ConnectRequest{}, nil))
	c.resource(c.primary, "has its peer again", func(r *apiv1.Resource) bool { return len(r.InSync) == 2 })
	w.progress(steady)
}

// look wants a node to know the same Primary, and the same incarnation of the ledger,
// as before, and nobody to have been promoted since it was looked at, nor demoted.
func (c *calm) look(node string) {
	c.t.Helper()
	now, err := c.Status(c.ctx, node)
	c.must(err)
	a, b := &c.before.Resources[0], &now.Resources[0]
	if a.Primary != b.Primary || c.before.Quorum.Incarnation != now.Quorum.Incarnation {
		c.t.Errorf("%s: %s is Primary in incarnation %d, and was %s in %d", node, b.Primary, now.Quorum.Incarnation, a.Primary, c.before.Quorum.Incarnation)
	}
	events, err := c.Events(c.ctx, node, c.since[node])
	c.must(err)
	for _, e := range events {
		switch failover.EntryKind(e.Fields["entry"]) {
		case failover.EntryPromoted, failover.EntryDemoted, failover.EntryLost:
			c.t.Errorf("%s at %s: %s", node, e.Time.Format(time.TimeOnly), e.Text)
		}
		c.since[node] = max(c.since[node], e.Seq)
	}
}
