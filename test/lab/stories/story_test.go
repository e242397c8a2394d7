package stories

import (
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// The Primary loses power under a writer; the survivor goes on, and the other
// comes back and is copied what it lacks.
func TestPowerCutOfPrimary(t *testing.T) {
	p := newPair(t, nil)
	first, second := p.up()
	w := p.write(1)
	p.must(p.PowerOff(first))
	p.await(second, serving)
	w.flowing()
	p.must(p.PowerOn(first))
	p.await(first, inSync)
	w.flowing()
	w.stop()
	p.same(second)
}

// The Secondary loses power; the Primary goes on alone.
func TestPowerCutOfSecondary(t *testing.T) {
	p := newPair(t, nil)
	first, second := p.up()
	w := p.write(1)
	p.must(p.PowerOff(second))
	p.await(first, func(r *apiv1.Resource) bool { return len(r.InSync) == 1 && serving(r) })
	w.flowing()
	p.must(p.PowerOn(second))
	p.await(second, inSync)
	w.stop()
	p.same(first)
}

// The crossover is cut: the pair goes on over the LAN and returns to it.
func TestCrossoverCut(t *testing.T) {
	p := newPair(t, nil)
	first, second := p.up()
	w := p.write(1)
	p.must(p.Cut(first, lab.Crossover))
	w.flowing()
	r := p.await(first, func(r *apiv1.Resource) bool { return inSync(r) && r.Peers[0].Path == lab.LAN })
	if r.Role != "Primary" {
		t.Errorf("a cut cable moved the Primary: %s is %s", first, r.Role)
	}
	p.must(p.Heal(first, lab.Crossover))
	p.await(second, inSync)
	w.flowing()
	w.stop()
	p.same(first)
}

// Every cable of the Primary is cut: the survivor goes on with the witness,
// and the one cut off lets go by itself.
func TestPrimaryCutOff(t *testing.T) {
	p := newPair(t, nil)
	first, second := p.up()
	w := p.write(1)
	p.must(p.Cut(first, lab.Crossover))
	p.must(p.Cut(first, lab.LAN))
	p.await(second, serving)
	w.flowing()
	if r := p.await(first, func(r *apiv1.Resource) bool { return r.LeaseMS == 0 }); r.Role == "Primary" && !r.Frozen {
		t.Errorf("%s is cut off and still serves: %+v", first, r)
	}
	p.must(p.Heal(first, lab.LAN))
	p.must(p.Heal(first, lab.Crossover))
	p.await(first, func(r *apiv1.Resource) bool { return secondary(r) && inSync(r) })
	w.flowing()
	w.stop()
	p.same(second)
}

// The Primary's agent is stopped in its tracks for longer than its lease: it
// wakes up as nobody and answers nothing it should not.
func TestPausedPrimary(t *testing.T) {
	p := newPair(t, nil)
	first, second := p.up()
	w := p.write(1)
	p.must(p.Pause(first))
	p.await(second, serving)
	w.flowing()
	p.must(p.Resume(first))
	p.await(first, func(r *apiv1.Resource) bool { return secondary(r) && inSync(r) })
	w.flowing()
	w.stop()
	p.same(second)
}

// The witness is away: nothing happens to the pair.
func TestWitnessAway(t *testing.T) {
	p := newPair(t, nil)
	first, second := p.up()
	w := p.write(1)
	p.must(p.PowerOff("gamma"))
	w.flowing()
	if r := p.await(first, serving); r.Frozen {
		t.Errorf("frozen without a witness: %v", r.FrozenReasons)
	}
	p.must(p.PowerOn("gamma"))
	p.must(p.AwaitAPI(t.Context(), "gamma"))
	p.must(p.PowerOff(first)) // and now the witness is needed
	p.await(second, serving)
	w.flowing()
	w.stop()
}

// A switchover, there and back, under a writer.
func TestSwitchover(t *testing.T) {
	p := newPair(t, nil)
	first, second := p.up()
	w := p.write(1)
	for _, to := range []string{second, first} {
		p.must(p.Verb(t.Context(), to, apiv1.VerbSwitchover, apiv1.SwitchoverRequest{To: to}, nil))
		p.await(to, serving)
		w.flowing()
	}
	w.stop()
	p.same(first)
}

// Both lose power at once; what was accepted is there when they are back.
func TestBothLosePower(t *testing.T) {
	p := newPair(t, nil)
	first, second := p.up()
	w := p.write(1)
	p.must(p.PowerOff(first))
	p.must(p.PowerOff(second))
	p.must(p.PowerOn(second))
	p.must(p.PowerOn(first))
	deadline := time.Now().Add(settle)
	for w.out.lastAck().Before(time.Now().Add(-steady)) && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	w.flowing()
	w.stop()
	r := p.await(first, func(r *apiv1.Resource) bool { return r.Primary != "" && inSync(r) })
	p.same(r.Primary)
}
