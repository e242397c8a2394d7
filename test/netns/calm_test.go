package netns

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/failover"
)

// burnersEach is how many processes of the load there are for each processor.
const burnersEach = 2

// Nobody fails over for want of processors: while all of them are busy twice over, at
// the same priority as the agents, a program writes to the volume, another one to a
// service on it, and one resync follows the other, for as long as HAPAIR_CALM says.
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
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	before, err := p.Status(p.ctx, primary)
	p.must(err)
	since := map[string]uint64{primary: before.EventSeq, secondary: 0}
	w := p.write()
	w.progress(steady)
	p.burn(lasts)
	p.start(primary, "fio", "--name=calm", "--filename=/srv/pg/calm", "--size=16M", "--bs=4k", "--rw=randrw", "--ioengine=libaio", "--iodepth=8",
		"--direct=1", "--fsync=32", "--time_based", fmt.Sprintf("--runtime=%d", int(lasts.Seconds())))
	resyncs := 0
	for began := time.Now(); time.Since(began) < lasts; resyncs++ {
		p.resyncOnce(w, primary, secondary)
		for node, seen := range since {
			since[node] = p.calm(node, before, seen)
		}
	}
	gap := w.stop()
	p.say("%s with %d processes for each of %d processors, %d resyncs: nobody failed over; the longest time without an answer was %s",
		lasts, burnersEach, runtime.NumCPU(), resyncs, gap.Round(time.Millisecond))
	p.finish()
}

// burn keeps all processors busy until the test ends, or a while after lasts.
func (p *pair) burn(lasts time.Duration) {
	p.t.Helper()
	c := exec.CommandContext(p.t.Context(), "stress-ng", "--cpu", strconv.Itoa(burnersEach*runtime.NumCPU()), "--quiet",
		"--timeout", strconv.Itoa(int(lasts.Seconds())+600))
	p.must(c.Start())
	p.t.Cleanup(func() {
		c.Process.Kill() //nolint:errcheck // it may have ended by itself
		c.Wait()         //nolint:errcheck // killed
	})
}

// resyncOnce disconnects the nodes while they are written to, and lets the Secondary
// get what it lacks.
func (p *pair) resyncOnce(w *writer, primary, secondary string) {
	p.t.Helper()
	p.must(p.Verb(p.ctx, secondary, apiv1.VerbDisconnect, apiv1.DisconnectRequest{Force: true}, nil))
	p.resource(primary, "goes on alone", func(r *apiv1.Resource) bool { return len(r.InSync) == 1 })
	w.progress(steady)
	p.must(p.Verb(p.ctx, secondary, apiv1.VerbConnect, apiv1.ConnectRequest{}, nil))
	p.resource(primary, "has its peer again", func(r *apiv1.Resource) bool { return len(r.InSync) == 2 })
	w.progress(steady)
}

// calm wants a node to know the same Primary, and the same incarnation of the ledger,
// as before, and nobody to have been promoted since an event, nor demoted. It returns
// the newest event.
func (p *pair) calm(node string, before *apiv1.Status, since uint64) uint64 {
	p.t.Helper()
	now, err := p.Status(p.ctx, node)
	p.must(err)
	a, b := &before.Resources[0], &now.Resources[0]
	if a.Primary != b.Primary || before.Quorum.Incarnation != now.Quorum.Incarnation {
		p.t.Errorf("%s: %s is Primary in incarnation %d, and was %s in %d", node, b.Primary, now.Quorum.Incarnation, a.Primary, before.Quorum.Incarnation)
	}
	events, err := p.Events(p.ctx, node, since)
	p.must(err)
	for _, e := range events {
		switch failover.EntryKind(e.Fields["entry"]) {
		case failover.EntryPromoted, failover.EntryDemoted, failover.EntryLost:
			p.t.Errorf("%s at %s: %s", node, e.Time.Format(time.TimeOnly), e.Text)
		}
		since = max(since, e.Seq)
	}
	return since
}
