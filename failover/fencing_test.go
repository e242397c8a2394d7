package failover

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"hapair/failover/plan"
)

// fenced runs a story in a pair that arbitrates by fencing, n1 its Primary.
func fenced(t *testing.T, d device, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(s *plan.Settings) { s.Arbitration, s.Preferred = plan.Fencing, "n1" })
		defer w.close()
		w.device = d
		w.start("n1")
		w.start("n2")
		w.until(5*time.Second, "n1 serves", func() bool { return w.serves("n1") })
		time.Sleep(2 * time.Second)
		f(t, w)
	})
}

// waits checks what a node says that it waits for.
func (w *world) waits(name string, code plan.Code, text string) {
	w.t.Helper()
	time.Sleep(time.Second)
	d := w.nodes[name].ctl.Status().Decision
	if d.Code != code || !strings.Contains(d.Because, text) {
		w.t.Fatalf("%s: %s: %s; wanted %s, %q\n%s", name, d.Code, d.Because, code, text, w.story())
	}
}

// The table of docs/safety.md.

func TestFencingPrimaryDies(t *testing.T) {
	fenced(t, device{takes: 2 * time.Second}, func(t *testing.T, w *world) {
		w.crash("n1")
		took := w.until(10*time.Second, "n2 serves", func() bool { return w.serves("n2") })
		if want := deadAfter + w.set.FenceDelay + w.device.takes; took < want || took > want+500*time.Millisecond {
			t.Errorf("took %v; detection, delay and fence are %v", took, want)
		}
		w.start("n1")
		w.until(10*time.Second, "n1 is in sync again", func() bool { return w.rec.Has("n1") && w.alone == "" })
		w.in(func() {
			if !slices.Equal(w.shot, []string{"n1"}) || w.rec.Primary != "n2" {
				t.Errorf("turned off: %v, Primary %s", w.shot, w.rec.Primary)
			}
		})
	})
}

func TestFencingSecondaryDies(t *testing.T) {
	fenced(t, device{takes: 2 * time.Second}, func(t *testing.T, w *world) {
		w.crash("n2")
		w.waits("n1", plan.CodeFence, "I/O is frozen")
		took := w.until(5*time.Second, "n1 goes on", func() bool { return w.serves("n1") })
		if took > deadAfter+w.device.takes {
			t.Errorf("took %v", took)
		}
		w.in(func() {
			if w.alone != "n1" || w.nodes["n1"].opens != 1 {
				t.Errorf("alone %q, devices opened %d times", w.alone, w.nodes["n1"].opens)
			}
		})
	})
}

// Both live, all links are cut: the Primary wins.
func TestFencingAllLinksCut(t *testing.T) {
	fenced(t, device{takes: 2 * time.Second, late: true}, func(t *testing.T, w *world) {
		w.setCut("n1", "n2", true)
		w.until(5*time.Second, "n1 goes on alone", func() bool { return w.serves("n1") && w.alone == "n1" })
		time.Sleep(time.Minute)
		w.in(func() {
			if !slices.Equal(w.shot, []string{"n2"}) {
				t.Errorf("turned off: %v", w.shot)
			}
		})
		w.setCut("n1", "n2", false)
		w.start("n2")
		w.until(10*time.Second, "n2 is in sync again", func() bool { return w.rec.Has("n2") && w.serves("n1") })
	})
}

// Neither confirms: both wait, say so, and try again. When the links heal the
// Primary goes on as if nothing had been.
func TestFencingIsNotConfirmed(t *testing.T) {
	for name, mode := range map[string]deviceMode{"refused": refuses, "unknown": broken} {
		t.Run(name, func(t *testing.T) {
			fenced(t, device{mode: mode, takes: time.Second}, func(t *testing.T, w *world) {
				w.setCut("n1", "n2", true)
				time.Sleep(3 * time.Minute)
				for _, n := range []string{"n1", "n2"} {
					w.waits(n, plan.CodeFence, "switch: "+name)
					if d := w.nodes[n].ctl.Status().Decision; !strings.Contains(d.Hint, "hactl fence-confirm") || !strings.Contains(d.Hint, "--force") {
						t.Errorf("%s: hint %q", n, d.Hint)
					}
				}
				w.in(func() {
					// 5, 10, 20, 40, 40, 40 s after one another
					if a, b := w.nodes["n1"].shots, w.nodes["n2"].shots; a < 6 || a > 8 || b < 6 || b > 8 {
						t.Errorf("tried %d and %d times", a, b)
					}
				})
				w.setCut("n1", "n2", false)
				w.until(5*time.Second, "n1 goes on", func() bool { return w.serves("n1") })
				w.until(5*time.Second, "the ledger keeps the outcomes", func() bool { return len(w.fenced) > 8 })
				w.in(func() {
					if !slices.Contains(w.fenced, "n1 "+name) || !slices.Contains(w.fenced, "n2 "+name) || len(w.promos) != 1 {
						t.Errorf("kept %v, promoted %v", w.fenced, w.promos)
					}
				})
			})
		})
	}
}

// It was fenced, and nobody heard: only a confirmation counts, the next one does.
func TestFencingUnknownButDone(t *testing.T) {
	fenced(t, device{mode: mute, takes: time.Second}, func(t *testing.T, w *world) {
		w.crash("n1")
		time.Sleep(20 * time.Second)
		w.waits("n2", plan.CodeFence, "switch: unknown")
		w.in(func() { w.device.mode = honest })
		w.until(time.Minute, "n2 serves", func() bool { return w.serves("n2") })
	})
}

// The links heal while the device is at it: the fence is broken off, does not
// count, and while it may strike nothing is handed over.
func TestFencingTheyMeetMeanwhile(t *testing.T) {
	fenced(t, device{takes: time.Minute, late: true}, func(t *testing.T, w *world) {
		w.setCut("n1", "n2", true)
		w.until(3*time.Second, "n1 fences", func() bool { return w.nodes["n1"].shots == 1 })
		w.setCut("n1", "n2", false)
		w.until(time.Second, "n2 is turned off as the device is broken off", func() bool { return !w.nodes["n2"].up })
		w.start("n2")
		w.until(5*time.Second, "n1 goes on", func() bool { return w.serves("n1") && w.rec.Has("n2") })
		w.in(func() {
			if w.alone != "" || len(w.promos) != 1 {
				t.Errorf("alone %q, promoted %v", w.alone, w.promos)
			}
		})
	})
}

func TestFencingUndecided(t *testing.T) {
	fenced(t, device{takes: time.Minute, late: true}, func(t *testing.T, w *world) {
		w.in(func() { w.nodes["n1"].ballot.state = plan.FenceVoid })
		err := w.nodes["n1"].ctl.Switchover(t.Context(), "n2", false)
		var r *Refusal
		if !errors.As(err, &r) || r.Code != plan.CodeFence {
			t.Fatalf("switchover: %v", err)
		}
		if err := w.nodes["n1"].ctl.Demote(t.Context(), true); !errors.As(err, &r) || r.Code != plan.CodeFence {
			t.Fatalf("demotion: %v", err)
		}
		w.in(func() { w.nodes["n1"].ballot.state = plan.FenceNone })
		if err := w.nodes["n1"].ctl.Switchover(t.Context(), "n2", false); err != nil {
			t.Fatal(err)
		}
	})
}

// A node that starts alone has not met its peer: it fences nobody.
func TestFencingColdStartAlone(t *testing.T) {
	for _, node := range []string{"n1", "n2"} {
		t.Run(node, func(t *testing.T) {
			fenced(t, device{takes: time.Second}, func(t *testing.T, w *world) {
				w.crash("n1")
				w.crash("n2")
				time.Sleep(time.Minute)
				w.start(node)
				time.Sleep(5 * time.Minute)
				w.waits(node, plan.CodeNoRecord, "not met since it began")
				w.in(func() {
					if len(w.shot) > 0 {
						t.Errorf("turned off: %v", w.shot)
					}
				})
			})
		})
	}
}

func TestFencingMaintenance(t *testing.T) {
	fenced(t, device{}, func(t *testing.T, w *world) {
		w.in(func() { w.marks[MarkMaintenance] = true })
		w.setCut("n1", "n2", true)
		time.Sleep(time.Minute)
		for _, n := range []string{"n1", "n2"} {
			w.waits(n, plan.CodeMaintenance, "maintenance is on")
		}
		w.in(func() {
			if len(w.shot) > 0 {
				t.Errorf("turned off: %v", w.shot)
			}
		})
	})
}

// One at a time asks the device, whoever has part in it.
func TestFencesAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(s *plan.Settings) { s.Arbitration = plan.Fencing })
		defer w.close()
		n := w.nodes["n1"]
		w.in(func() {
			n.up, n.ballot.met, n.known = true, true, plan.Record{Token: 3, Primary: "n1", InSync: []string{"n1", "n2"}}
		})
		woken := make(chan string, 9)
		f := NewFences(FencesConfig{Self: "n1", Peer: "n2", Ballot: ballots{n}, Devices: devices{n}, Clock: w.now, Log: zap.NewNop(), Wake: func(cause string) { woken <- cause }})
		w.in(func() { w.device = device{mode: broken, takes: time.Hour} })
		for range 2 {
			if err := f.Fence("a test"); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if v := f.View(); v.State != plan.FenceAsked || !v.First || n.shots != 1 {
			t.Fatalf("%+v, %d times", v, n.shots)
		}
		f.Close()
		if cause := <-woken; cause != "fence of n2" {
			t.Error(cause)
		}
		if v := f.View(); v.State != plan.FenceFailed || v.Failures != 1 || !strings.Contains(v.Text, "broken off") {
			t.Fatalf("%+v", v)
		}
		if err := f.Fence("after the end"); !errors.Is(err, ErrStopped) {
			t.Fatal(err)
		}
		if s := n.ballot.state; s.String() != "failed" {
			t.Fatalf("a fence that was never begun is %v", s)
		}
		n.off()
	})
}

func TestFencesFirst(t *testing.T) {
	for _, c := range []struct {
		self, peer string
		primaries  []string
		want       bool
	}{
		{"a", "b", nil, false}, {"a", "b", []string{"a"}, true}, {"a", "b", []string{"b"}, false}, {"a", "b", []string{"b", "a"}, true}, {"b", "a", []string{"a", "b"}, false},
	} {
		if got := (&Fences{cfg: FencesConfig{Self: c.self, Peer: c.peer}}).first(c.primaries); got != c.want {
			t.Errorf("%s beside %s, Primaries %v: %t", c.self, c.peer, c.primaries, got)
		}
	}
}

// TestFencingChaos is TestChaos for a pair that arbitrates by fencing, with
// devices of every kind.
func TestFencingChaos(t *testing.T) {
	for seed := *fromSeed; seed < *fromSeed+uint64(*seeds)/2; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { visitFenced(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func visitFenced(t *testing.T, r *rand.Rand) {
	w := newWorld(t, func(s *plan.Settings) {
		s.Arbitration, s.Preferred = plan.Fencing, []string{"", "n1", "n2"}[r.IntN(3)]
		s.FenceDelay = time.Duration(1+r.IntN(4)) * time.Second
	})
	defer w.close()
	w.start("n1")
	w.start("n2")
	for range 60 {
		time.Sleep(time.Duration(r.ExpFloat64() * float64(1500*time.Millisecond)))
		if r.IntN(4) > 0 {
			breakSomething(t, w, r)
			continue
		}
		w.in(func() {
			w.device = device{mode: []deviceMode{honest, honest, honest, refuses, mute, broken}[r.IntN(6)], takes: time.Duration(r.ExpFloat64() * float64(time.Second)), late: r.IntN(2) == 0}
		})
	}
	w.in(func() { w.device = device{takes: 100 * time.Millisecond} })
	heal(t, w)
	time.Sleep(time.Minute) // what was under way may still strike
	heal(t, w)
	w.until(3*time.Minute, "somebody serves in a healed world", func() bool { return w.serves("n1") || w.serves("n2") })
	w.in(func() {
		if len(w.wrong) > 0 {
			w.mu.Unlock()
			t.Log(w.story())
			w.mu.Lock()
		}
	})
}
