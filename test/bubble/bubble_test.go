package bubble

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"hapair/mirror/block"
)

func TestMain(m *testing.M) {
	var ignored []goleak.Option
	for _, name := range leaked {
		ignored = append(ignored, goleak.IgnoreAnyFunction(name))
	}
	goleak.VerifyTestMain(m, ignored...)
}

// again is how long the pair may take until all is well after everything is
// mended: a node that just began waits up to 30 s for another, at most twice.
const again = 75 * time.Second

// story runs one scenario on a pair that serves, then mends everything and
// looks at what is left.
func story(t *testing.T, fn func(w *World, primary, secondary string)) {
	t.Helper()
	Run(t, 1, func(w *World) {
		w.await(60*time.Second, "all is well at first", w.ailing)
		time.Sleep(2 * time.Second)
		p := w.primary()
		fn(w, p, other(p))
		t.Logf("all is well %v after the end", w.recover(again))
		w.still()
	})
}

// takesOver waits until the node serves and its applications are answered.
func (w *World) takesOver(node string, within time.Duration) {
	w.t.Helper()
	took := w.await(within, node+" serves", func() string {
		if p := w.primary(); p != node {
			return "serving: " + p
		}
		if s := w.get(node).door.current(); s == nil || s.done.Load() < 2*regions {
			return "nothing is answered"
		}
		return ""
	})
	w.t.Logf("%s serves after %v", node, took)
}

// keepsServing waits until the applications on a node that served before have
// got further.
func (w *World) keepsServing(node string, within time.Duration) {
	w.t.Helper()
	s := w.get(node).door.current()
	if s == nil {
		w.failf("%s has no applications", node)
		return
	}
	from := s.done.Load()
	took := w.await(within, node+" goes on", func() string {
		switch now := w.get(node).door.current(); {
		case now != s:
			return "the device was taken away"
		case now.done.Load() < from+10*regions || now.oldest() > time.Second:
			return "nothing is answered"
		}
		return ""
	})
	w.t.Logf("%s goes on after %v", node, took)
}

func TestNothingHappens(t *testing.T) {
	story(t, func(w *World, p, _ string) {
		time.Sleep(20 * time.Second)
		w.keepsServing(p, time.Second)
		if n := w.book.served(); n != 1 {
			t.Errorf("%d tenures served", n)
		}
	})
}

func TestPrimaryLosesPower(t *testing.T) {
	story(t, func(w *World, p, s string) {
		w.crash(p, true)
		w.takesOver(s, 5*time.Second)
	})
}

func TestPrimaryIsKilled(t *testing.T) {
	story(t, func(w *World, p, s string) {
		w.crash(p, false)
		w.takesOver(s, 5*time.Second)
	})
}

func TestPrimaryIsRestartedAtOnce(t *testing.T) {
	story(t, func(w *World, p, _ string) {
		w.crash(p, false)
		w.boot(p)
		w.await(again, "all is well", w.ailing)
	})
}

func TestPrimaryStandsStill(t *testing.T) {
	for _, d := range []time.Duration{200 * time.Millisecond, time.Second, 20 * time.Second} {
		t.Run(d.String(), func(t *testing.T) {
			story(t, func(w *World, p, s string) {
				w.pause(p, true)
				if d > 10*time.Second {
					w.takesOver(s, 5*time.Second)
				}
				time.Sleep(d)
				w.pause(p, false)
				time.Sleep(time.Second)
			})
		})
	}
}

func TestSecondaryLosesPower(t *testing.T) {
	story(t, func(w *World, p, s string) {
		w.crash(s, true)
		w.keepsServing(p, 5*time.Second)
	})
}

func TestSecondaryStandsStill(t *testing.T) {
	story(t, func(w *World, p, s string) {
		w.pause(s, true)
		w.keepsServing(p, 5*time.Second)
		time.Sleep(5 * time.Second)
	})
}

func TestWitnessIsLost(t *testing.T) {
	story(t, func(w *World, p, _ string) {
		w.crash(witness, true)
		w.keepsServing(p, 5*time.Second)
		time.Sleep(10 * time.Second)
		w.keepsServing(p, time.Second)
	})
}

func TestEveryLinkIsCut(t *testing.T) {
	for i, a := range allNodes {
		for _, b := range allNodes[i+1:] {
			t.Run(a+"-"+b, func(t *testing.T) {
				story(t, func(w *World, p, _ string) {
					w.fabric.cutLink(a, b)
					w.await(10*time.Second, "somebody serves", func() string { return map[bool]string{true: "nobody"}[w.primary() == ""] })
					time.Sleep(10 * time.Second)
				})
			})
			t.Run(a+"-"+b+" one way", func(t *testing.T) {
				story(t, func(w *World, p, _ string) {
					w.fabric.cutOneWay(a, b)
					time.Sleep(8 * time.Second)
					w.fabric.heal(a, b)
					w.fabric.cutOneWay(b, a)
					time.Sleep(8 * time.Second)
				})
			})
		}
	}
}

func TestANodeIsAlone(t *testing.T) {
	for _, who := range []string{"primary", "secondary", "witness"} {
		t.Run(who, func(t *testing.T) {
			story(t, func(w *World, p, s string) {
				w.fabric.isolate(map[string]string{"primary": p, "secondary": s, "witness": witness}[who])
				if who == "primary" {
					w.takesOver(s, 5*time.Second)
				} else {
					w.keepsServing(p, 5*time.Second)
				}
				time.Sleep(10 * time.Second)
			})
		})
	}
}

func TestAllLinksAreCut(t *testing.T) {
	story(t, func(w *World, p, s string) {
		w.fabric.isolate(p)
		w.fabric.isolate(s)
		time.Sleep(3 * time.Second)
		if got := w.primary(); got != "" {
			t.Errorf("%s serves without anybody's leave", got)
		}
		time.Sleep(10 * time.Second)
	})
}

func TestALinkFlaps(t *testing.T) {
	story(t, func(w *World, p, s string) {
		for i := range 40 {
			w.fabric.cutLink(p, s)
			time.Sleep(time.Duration(20+37*i%400) * time.Millisecond)
			w.fabric.heal(p, s)
			time.Sleep(time.Duration(20+53*i%600) * time.Millisecond)
		}
	})
}

func TestSwitchover(t *testing.T) {
	story(t, func(w *World, p, s string) {
		for range 4 {
			if err := w.switchover(); err != nil {
				t.Errorf("switchover: %v", err)
			}
			w.takesOver(s, 3*time.Second)
			w.await(5*time.Second, "all is well", w.ailing)
			p, s = s, p
		}
	})
}

func TestAgentsStopInOrder(t *testing.T) {
	story(t, func(w *World, p, s string) {
		if err := w.stop(p); err != nil {
			t.Errorf("stop %s: %v", p, err)
		}
		w.takesOver(s, 3*time.Second)
		w.boot(p)
		w.await(again, "all is well", w.ailing)
		if err := w.stop(p); err != nil {
			t.Errorf("stop %s: %v", p, err)
		}
		w.keepsServing(s, 3*time.Second)
	})
}

func TestEverythingLosesPower(t *testing.T) {
	story(t, func(w *World, p, s string) {
		for _, n := range []string{s, p, witness} {
			w.crash(n, true)
		}
		time.Sleep(time.Second)
		for _, n := range []string{witness, s, p} {
			w.boot(n)
			time.Sleep(500 * time.Millisecond)
		}
		w.await(again, "all is well", w.ailing)
	})
}

func TestThePrimarysDiskHangs(t *testing.T) {
	for _, d := range []time.Duration{300 * time.Millisecond, 3 * time.Second, 30 * time.Second} {
		t.Run(d.String(), func(t *testing.T) {
			story(t, func(w *World, p, _ string) {
				w.hangDisks(p, d)
			})
		})
	}
}

func TestTheSecondarysDiskHangs(t *testing.T) {
	for _, d := range []time.Duration{300 * time.Millisecond, 3 * time.Second, 30 * time.Second} {
		t.Run(d.String(), func(t *testing.T) {
			story(t, func(w *World, _, s string) {
				w.hangDisks(s, d)
			})
		})
	}
}

func TestADiskFails(t *testing.T) {
	for _, who := range []string{"primary", "secondary"} {
		t.Run(who, func(t *testing.T) {
			story(t, func(w *World, p, s string) {
				n := map[string]string{"primary": p, "secondary": s}[who]
				w.failDisk(n, block.ErrIO)
				if n == p {
					w.takesOver(s, 10*time.Second)
				} else {
					w.keepsServing(p, 5*time.Second)
				}
				time.Sleep(5 * time.Second)
				w.crash(n, true) // a failed disk is attached again by a restart only
			})
		})
	}
}

// A suspect copy is not served because the healthy one was stopped in order.
func TestTheHealthyNodeStopsBesideASuspectOne(t *testing.T) {
	story(t, func(w *World, p, s string) {
		w.hush(true)
		time.Sleep(100 * time.Millisecond)
		w.crash(s, true)
		time.Sleep(2 * time.Second)
		w.boot(s)
		if err := w.stop(p); err != nil {
			t.Errorf("stop %s: %v", p, err)
		}
		w.hush(false)
		time.Sleep(10 * time.Second)
	})
}

// The target of a resync is in sync by a record that only the source has
// applied; then the source loses its power.
func TestOnlyTheLostNodeKnewOfTheInclude(t *testing.T) {
	story(t, func(w *World, p, s string) {
		w.fabric.cutLink(p, witness)
		w.crash(s, false)
		time.Sleep(3 * time.Second)
		w.quick(time.Millisecond)
		w.boot(s)
		w.await(30*time.Second, s+" is in sync", func() string {
			if v := w.get(p).mirror.View(); len(v.Record.InSync) != 2 {
				return "only one copy is in sync"
			}
			return ""
		})
		time.Sleep(3 * time.Millisecond)
		w.fabric.isolate(s)
		time.Sleep(time.Second)
		w.crash(p, true)
		w.boot(p)
		time.Sleep(time.Second)
		w.fabric.healAll()
		time.Sleep(5 * time.Second)
	})
}
