package netns

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/lab"
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

// moved has the configuration of all nodes say another address of one.
func (p *pair) moved(from, to string, nodes ...string) {
	p.t.Helper()
	for _, node := range nodes {
		file := filepath.Join(p.Dir(), node, "etc", "hapair.yaml")
		text, err := os.ReadFile(file)
		p.must(err)
		p.must(os.WriteFile(file, regexp.MustCompile(`\b`+regexp.QuoteMeta(from)+`\b`).ReplaceAll(text, []byte(to)), 0o600))
	}
}

// readdress gives a node another address on the machine itself.
func (p *pair) readdress(node, dev, from, to string) {
	p.t.Helper()
	p.run(node, "ip", "address", "del", from+"/24", "dev", dev) // with it go others of its network
	p.run(node, "ip", "address", "add", to+"/24", "dev", dev)
}

// counts waits until the witness is reached and votes.
func (p *pair) counts(node string) {
	p.t.Helper()
	p.status(node, "reaches all voters", func(s *apiv1.Status) bool { return s.Quorum.HasQuorum && s.Quorum.Reachable == 3 })
	p.status("gamma", "votes", func(s *apiv1.Status) bool { return s.Quorum.HasQuorum && len(s.Quorum.Refusing) == 0 })
	p.member(node, "gamma", apiv1.MemberAlive)
}

// The witness dies for good. Another machine, at another address, takes its place,
// without a restart of anybody else and without a pause of I/O; then it is half of a
// majority. The old one is refused.
func TestReplaceWitness(t *testing.T) {
	long(t)
	const was, now = "192.168.1.13", "192.168.1.63"
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff("gamma"))
	p.member(primary, "gamma", apiv1.MemberDead)
	p.say("%s", p.run(secondary, "hactl", "replace", "gamma", "--i-have-checked", "--reason", "burned"))
	p.takenAway("gamma", ".old")
	p.moved(was, now, primary, secondary, "gamma")
	for _, node := range []string{primary, secondary} {
		p.say("%s", p.run(node, "hactl", "config", "apply"))
	}
	p.must(p.PowerOn("gamma"))
	p.must(p.AwaitAPI(p.ctx, "gamma"))
	p.readdress("gamma", "eth0", was, now)
	p.counts(primary)
	p.counts(secondary)
	p.unmoved(primary)
	if gap := w.stop(); gap > leaseMax {
		t.Errorf("nothing was answered for %s", gap)
	}
	w = p.write()
	w.progress(steady)
	p.must(p.PowerOff(secondary))
	p.resource(primary, "goes on, with the new witness", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	w.progress(steady)
	p.must(p.PowerOn(secondary))
	p.rejoined(secondary)
	p.moved(now, was, "gamma")
	p.putBack("gamma", ".old", ".new")
	p.sayReplaced("gamma", primary)
	w.progress(steady)
	w.stop()
	p.finish()
}

// Both data nodes get other addresses, one after another: each restarts its agent once,
// as Secondary; the others take the address over while they run. Nothing is copied as
// a whole, and the resource moves only where it is told to.
func TestNodesMove(t *testing.T) {
	long(t)
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	for _, node := range []string{secondary, primary} {
		if node == primary {
			p.switchTo(w, secondary)
		}
		was := p.Address(node, lab.Crossover)
		now := strings.Replace(was, "10.99.0.", "10.99.0.2", 1)
		p.moved(was, now, primary, secondary, "gamma")
		for _, other := range []string{p.other(node), "gamma"} {
			p.run(other, "hactl", "config", "apply")
		}
		p.refused(node, "more than addresses of other members", "config", "apply")
		copied := p.watchResync(p.other(node))
		p.must(p.Stop(node))
		p.readdress(node, "eth1", was, now)
		p.must(p.Start(node))
		p.must(p.AwaitAPI(p.ctx, node))
		p.rejoined(node)
		p.pathOf(p.other(node), lab.Crossover)
		p.status(p.other(node), "knows the address", func(s *apiv1.Status) bool {
			return slices.ContainsFunc(s.Members, func(m apiv1.Member) bool {
				return m.Name == node && slices.ContainsFunc(m.Paths, func(x apiv1.Path) bool { return x.Address == now && x.State == apiv1.MemberAlive })
			})
		})
		p.unmoved(p.other(node))
		if got := copied(); got > smallVolume/4 {
			t.Errorf("%d MiB of %d were to be copied", got/mib, smallVolume/mib)
		}
		w.progress(steady)
	}
	w.stop()
	p.finish()
}

// arbitrate has the configuration of a node say another arbitration.
func (p *pair) arbitrate(node, was, now string, change func(string) string) {
	p.t.Helper()
	file := filepath.Join(p.Dir(), node, "etc", "hapair.yaml")
	text, err := os.ReadFile(file)
	p.must(err)
	p.must(os.WriteFile(file, []byte(strings.Replace(change(string(text)), "arbitration: "+was, "arbitration: "+now, 1)), 0o600))
}
