package netns

import (
	"slices"
	"strings"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// The crossover cable is pulled: the mirror goes over the LAN, and back when it is
// plugged in; nobody changes its role.
func TestCutCrossover(t *testing.T) {
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	p.pathOf(primary, lab.Crossover)
	w := p.write()
	w.progress(steady)
	p.must(p.Cut(primary, lab.Crossover))
	p.pathOf(primary, lab.LAN)
	w.progress(steady)
	p.unmoved(primary)
	p.must(p.Heal(primary, lab.Crossover))
	p.pathOf(primary, lab.Crossover)
	w.progress(steady)
	p.unmoved(primary)
	p.must(p.Cut(secondary, lab.Crossover))
	p.pathOf(primary, lab.LAN)
	w.progress(steady)
	p.must(p.Heal(secondary, lab.Crossover))
	w.stop()
	p.unmoved(primary)
	p.finish()
}

// The LAN cable of either node is pulled: nobody changes its role, the mirror
// goes on. Clients of the Primary cannot reach it meanwhile.
func TestCutLAN(t *testing.T) {
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	for _, node := range []string{primary, secondary} {
		w.progress(steady)
		p.must(p.Cut(node, lab.LAN))
		p.pathState(p.other(node), node, lab.LAN, apiv1.MemberDead)
		if node == secondary {
			w.progress(steady)
		}
		p.pathOf(primary, lab.Crossover)
		p.unmoved(primary)
		p.must(p.Heal(node, lab.LAN))
		p.pathState(p.other(node), node, lab.LAN, apiv1.MemberAlive)
		w.progress(steady)
		p.unmoved(primary)
	}
	w.stop()
	p.finish()
}

// Both links of the Primary are cut, while a process on it writes and reads
// its device: after the lease nothing is answered there, the survivor takes
// over with the witness, and after healing the cut-off one is made equal.
func TestIsolatedPrimary(t *testing.T) {
	p := newPair(t, false, nil)
	primary, survivor := p.settle()
	for _, start := range []func(string) *probe{p.probe, p.probe, p.probeReads, p.probeReads} { // both ways round
		b := start(primary)
		b.progress(steady)
		p.isolate(primary)
		over := bootTime() + leaseMax
		p.takeover(survivor)
		late := p.lateProbe(primary)
		c := p.probe(survivor)
		c.progress(10 * steady)
		p.resource(primary, "does not serve", func(r *apiv1.Resource) bool { return !serving(r) || r.LeaseMS == 0 })
		p.join(primary)
		for _, old := range []*probe{b, late} {
			old.awaitEnd()
			old.silentAfter(over)
			old.stop()
		}
		p.rejoined(primary)
		c.progress(steady)
		c.stop()
		p.finish()
		primary, survivor = survivor, primary
	}
}

// The same with a file system, a service and an address on top. The address leaves the
// old node, whose agent lives, for as long as it is cut off.
func TestIsolatedServices(t *testing.T) {
	p := newPair(t, true, nil)
	primary, survivor := p.settle()
	w := p.write()
	w.progress(steady)
	p.isolate(primary)
	p.takeover(survivor)
	p.addressless(primary)
	w.progress(steady)
	p.addressless(primary)
	p.join(primary)
	p.rejoined(primary)
	w.progress(steady)
	w.stop()
	p.finish()
	p.must(p.Verb(p.ctx, survivor, apiv1.VerbSwitchover, apiv1.SwitchoverRequest{To: primary}, nil))
	p.takeover(primary)
	p.finish()
}

// addressless checks that a node does not have the service address now.
func (p *pair) addressless(node string) {
	p.t.Helper()
	if out := p.run(node, "ip", "-o", "address", "show"); strings.Contains(out, " "+lab.ServiceAddress+"/") {
		p.t.Errorf("%s has the service address:\n%s", node, out)
	}
}

// isolate cuts both links, last the one that carries the mirror: a Primary that
// loses its peer while the other link still holds may rightly take it out of the
// in-sync set.
func (p *pair) isolate(node string) {
	p.t.Helper()
	first, last := lab.LAN, lab.Crossover
	if r := p.look(node); r != nil && r.Peers[0].Path == lab.LAN {
		first, last = last, first
	}
	p.must(p.Cut(node, first))
	p.must(p.Cut(node, last))
}

func (p *pair) join(node string) {
	p.t.Helper()
	p.must(p.Heal(node, lab.LAN))
	p.must(p.Heal(node, lab.Crossover))
}

// unmoved checks that a node is Primary and always was.
func (p *pair) unmoved(primary string) {
	p.t.Helper()
	p.takeover(primary)
	events, err := p.Events(p.ctx, p.other(primary), 0)
	p.must(err)
	if i := slices.IndexFunc(events, func(e apiv1.Event) bool { return e.Fields["entry"] == "promoted" }); i >= 0 {
		p.t.Errorf("the Secondary was promoted: %s", events[i].Text)
	}
}

// member waits until a node sees another in a state.
func (p *pair) member(node, other, state string) {
	p.t.Helper()
	p.status(node, other+" is "+state, func(s *apiv1.Status) bool {
		return slices.ContainsFunc(s.Members, func(m apiv1.Member) bool { return m.Name == other && m.State == state })
	})
}

// pathState waits until a node sees a path to another in a state.
func (p *pair) pathState(node, other, path, state string) {
	p.t.Helper()
	p.status(node, path+" to "+other+" is "+state, func(s *apiv1.Status) bool {
		return slices.ContainsFunc(s.Members, func(m apiv1.Member) bool {
			return m.Name == other && slices.ContainsFunc(m.Paths, func(q apiv1.Path) bool { return q.Name == path && q.State == state })
		})
	})
}

func (p *pair) status(node, what string, ok func(*apiv1.Status) bool) {
	p.t.Helper()
	if _, err := p.Await(p.ctx, node, patience, ok); err != nil {
		p.t.Fatalf("%s: %s: %v", node, what, err)
	}
	p.say("%s: %s", node, what)
}

// watchResync looks at a node's status until the returned function is called,
// which says how many bytes the largest resync had to copy.
func (p *pair) watchResync(node string) func() int64 {
	most, stop, done := int64(0), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		again := time.NewTicker(2 * time.Millisecond)
		defer again.Stop()
		for {
			if r := p.look(node); r != nil && len(r.Peers) == 1 {
				most = max(most, r.Peers[0].DirtyBytes)
				if s := r.Peers[0].Resync; s != nil {
					most = max(most, s.TotalBytes)
				}
			}
			select {
			case <-stop:
				return
			case <-again.C:
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-done
		p.say("%s: at most %d KiB were to be resynced", node, most>>10)
		return most
	}
}
