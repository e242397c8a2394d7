package netns

import (
	"strings"
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

func withoutWitness(o *lab.Options) { o.Witness = "-" }

// A pair without a witness: when the Secondary dies the Primary goes on; when
// the Primary dies the Secondary waits for an operator.
func TestManualSecondaryDies(t *testing.T) {
	p := newPair(t, true, withoutWitness)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(secondary))
	p.resource(primary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	w.progress(steady)
	p.must(p.PowerOn(secondary))
	p.rejoined(secondary)
	w.progress(steady)
	p.unmoved(primary)
	// And again: the group of voters is whole.
	p.must(p.PowerOff(secondary))
	p.resource(primary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	w.progress(steady)
	p.must(p.PowerOn(secondary))
	p.rejoined(secondary)
	w.stop()
	p.finish()
}

func TestManualPrimaryDies(t *testing.T) {
	p := newPair(t, true, withoutWitness)
	primary, secondary := p.settle()
	w := p.write()
	for range 2 {
		w.progress(steady)
		p.must(p.PowerOff(primary))
		p.member(secondary, primary, apiv1.MemberDead)
		p.stays(secondary)
		if err := p.Verb(p.ctx, secondary, apiv1.VerbPromote, apiv1.PromoteRequest{WaitMS: 2000}, nil); err == nil {
			t.Error("promoted without force, though nobody knows whether the other is Primary")
		}
		why, err := p.Run(p.ctx, secondary, "hactl", "explain", p.Resource())
		if err != nil || !strings.Contains(why, "would lose") || !strings.Contains(why, "--force") {
			t.Errorf("the explanation does not say what force may lose: %v: %s", err, why)
		}
		out, err := p.Run(p.ctx, secondary, "hactl", "promote", p.Resource(), "--force", "--reason", "the other box burns")
		p.must(err)
		if !strings.Contains(out, "would lose") {
			t.Errorf("promote --force does not say what may be lost: %s", out)
		}
		p.say("%s", out)
		p.takeover(secondary)
		w.progress(steady)
		p.must(p.PowerOn(primary))
		p.rejoined(primary)
		primary, secondary = secondary, primary
	}
	w.stop()
	p.finish()
}

// All links between the two are cut: the Primary goes on, the Secondary waits.
func TestManualPartition(t *testing.T) {
	p := newPair(t, false, withoutWitness)
	primary, secondary := p.settle()
	b := p.probe(primary)
	b.progress(steady)
	p.isolate(secondary)
	p.resource(primary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	b.progress(steady)
	p.stays(secondary)
	p.join(secondary)
	p.rejoined(secondary)
	b.progress(steady)
	b.stop()
	p.unmoved(primary)
	p.finish()
}

// Both lose power; alone, neither knows whether the other went on.
func TestManualBothLosePower(t *testing.T) {
	p := newPair(t, true, withoutWitness)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(primary))
	p.must(p.PowerOff(secondary))
	p.must(p.PowerOn(secondary))
	p.must(p.AwaitAPI(p.ctx, secondary))
	p.stays(secondary)
	p.must(p.PowerOn(primary))
	p.settle()
	w.progress(steady)
	w.stop()
	p.finish()
}

// An agent of a bare pair is stopped in order: the one that stays serves.
func TestManualStoppedAgent(t *testing.T) {
	p := newPair(t, true, withoutWitness)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.Stop(primary))
	p.takeover(secondary)
	w.progress(steady)
	p.must(p.Start(primary))
	p.rejoined(primary)
	w.progress(steady)
	w.stop()
	p.finish()
}
