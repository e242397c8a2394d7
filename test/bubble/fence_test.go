package bubble

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"
)

// armed is a pair that arbitrates by fencing.
func armed() setup {
	s := usual()
	s.fencing, s.delay, s.preferred = true, 3*time.Second, alpha
	return s
}

// duel runs one scenario on such a pair, alpha its Primary, then mends everything
// and looks at what is left.
func duel(t *testing.T, g gun, fn func(w *World)) {
	t.Helper()
	run(t, 1, armed(), func(w *World) {
		w.switchOn(alpha, beta)
		w.await(60*time.Second, "all is well at first", w.ailing)
		if p := w.primary(); p != alpha {
			t.Fatalf("%s is Primary", p)
		}
		time.Sleep(2 * time.Second)
		w.arm(g)
		fn(w)
		t.Logf("all is well %v after the end", w.recover(again))
		w.still()
	})
}

// says waits until a node waits for something with a word of text in it.
func (w *World) says(node, text string) {
	w.t.Helper()
	w.await(30*time.Second, node+" says "+text, func() string {
		d := w.get(node).control.Status().Decision
		if len(d.Steps) > 0 || !strings.Contains(d.Because, text) {
			return d.Because
		}
		return ""
	})
}

// cuts is how often the power of each node was cut.
func (w *World) wasCut(a, b int) {
	w.t.Helper()
	if got := w.powerCuts(); got[alpha] != a || got[beta] != b {
		w.failf("the power was cut %v times, wanted %d of alpha, %d of beta", got, a, b)
	}
}

func TestFencedPrimaryLosesPower(t *testing.T) {
	duel(t, gun{takes: time.Second}, func(w *World) {
		w.crash(alpha, true)
		w.takesOver(beta, 8*time.Second)
		w.boot(alpha)
		w.await(again, "all is well", w.ailing)
		if r, _ := w.get(beta).ledger.Record(resource); r.Primary != beta || w.get(alpha).ledger.Incarnation() != 2 {
			w.failf("record %+v, alpha is of incarnation %d", r, w.get(alpha).ledger.Incarnation())
		}
	})
}

func TestFencedPrimaryIsKilled(t *testing.T) {
	duel(t, gun{takes: time.Second}, func(w *World) {
		w.crash(alpha, false)
		w.takesOver(beta, 8*time.Second)
	})
}

func TestFencedPrimaryIsRestartedAtOnce(t *testing.T) {
	duel(t, gun{takes: time.Second}, func(w *World) {
		w.crash(alpha, false)
		w.boot(alpha)
		w.await(again, "all is well", w.ailing)
		w.wasCut(0, 0)
	})
}

// A word of the one that stands still may arrive while it is being fenced: then that
// does not count, and it is fenced once more.
func TestFencedPrimaryStandsStill(t *testing.T) {
	duel(t, gun{takes: time.Second, late: true}, func(w *World) {
		w.pause(alpha, true)
		w.takesOver(beta, 20*time.Second)
		w.wasCut(1, 0)
	})
}

func TestFencedSecondaryLosesPower(t *testing.T) {
	duel(t, gun{takes: time.Second}, func(w *World) {
		w.crash(beta, true)
		w.keepsServing(alpha, 5*time.Second)
	})
}

// Both live, all links are cut: the Primary wins, and only one is off.
func TestFencedAllLinksCut(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("late %t", late), func(t *testing.T) {
			duel(t, gun{takes: time.Second, late: late}, func(w *World) {
				w.fabric.cutLink(alpha, beta)
				w.keepsServing(alpha, 5*time.Second)
				time.Sleep(20 * time.Second)
				w.wasCut(0, 1)
			})
		})
	}
}

// Nothing is confirmed: nobody goes on, both say why; once the links are back the
// Primary goes on where it was.
func TestFencedUnconfirmed(t *testing.T) {
	for name, how := range map[string]aim{"refused": refusing, "unknown": broken} {
		t.Run(name, func(t *testing.T) {
			duel(t, gun{takes: time.Second, how: how}, func(w *World) {
				w.fabric.cutLink(alpha, beta)
				w.says(alpha, "fencing beta failed")
				w.says(beta, "fencing alpha failed")
				time.Sleep(time.Minute)
				if p := w.primary(); p != "" {
					w.failf("%s serves", p)
				}
				w.fabric.healAll()
				w.keepsServing(alpha, 5*time.Second)
				w.await(5*time.Second, "the ledger keeps the outcomes", func() string {
					if n := len(w.get(alpha).ledger.Status().Fences); n < 4 {
						return fmt.Sprint(n)
					}
					return ""
				})
			})
		})
	}
}

// It was done, and nobody heard of it: only the next one, confirmed, counts.
func TestFencedUnknownButDone(t *testing.T) {
	duel(t, gun{takes: time.Second, how: mute}, func(w *World) {
		w.crash(alpha, true)
		w.says(beta, "fencing alpha failed")
		time.Sleep(10 * time.Second)
		if p := w.primary(); p != "" {
			w.failf("%s serves", p)
		}
		w.arm(gun{takes: time.Second})
		w.takesOver(beta, time.Minute)
	})
}

// A slow gun is pointed at beta, the links come back, and it fires all the same.
// That was beta's crash, no more: alpha goes on with its own vote and beta's.
func TestFencedTooLate(t *testing.T) {
	duel(t, gun{takes: 10 * time.Second, late: true}, func(w *World) {
		w.fabric.cutLink(alpha, beta)
		w.says(alpha, "beta is being fenced")
		w.fabric.healAll()
		w.await(5*time.Second, "beta is off", func() string {
			if w.up(beta) {
				return "it is on"
			}
			return ""
		})
		w.boot(beta)
		w.await(again, "all is well", w.ailing)
		if r, _ := w.get(alpha).ledger.Record(resource); r.Primary != alpha {
			w.failf("record %+v", r)
		}
	})
}

// Whoever starts alone has not met the other: it fences nobody, and says so.
func TestFencedColdStartAlone(t *testing.T) {
	for _, node := range dataNodes {
		t.Run(node, func(t *testing.T) {
			duel(t, gun{takes: time.Second}, func(w *World) {
				w.crash(alpha, true)
				w.crash(beta, true)
				time.Sleep(10 * time.Second)
				w.boot(node)
				w.says(node, "not met")
				time.Sleep(2 * time.Minute)
				w.wasCut(1, 1)
			})
		})
	}
}

// One is stopped in order: the other one needs no fence.
func TestFencedStopInOrder(t *testing.T) {
	for _, node := range dataNodes {
		t.Run(node, func(t *testing.T) {
			duel(t, gun{takes: time.Second}, func(w *World) {
				if err := w.stop(node); err != nil {
					t.Error(err)
				}
				w.takesOver(other(node), 5*time.Second)
				time.Sleep(10 * time.Second)
				w.wasCut(0, 0)
			})
		})
	}
}

// TestFencedChaos is TestChaos for two that fence each other, by devices of every kind.
func TestFencedChaos(t *testing.T) {
	s := armed()
	s.preferred = ""
	chaosOfTwo(t, s, 3, func(w *World, rng *rand.Rand) {
		w.arm(gun{takes: within(rng, 100*time.Millisecond, 4*time.Second), how: aim(max(0, rng.Intn(6)-2)), late: rng.Intn(2) == 0})
		w.chaos(rng, 25*time.Second)
		w.mend()
		time.Sleep(gunTakes) // what was under way may still strike
	})
}
