package bubble

import (
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"testing"
	"time"
)

func envInt(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// TestChaos runs HAPAIR_BUBBLE_SEEDS worlds (3 unless set), from SEED on: some
// rounds of faults, after each of which everything must become well again.
func TestChaos(t *testing.T) {
	seeds, first := envInt("HAPAIR_BUBBLE_SEEDS", 3), envInt("SEED", 1)
	began, virtual := time.Now(), time.Duration(0)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			Run(t, int64(seed), func(w *World) {
				rng := rand.New(rand.NewSource(int64(seed)))
				w.await(60*time.Second, "all is well at first", w.ailing)
				for range 6 {
					w.chaos(rng, 25*time.Second)
					took := w.recover(again)
					w.notef("all is well again after %v", took)
					w.still()
				}
				virtual += w.now()
			})
		})
	}
	t.Logf("%d seeds, %v of virtual time, %.1f virtual minutes per second", seeds, virtual, virtual.Minutes()/time.Since(began).Seconds())
}

// TestManualChaos is TestChaos for two voters that nothing helps to decide: a Primary
// goes on alone, a Secondary waits, and nobody is forced.
func TestManualChaos(t *testing.T) {
	s := usual()
	s.manual = true
	chaosOfTwo(t, s, 2, func(w *World, rng *rand.Rand) { w.chaos(rng, 25*time.Second) })
}

// chaosOfTwo runs HAPAIR_BUBBLE_SEEDS worlds of two nodes, or as many as usual, from SEED
// on: some rounds, after each of which everything must become well again.
func chaosOfTwo(t *testing.T, s setup, usual int, round func(*World, *rand.Rand)) {
	seeds, first := envInt("HAPAIR_BUBBLE_SEEDS", usual), envInt("SEED", 1)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			run(t, int64(seed), s, func(w *World) {
				rng := rand.New(rand.NewSource(int64(seed)))
				w.switchOn(alpha, beta)
				w.await(60*time.Second, "all is well at first", w.ailing)
				for range 5 {
					round(w, rng)
					took := w.recover(again)
					w.notef("all is well again after %v", took)
					w.still()
				}
			})
		})
	}
}
