package netns

import (
	"slices"
	"testing"
	"time"

	"hapair/agent/apiv1"
)

// watchTime is how long a node that must not be promoted is watched: a
// takeover takes a second.
const watchTime = 4 * time.Second

// Both data nodes lose their power and come back, in every order: everything
// that was synced is there.
func TestBothLosePower(t *testing.T) {
	p := newPair(t, true, nil)
	for _, reverse := range [][2]bool{{false, false}, {true, true}, {false, true}, {true, false}} {
		primary, secondary := p.settle()
		w := p.write()
		w.progress(steady)
		offs, ons := []string{primary, secondary}, []string{primary, secondary}
		if reverse[0] {
			slices.Reverse(offs)
		}
		if reverse[1] {
			slices.Reverse(ons)
		}
		p.say("off: %v, on: %v", offs, ons)
		for _, name := range offs {
			p.must(p.PowerOff(name))
		}
		for _, name := range ons {
			p.must(p.PowerOn(name))
		}
		p.settle()
		w.progress(steady)
		w.stop()
		p.finish()
	}
}

// Both lose their power, and only the Secondary comes back. The ledger calls
// it current, so it serves, with everything; the other follows when it comes.
func TestOneReturns(t *testing.T) {
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(primary)) // in this order the ledger's last entry is on the one that returns
	p.must(p.PowerOff(secondary))
	p.must(p.PowerOn(secondary))
	p.must(p.AwaitAPI(p.ctx, secondary))
	r := p.resource(secondary, "has read the record", func(r *apiv1.Resource) bool { return r.Token != 0 })
	if !slices.Contains(r.InSync, secondary) {
		t.Errorf("the ledger calls only %v current", r.InSync)
	}
	p.takeover(secondary)
	w.progress(steady)
	p.verifyNow(w, secondary)
	p.must(p.PowerOn(primary))
	p.settle()
	w.progress(steady)
	w.stop()
	p.finish()
}

// A copy that the ledger does not call current is not promoted, however long
// its peer stays away; the peer's return ends it.
func TestStaleCopyWaits(t *testing.T) {
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(secondary))
	p.resource(primary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	w.progress(steady)
	p.must(p.PowerOff(primary))
	p.must(p.PowerOn(secondary))
	p.must(p.AwaitAPI(p.ctx, secondary))
	// The entry that says so may be with the witness alone, which passes it on.
	p.resource(secondary, "knows that it lacks something", func(r *apiv1.Resource) bool { return slices.Equal(r.InSync, []string{primary}) })
	p.stays(secondary)
	if err := p.Verb(p.ctx, secondary, apiv1.VerbPromote, apiv1.PromoteRequest{WaitMS: 2000}, nil); err == nil {
		t.Error("a copy that lacks answered writes was promoted without force")
	} else {
		p.say("promote says: %v", err)
	}
	p.must(p.PowerOn(primary))
	p.takeover(primary)
	p.rejoined(secondary)
	w.progress(steady)
	w.stop()
	p.finish()
}

// Everything loses its power, the witness too.
func TestAllLosePower(t *testing.T) {
	p := newPair(t, true, nil)
	p.settle()
	w := p.write()
	w.progress(steady)
	all := append(p.Data(), "gamma")
	for _, name := range all {
		p.must(p.PowerOff(name))
	}
	slices.Reverse(all)
	for _, name := range all {
		p.must(p.PowerOn(name))
	}
	p.settle()
	w.progress(steady)
	w.stop()
	p.finish()
}

// The survivor loses its power in the middle of its takeover, at one step after
// another: its processes are gone at once, whatever they waited for, and what
// was answered is there when both are back.
func TestPowerOffDuringTakeover(t *testing.T) {
	p := newPair(t, true, nil)
	for _, step := range []func(*apiv1.Resource) bool{
		func(r *apiv1.Resource) bool { return r.Primary == "" || r.Role == "Primary" || r.LeaseMS > 0 },
		func(r *apiv1.Resource) bool { return r.Role == "Primary" },
		func(r *apiv1.Resource) bool { return r.Role == "Primary" && r.Volumes[0].Device != "" },
		func(r *apiv1.Resource) bool {
			return r.Role == "Primary" && r.Services[0].State == apiv1.ServiceRunning
		},
		serving,
	} {
		primary, survivor := p.settle()
		w := p.write()
		w.progress(steady)
		p.must(p.PowerOff(primary))
		p.resource(survivor, "is on its way", step)
		p.must(p.PowerOff(survivor))
		p.must(p.PowerOn(survivor))
		p.must(p.PowerOn(primary))
		p.settle()
		w.progress(steady)
		w.stop()
		p.finish()
	}
}

// All lose power, two of the three for good, as it seems: the operator forces the one
// that comes back. The others return to it empty-handed.
func TestForcedAfterAPowerCut(t *testing.T) {
	long(t)
	newPair(t, true, nil).forcedAfterAPowerCut()
}

// stays watches a node for a while: it must not become Primary.
func (p *pair) stays(node string) {
	p.t.Helper()
	over := time.After(watchTime)
	again := time.NewTicker(tick)
	defer again.Stop()
	for {
		select {
		case <-over:
			p.say("%s: not promoted", node)
			return
		case <-again.C:
		}
		if r := p.look(node); r != nil && (r.Role == "Primary" || r.Primary == node) {
			p.t.Fatalf("%s became Primary: %+v", node, r)
		}
	}
}

// verifyNow looks for what a writer that goes on was answered up to now.
func (p *pair) verifyNow(w *writer, primary string) {
	p.t.Helper()
	w.mu.Lock()
	for _, a := range w.acks {
		p.acked[a.N] = true
	}
	w.mu.Unlock()
	p.verify(primary)
}
