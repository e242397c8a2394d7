package sim

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// TestSeeds runs SEEDS worlds (200 unless set) from SEED on.
func TestSeeds(t *testing.T) {
	seeds, first := envInt("SEEDS", 200), envInt("SEED", 1)
	start, answers := time.Now(), 0
	for seed := first; seed < first+seeds; seed++ {
		w := New(uint64(seed), false)
		if err := w.Run(3000); err != nil {
			again := New(uint64(seed), true)
			again.Run(3000)
			path := fmt.Sprintf("%s/hapair-sim-%d.log", os.TempDir(), seed)
			if werr := os.WriteFile(path, []byte(again.Log()), 0o644); werr != nil {
				t.Log(werr)
			}
			t.Fatalf("seed %d: %v\nlog: %s\nagain: make sim SEEDS=1 SEED=%d", seed, err, path, seed)
		}
		answers += w.Answers()
	}
	if answers == 0 {
		t.Fatal("no request was ever answered: the simulation does nothing")
	}
	t.Logf("%d seeds, %d requests answered, %.0f seeds/s", seeds, answers, float64(seeds)/time.Since(start).Seconds())
}

func envInt(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}
