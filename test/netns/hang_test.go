package netns

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// hangs is a disk that answers nothing: neither data nor an error.
const hangs = "read,write,flush,discard,write-zeroes hang"

// impatient gives disks and peers so long.
func impatient(disk, peer string) func(*lab.Options) {
	return func(o *lab.Options) { o.Settings = []string{"disk_timeout: " + disk, "peer_timeout: " + peer} }
}

// told waits until an event of a node says so.
func (p *pair) told(node, what string) {
	p.t.Helper()
	p.eventually(node+" tells of: "+what, func() error {
		events, err := p.Events(p.ctx, node, 0)
		if err == nil && !slices.ContainsFunc(events, func(e apiv1.Event) bool { return strings.Contains(e.Text, what) }) {
			err = errors.New("no event says so")
		}
		return err
	})
}

// The disk of the Primary answers nothing any more, under a file system and a
// writer: after a while everything goes on through the peer. Nobody opens the
// disk again before it has let go of what it was given; then it is filled.
func TestDiskOfPrimaryHangs(t *testing.T) {
	p, w, primary, secondary := failedDisk(t, hangs, impatient("2s", "0s"))
	pid := p.server(primary)
	w.progress(steady)
	attach := func() error { return p.Verb(p.ctx, primary, apiv1.VerbAttach, apiv1.AttachRequest{}, nil) }
	if err := attach(); err == nil || !strings.Contains(err.Error(), "requests are at the disk yet") {
		t.Errorf("a disk with requests at it is attached: %v", err)
	}
	p.worksAgain(primary)
	p.eventually("the disk is attached", attach)
	p.rejoined(secondary)
	if now := p.server(primary); now != pid {
		t.Errorf("the service ran as %s and runs as %s", pid, now)
	}
	p.powerCut(w, primary)
	w.stop()
	p.finish()
}

// withoutPeer is a pair with a writer that goes on alone, because of what a rule
// does to the disk of the Secondary.
func withoutPeer(t *testing.T, rule string, tweak func(*lab.Options)) (p *pair, w *writer, primary, secondary string) {
	t.Helper()
	p = newPair(t, true, tweak)
	primary, secondary = p.settle()
	w = p.write()
	w.progress(steady)
	p.must(p.Fault(p.ctx, secondary, rule))
	w.progress(5 * steady)
	p.resource(primary, "goes on alone", func(r *apiv1.Resource) bool { return serving(r) && slices.Equal(r.InSync, []string{primary}) })
	return p, w, primary, secondary
}

// worksAgain takes the rules from a node's disk, and has it end what hung.
func (p *pair) worksAgain(node string) {
	p.t.Helper()
	p.must(p.Fault(p.ctx, node, "clear"))
	p.must(p.Fault(p.ctx, node, "release"))
}

// The disk of the Secondary answers nothing: the Secondary leaves, and comes
// back with what it lacks, by itself, when the disk has let go of everything.
func TestDiskOfSecondaryHangs(t *testing.T) {
	p, w, primary, secondary := withoutPeer(t, hangs, impatient("2s", "0s"))
	if at := p.look(secondary).AttachInS; at != 0 {
		t.Errorf("attached in %d s, and it still has requests", at)
	}
	p.worksAgain(secondary)
	p.told(secondary, "a disk that hung answers again; it is attached in 10s")
	p.rejoined(secondary)
	p.powerCut(w, primary)
	w.stop()
	p.finish()
}

// The peer is there and takes seconds for a write: the Primary goes on without
// it, leaves it alone for a while, and has it back when it is well again.
func TestSlowPeer(t *testing.T) {
	p, w, primary, secondary := withoutPeer(t, "write,flush delay=3s", impatient("0s", "1s"))
	p.told(primary, "is too slow")
	p.must(p.Fault(p.ctx, secondary, "clear"))
	p.rejoined(secondary)
	p.powerCut(w, primary)
	w.stop()
	p.finish()
}

// A disk that hangs, and nobody else has the data: the writer waits, and goes on
// when the disk does.
func TestLonelyDiskIsWaitedFor(t *testing.T) {
	p := newPair(t, true, impatient("1s", "1s"))
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(secondary))
	w.progress(steady)
	p.must(p.Fault(p.ctx, primary, hangs))
	p.told(primary, "I/O waits for it")
	p.worksAgain(primary)
	w.progress(steady)
	p.must(p.PowerOn(secondary))
	p.rejoined(secondary)
	w.stop()
	p.finish()
}
