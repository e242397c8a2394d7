package netns

import (
	"os"
	"path/filepath"
	"testing"

	"hapair/agent/apiv1"
)

// machineDirs are what a machine has of its own: its state and its disks.
var machineDirs = []string{"lib", "disks"}

// takenAway switches a machine off and carries it away, with all that it has; another
// of the same name stands in its place, with blank disks and no state.
func (p *pair) takenAway(node, as string) {
	p.t.Helper()
	if p.alive(node) {
		p.must(p.PowerOff(node))
	}
	p.rename(node, "", as)
	for _, d := range machineDirs {
		p.must(os.Mkdir(filepath.Join(p.Dir(), node, d), 0o755))
	}
	if node != "gamma" {
		f, err := os.Create(p.Image(node))
		p.must(err)
		p.must(f.Truncate(smallVolume))
		p.must(f.Close())
	}
}

// alive tells whether a node is on.
func (p *pair) alive(node string) bool {
	_, err := p.Run(p.ctx, node, "true")
	return err == nil
}

// putBack has a machine that was carried away stand in the place of the present one,
// which is carried away in turn.
func (p *pair) putBack(node, as, away string) {
	p.t.Helper()
	p.must(p.PowerOff(node))
	p.rename(node, "", away)
	p.rename(node, as, "")
	p.must(p.PowerOn(node))
	p.must(p.AwaitAPI(p.ctx, node))
}

func (p *pair) rename(node, from, to string) {
	p.t.Helper()
	for _, d := range machineDirs {
		at := filepath.Join(p.Dir(), node, d)
		p.must(os.Rename(at+from, at+to))
	}
}

// sayReplaced waits until a machine says that it was replaced.
func (p *pair) sayReplaced(node, by string) {
	p.t.Helper()
	p.eventually(node+" says that it was replaced", func() error {
		out, err := p.Run(p.ctx, node, "hactl", "status")
		return wants(out, err, "this machine was replaced: "+by+" takes another machine for "+node)
	})
}

// replaced has a machine die for good and a new one join in its place, under a writer.
func (p *pair) replaced(w *writer, primary, gone string) {
	p.t.Helper()
	w.progress(steady)
	p.refused(primary, gone+" runs", "replace", gone, "--i-have-checked")
	p.must(p.PowerOff(gone))
	p.resource(primary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	p.member(primary, gone, apiv1.MemberDead)
	p.refused(primary, "would be refused for good", "replace", gone)
	p.refused(primary, "is no other node", "replace", primary, "--i-have-checked")
	p.say("%s", p.run(primary, "hactl", "replace", gone, "--i-have-checked"))
	p.takenAway(gone, ".old")
	p.must(p.PowerOn(gone))
	p.must(p.AwaitAPI(p.ctx, gone))
	p.must(p.Stop(gone)) // it has come to know that its disk is blank
	p.run(gone, "hactl", "create-metadata", p.Resource())
	p.must(p.Start(gone))
	p.rejoined(gone)
	p.unmoved(primary)
	w.progress(steady)
}

// A data node dies for good. A new machine of its name joins as if blank and is
// filled, while the Primary serves. The old one is found in a cupboard and switched
// on: nobody talks to it.
func TestReplaceNode(t *testing.T) {
	p := newPair(t, true, nil)
	primary, gone := p.settle()
	w := p.write()
	p.replaced(w, primary, gone)
	w.stop()
	p.finish()
	p.putBack(gone, ".old", ".new")
	p.sayReplaced(gone, primary)
	p.resource(primary, "does not talk to it", func(r *apiv1.Resource) bool {
		return serving(r) && len(r.Peers) == 1 && r.Peers[0].Connection != "Connected"
	})
}

// Nothing is promoted by the old machine's vote, nor filled from it; the new one is put
// in its place again.
func TestReplacedMachineDoesNotServe(t *testing.T) {
	long(t)
	p := newPair(t, true, nil)
	primary, gone := p.settle()
	w := p.write()
	p.replaced(w, primary, gone)
	p.putBack(gone, ".old", ".new")
	p.sayReplaced(gone, primary)
	w.progress(steady)
	p.must(p.PowerOff(primary))
	p.stays(gone)
	p.must(p.PowerOn(primary))
	p.takeover(primary)
	p.putBack(gone, ".new", ".old")
	p.rejoined(gone)
	w.progress(steady)
	w.stop()
	p.finish()
}
