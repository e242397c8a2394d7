package netns

import (
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// steady is how many answered records make a writer's stream steady.
const steady = 100

// The power of the Primary is cut, both ways round: the survivor takes over,
// the other comes back and is made equal.
func TestPowerOffPrimary(t *testing.T) {
	p := newPair(t, true, nil)
	first, _ := p.settle()
	w := p.write()
	for _, victim := range []string{first, p.other(first)} {
		survivor := p.other(victim)
		w.progress(steady)
		p.must(p.PowerOff(victim))
		p.takeover(survivor)
		w.progress(steady)
		p.must(p.PowerOn(victim))
		p.rejoined(victim)
		if r := p.takeover(survivor); r.Primary != survivor {
			t.Errorf("the Primary is %q: nobody may fail back unasked", r.Primary)
		}
	}
	w.stop()
	p.finish()
}

// The power of the Secondary is cut: the Primary goes on, and only what
// changed is copied afterwards.
func TestPowerOffSecondary(t *testing.T) {
	const size = 512 * mib
	p := newPair(t, true, func(o *lab.Options) { o.Size = size })
	primary, secondary := p.settle()
	token := p.takeover(primary).Token
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(secondary))
	p.resource(primary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	w.progress(steady)
	if r := p.takeover(primary); r.Peers[0].DirtyBytes == 0 || r.Peers[0].DirtyBytes > size/4 {
		t.Errorf("after some records %d bytes of %d are dirty", r.Peers[0].DirtyBytes, size)
	}
	served := p.watchResync(primary)
	p.must(p.PowerOn(secondary))
	p.rejoined(secondary)
	if got := served(); got > size/4 {
		t.Errorf("the resync copied %d MiB of %d", got/mib, size/mib)
	}
	w.progress(steady)
	w.stop()
	if r := p.takeover(primary); r.Token <= token {
		t.Errorf("the token was %d and is %d, though the set of copies changed twice", token, r.Token)
	}
	p.finish()
}

// The power of the witness is cut: nothing changes, and a planned switchover
// still works.
func TestPowerOffWitness(t *testing.T) {
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	before := p.takeover(primary)
	p.must(p.PowerOff("gamma"))
	p.member(primary, "gamma", apiv1.MemberDead)
	p.member(secondary, "gamma", apiv1.MemberDead)
	w.progress(5 * steady)
	if r := p.takeover(primary); r.Token != before.Token || len(r.InSync) != 2 {
		t.Errorf("the witness died, and the record went from token %d to %d, in sync %v", before.Token, r.Token, r.InSync)
	}
	p.must(p.Verb(p.ctx, primary, apiv1.VerbSwitchover, apiv1.SwitchoverRequest{To: secondary}, nil))
	p.takeover(secondary)
	w.progress(steady)
	p.must(p.PowerOn("gamma"))
	p.member(primary, "gamma", apiv1.MemberAlive)
	// The witness counts again: with its vote alone the other side takes over.
	p.must(p.PowerOff(secondary))
	p.takeover(primary)
	w.progress(steady)
	p.must(p.PowerOn(secondary))
	p.rejoined(secondary)
	w.stop()
	p.finish()
}
