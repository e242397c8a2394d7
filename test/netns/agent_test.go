package netns

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// pauseTime is how long an agent stands still: far beyond its lease.
const pauseTime = 10 * time.Second

// The Primary's agent is stopped in its tracks while a process writes and
// reads its device: the survivor takes over, and the one that wakes up answers
// nothing.
func TestPausedPrimary(t *testing.T) {
	p := newPair(t, false, nil)
	primary, survivor := p.settle()
	b := p.probe(primary)
	b.progress(steady)
	p.must(p.Pause(primary))
	paused, over := bootTime(), time.After(pauseTime)
	p.takeover(survivor)
	c := p.probe(survivor)
	late := p.lateProbe(primary)
	c.progress(5 * steady)
	<-over
	p.must(p.Resume(primary))
	for _, old := range []*probe{b, late} {
		old.awaitEnd()
		old.silentAfter(paused)
		old.stop()
	}
	p.rejoined(primary)
	c.progress(steady)
	c.stop()
	p.finish()
}

// The same with a file system, a service and an address on top, for about as
// long as the takeover lasts, and for longer.
func TestPausedServices(t *testing.T) {
	p := newPair(t, true, nil)
	primary, survivor := p.settle()
	w := p.write()
	for range 2 {
		w.progress(steady)
		p.must(p.Pause(primary))
		p.takeover(survivor)
		if out := p.run(primary, "ip", "-o", "addr", "show", "to", lab.ServiceAddress); out != "" {
			t.Errorf("the survivor serves, and %s, whose agent stands still, has the address as well: %s", primary, out)
		}
		w.progress(steady)
		p.must(p.Resume(primary))
		p.rejoined(primary)
		w.progress(steady)
		primary, survivor = survivor, primary
	}
	w.stop()
	p.finish()
}

// A pause shorter than a lease changes nothing that lasts, and one of about a
// lease may, but loses nothing.
func TestShortPauses(t *testing.T) {
	long(t)
	p := newPair(t, true, nil)
	p.settle()
	w := p.write()
	for _, d := range []time.Duration{leaseMax / 4, leaseMax / 2, leaseMax, leaseMax * 5 / 4, leaseMax * 3 / 2} {
		w.progress(steady)
		primary := p.primary()
		p.must(p.Pause(primary))
		<-time.After(d)
		p.must(p.Resume(primary))
		w.progress(steady)
		p.settle()
	}
	w.stop()
	p.finish()
}

// An agent is killed, while its node lives on with the mount, the service and
// the address it had, and started again: on the Secondary, then on the Primary.
func TestKilledAgent(t *testing.T) {
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.Kill(secondary))
	p.resource(primary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	w.progress(steady)
	p.must(p.Start(secondary))
	p.rejoined(secondary)
	p.unmoved(primary)
	w.progress(steady)
	for range 2 {
		p.must(p.Kill(primary))
		p.takeover(secondary)
		w.progress(steady)
		p.must(p.Start(primary))
		p.rejoined(primary)
		w.progress(steady)
		primary, secondary = secondary, primary
	}
	w.stop()
	p.finish()
}

// The agent of the Primary is killed, and its disk cannot be opened when it starts
// again: what it left running beside the other's is stopped nevertheless.
func TestKilledAgentWithoutItsDisk(t *testing.T) {
	long(t)
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.Kill(primary))
	p.takeover(secondary)
	p.run(primary, "grep", " /srv/pg ", "/proc/self/mountinfo") // it is there still
	away := p.Image(primary) + ".away"
	p.must(os.Rename(p.Image(primary), away))
	p.must(p.Start(primary))
	p.resource(primary, "is not attached", func(r *apiv1.Resource) bool { return strings.Contains(r.Because, "not attached") })
	p.bare(primary)
	w.progress(steady)
	p.must(p.Stop(primary))
	p.must(os.Rename(away, p.Image(primary)))
	p.must(p.Start(primary))
	p.rejoined(primary)
	w.progress(steady)
	w.stop()
	p.finish()
}

// An agent killed and started again at once finds its way back, whoever is
// Primary then.
func TestRestartedAgent(t *testing.T) {
	long(t)
	p := newPair(t, true, nil)
	p.settle()
	w := p.write()
	for range 3 {
		w.progress(steady)
		primary := p.primary()
		p.must(p.Kill(primary))
		p.must(p.Start(primary))
		w.progress(steady)
		p.settle()
	}
	w.stop()
	p.finish()
}

// A switchover there and back, under a writer.
func TestSwitchover(t *testing.T) {
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.Verb(p.ctx, primary, apiv1.VerbSwitchover, apiv1.SwitchoverRequest{To: secondary}, nil))
	p.takeover(secondary)
	w.progress(steady)
	p.settle()
	p.must(p.Verb(p.ctx, primary, apiv1.VerbSwitchover, apiv1.SwitchoverRequest{}, nil)) // asked of the Secondary
	p.takeover(primary)
	w.progress(steady)
	w.stop()
	p.finish()
}

// Failovers in a row: the Primary loses its power, the other takes over, the
// first comes back. HAPAIR_FAILOVERS says how many.
func TestFailovers(t *testing.T) {
	p := newPair(t, true, nil)
	primary, survivor := p.settle()
	w := p.write()
	for i := range number(t, "HAPAIR_FAILOVERS", 5) {
		w.progress(steady)
		p.must(p.PowerOff(primary))
		p.takeover(survivor)
		w.progress(steady)
		p.must(p.PowerOn(primary))
		p.rejoined(primary)
		p.say("%s", fmt.Sprintf("failover %d is done", i+1))
		primary, survivor = survivor, primary
	}
	w.stop()
	p.finish()
}
