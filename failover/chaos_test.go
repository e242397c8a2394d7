package failover

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"hapair/failover/plan"
)

var (
	seeds    = flag.Int("seeds", 20, "how many worlds TestChaos visits")
	fromSeed = flag.Uint64("seed", 1, "the first of them")
)

// TestChaos lets things break and heal at random in small worlds. While it
// goes on, the world watches: never two Primaries that serve, never a Primary
// that lacks an answered write, no promotion while the other may hold its
// lease. Afterwards everything is healed and somebody must serve.
func TestChaos(t *testing.T) {
	for seed := *fromSeed; seed < *fromSeed+uint64(*seeds); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { visit(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func visit(t *testing.T, r *rand.Rand) {
	w := newWorld(t, func(s *plan.Settings) {
		s.Preferred = []string{"", "n1", "n2"}[r.IntN(3)]
		if s.Preferred != "" && r.IntN(2) == 0 {
			s.FailbackAfter = 2 * time.Second
		}
	})
	defer w.close()
	w.start("n1")
	w.start("n2")
	for range 60 {
		time.Sleep(time.Duration(r.ExpFloat64() * float64(700*time.Millisecond)))
		breakSomething(t, w, r)
	}
	heal(t, w)
	time.Sleep(4 * time.Second) // the last switchover comes to its end
	w.until(3*time.Minute, "somebody serves in a healed world", func() bool { return w.serves("n1") || w.serves("n2") })
	before := 0
	w.in(func() {
		before = len(w.promos)
		if p := w.set.Preferred; w.set.FailbackAfter > 0 && w.serves(w.nodes[p].peer()) {
			before++ // or not: what failed is not forgotten, or an operator moved it
		}
	})
	time.Sleep(2 * time.Minute)
	w.until(0, "and keeps serving", func() bool { return (w.serves("n1") || w.serves("n2")) && len(w.promos) <= before })
	w.in(func() {
		if len(w.wrong) > 0 {
			w.mu.Unlock()
			t.Log(w.story())
			w.mu.Lock()
		}
	})
}

func breakSomething(t *testing.T, w *world, r *rand.Rand) {
	name := []string{"n1", "n2"}[r.IntN(2)]
	n := w.nodes[name]
	switch r.IntN(9) {
	case 0:
		w.crash(name)
	case 1, 2:
		if !w.isOn(name) {
			w.start(name)
		}
	case 3:
		w.setCut("n1", "n2", r.IntN(2) == 0)
	case 4, 5:
		w.setCut(name, "w", r.IntN(2) == 0)
	case 6:
		if w.isOn(name) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(3000))*time.Millisecond)
			force := r.IntN(2) == 0
			w.done.Go(func() {
				defer cancel()
				if err := n.ctl.Switchover(ctx, n.peer(), force); err != nil {
					t.Log(err)
				}
			})
		}
	case 7:
		w.in(func() {
			n.startFails = r.IntN(3)
			if n.running == plan.Started {
				n.running, n.svcFailed = plan.Broken, "killed"
			}
		})
	case 8:
		w.in(func() { n.startTakes, n.stopFails = time.Duration(r.IntN(2000))*time.Millisecond, r.IntN(2) })
	}
}

func heal(t *testing.T, w *world) {
	for _, l := range []string{"n1-n2", "n1-w", "n2-w"} {
		w.in(func() { w.cut[l] = false })
	}
	for _, n := range w.nodes {
		w.in(func() { n.startFails, n.stopFails, n.startTakes = 0, 0, 50*time.Millisecond })
		if !w.isOn(n.name) {
			w.start(n.name)
		}
	}
}
