package netns

import (
	"errors"
	"os"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// bites is the time-out of the watchdog in these stories: longer than an agent stands
// still because this machine is busy.
const bites = 3 * time.Second

func watched(o *lab.Options) { o.Watchdog = bites }

// goesOff waits until a node that is on has no power any more, and tells when that
// was seen.
func (p *pair) goesOff(node string) time.Time {
	p.t.Helper()
	p.eventually(node+" is off", func() error {
		if p.Look(p.ctx, node).Power == "on" {
			return errors.New("it is on")
		}
		return nil
	})
	return time.Now()
}

// The agent of the Primary stands still: its peer takes over when the lease has run
// out, and the machine goes down with what was left on it when its watchdog has.
func TestWatchdog(t *testing.T) {
	p := newPair(t, true, watched)
	primary, secondary := p.settle()
	s, err := p.Status(p.ctx, primary)
	p.must(err)
	if w := s.Watchdog; w == nil || w.TimeoutMS != bites.Milliseconds() || w.Because != "" || w.PetsTotal == 0 {
		t.Fatalf("the watchdog of %s: %+v", primary, w)
	}
	w := p.write()
	w.progress(steady)
	if os.Getenv("HAPAIR_LONG") != "" {
		p.endsAgents(w, secondary)
	}
	paused := time.Now()
	p.must(p.Pause(primary))
	p.takeover(secondary)
	if after := p.goesOff(primary).Sub(paused); after < bites/2 || after > bites+10*time.Second {
		t.Errorf("%s was reset %s after its agent had stood still, by a watchdog of %s", primary, after, bites)
	}
	w.progress(steady)
	p.must(p.PowerOn(primary))
	p.rejoined(primary)
	w.stop()
	p.finish()
}

// endsAgents ends the agent of a node in order, which disarms the watchdog, and by
// SIGKILL, after which one that is started in time goes on with it.
func (p *pair) endsAgents(w *writer, node string) {
	p.t.Helper()
	p.must(p.Stop(node))
	time.Sleep(bites + time.Second) // what must not happen has no event
	p.must(p.Start(node))
	p.rejoined(node)
	w.progress(steady)
	p.must(p.Kill(node))
	p.must(p.Start(node))
	p.rejoined(node)
	time.Sleep(bites + time.Second)
	w.progress(steady)
	if p.Look(p.ctx, node).Power != "on" {
		p.t.Fatalf("%s was reset, after a stop in order or a restart", node)
	}
	p.must(p.Kill(node))
	p.goesOff(node)
	p.must(p.PowerOn(node))
	p.rejoined(node)
}

// A Primary that can reach nobody is petted, and waits: its I/O goes on when it is
// back, or its peer has taken over. With on_no_quorum: reset it goes down.
func TestWatchdogWithoutQuorum(t *testing.T) {
	long(t)
	for word, down := range map[string]bool{"wait": false, "reset": true} {
		t.Run(word, func(t *testing.T) {
			p := newPair(t, false, func(o *lab.Options) {
				o.Extra = "watchdog: {device: " + lab.WatchdogDevice + ", timeout: " + bites.String() + ", on_no_quorum: " + word + "}\n"
			})
			primary, secondary := p.settle()
			p.isolate(primary)
			p.resource(secondary, "is Primary", func(r *apiv1.Resource) bool { return r.Role == "Primary" && !r.Frozen })
			if down {
				p.goesOff(primary)
				p.join(primary)
				p.must(p.PowerOn(primary))
			} else {
				time.Sleep(2 * bites) // what must not happen has no event
				if power := p.Look(p.ctx, primary).Power; power != "on" {
					t.Fatalf("%s is %s", primary, power)
				}
				p.join(primary)
			}
			p.rejoined(primary)
			p.finish()
		})
	}
}
