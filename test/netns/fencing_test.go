package netns

import (
	"os"
	"strings"
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

func byFencing(o *lab.Options) { o.Witness, o.Arbitration = "-", "fencing" }

// onAgain switches a node on that its peer has switched off.
func (p *pair) onAgain(node string) {
	p.t.Helper()
	p.must(p.PowerOn(node))
	p.rejoined(node)
}

// primaryDies has the Secondary fence a Primary that has lost its power, and take over.
func (p *pair) primaryDies(w *writer, primary, secondary string) {
	p.t.Helper()
	w.progress(steady)
	p.must(p.PowerOff(primary))
	p.takeover(secondary)
	p.fenceOutcome(secondary, "confirmed")
	w.progress(steady)
	p.onAgain(primary)
}

// secondaryDies has the Primary fence a Secondary that has lost its power, and go on.
func (p *pair) secondaryDies(w *writer, primary, secondary string) {
	p.t.Helper()
	w.progress(steady)
	p.must(p.PowerOff(secondary))
	p.aloneInSync(primary)
	w.progress(steady)
	if p.Look(p.ctx, primary).Power != "on" {
		p.t.Fatalf("%s fenced %s, and is off itself", primary, secondary)
	}
	p.onAgain(secondary)
}

// fencesOverACut cuts all links between two that live: the Secondary goes down, and the
// Primary goes on.
func (p *pair) fencesOverACut(primary, secondary string) {
	p.t.Helper()
	b := p.probe(primary)
	b.progress(steady)
	p.isolate(secondary)
	p.goesOff(secondary)
	p.fenceOutcome(primary, "confirmed")
	p.aloneInSync(primary)
	b.progress(steady)
	p.join(secondary)
	p.onAgain(secondary)
	b.progress(steady)
	b.stop()
	p.unmoved(primary)
	p.finish()
}

func (p *pair) aloneInSync(primary string) {
	p.t.Helper()
	p.resource(primary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
}

// fenceOutcome waits until a node tells of a fence of its peer that ended so.
func (p *pair) fenceOutcome(node, outcome string) {
	p.t.Helper()
	p.must2(p.Await(p.ctx, node, patience, func(s *apiv1.Status) bool {
		return len(s.Fences) > 0 && s.Fences[len(s.Fences)-1].Outcome == outcome
	}))
}

func (p *pair) must2(_ *apiv1.Status, err error) {
	p.t.Helper()
	p.must(err)
}

// A pair that fences, without a witness: the Primary loses its power, and the
// Secondary, when it is certain of that, takes over by itself. No record is lost;
// the old Primary comes back without a ledger, and is filled. Twice.
func TestFencingPrimaryDies(t *testing.T) {
	p := newPair(t, true, byFencing)
	primary, secondary := p.settle()
	w := p.write()
	for range 2 {
		p.primaryDies(w, primary, secondary)
		primary, secondary = secondary, primary
		if os.Getenv("HAPAIR_LONG") == "" {
			break
		}
	}
	w.stop()
	p.finish()
}

func TestFencingSecondaryDies(t *testing.T) {
	long(t)
	p := newPair(t, true, byFencing)
	primary, secondary := p.settle()
	w := p.write()
	for range 2 {
		p.secondaryDies(w, primary, secondary)
	}
	w.stop()
	p.unmoved(primary)
	p.finish()
}

// All links between the two are cut: the Primary switches the Secondary off, and
// is not switched off itself.
func TestFencingPartition(t *testing.T) {
	long(t)
	p := newPair(t, false, byFencing)
	p.fencesOverACut(p.settle())
}

// The agent of the Primary stands still: it is switched off before the other one
// goes on, so what it answers when it goes on nobody hears.
func TestFencingPrimaryStandsStill(t *testing.T) {
	long(t)
	p := newPair(t, true, byFencing)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.Pause(primary))
	p.takeover(secondary)
	w.progress(steady)
	p.onAgain(primary)
	w.stop()
	p.finish()
}

// The device does not do what it is asked: the Secondary waits and says so, until
// an operator has looked.
func TestFencingByAnOperatorsWord(t *testing.T) {
	long(t)
	p := newPair(t, true, byFencing)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(os.Remove(p.FenceProgram()))
	p.must(p.PowerOff(primary))
	p.resource(secondary, "says that the fence failed", func(r *apiv1.Resource) bool { return strings.Contains(r.Because, "fencing "+primary+" failed") })
	p.stays(secondary)
	why, err := p.Run(p.ctx, secondary, "hactl", "explain", p.Resource())
	if err != nil || !strings.Contains(why, "hactl fence-confirm "+primary) || !strings.Contains(why, "--force") {
		t.Errorf("the explanation does not say what helps: %v: %s", err, why)
	}
	if out, err := p.Run(p.ctx, secondary, "hactl", "fence-confirm", primary); err == nil {
		t.Errorf("confirmed without a look: %s", out)
	}
	out, err := p.Run(p.ctx, secondary, "hactl", "fence-confirm", primary, "--i-have-checked")
	p.must(err)
	p.say("%s", out)
	p.takeover(secondary)
	w.progress(steady)
	p.onAgain(primary)
	w.stop()
	p.finish()
}

// Both lose power, and one comes back: it has not met the other, which may have
// gone on. It switches nobody off, and waits.
func TestFencingColdStartAlone(t *testing.T) {
	long(t)
	p := newPair(t, true, byFencing)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(primary))
	p.must(p.PowerOff(secondary))
	p.must(p.PowerOn(secondary))
	p.must(p.AwaitAPI(p.ctx, secondary))
	p.stays(secondary)
	p.resource(secondary, "says that it has not met the other", func(r *apiv1.Resource) bool { return strings.Contains(r.Because, "not met") })
	p.must(p.PowerOn(primary))
	p.settle()
	w.progress(steady)
	w.stop()
	p.finish()
}
