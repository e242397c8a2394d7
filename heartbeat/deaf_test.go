package heartbeat

import (
	"testing"
	"testing/synctest"
	"time"

	"hapair/heartbeat/detect"
)

// A node that is deaf to its peer on one path calls that path dead as it would a
// silent one, and only that; then it comes back.
func TestDeafen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer settle()
		w := newWires()
		a, down := watched(t, inMemory(Config{Self: "alpha", Nodes: two()}, w))
		defer a.Stop()
		b, _ := watched(t, inMemory(Config{Self: "beta", Nodes: two()}, w))
		defer b.Stop()
		await(t, a, "beta", 5*time.Second, allPaths(detect.Alive))
		a.Deafen("beta", "crossover", true)
		begin := time.Now()
		if got := <-down; got != "beta by crossover" {
			t.Errorf("down: %s", got)
		}
		if took := time.Since(begin); took > 1500*time.Millisecond {
			t.Errorf("noticed after %s", took)
		}
		time.Sleep(10 * time.Second)
		for _, p := range a.Snapshot().Nodes["beta"].Paths {
			if want := map[string]detect.State{"crossover": detect.Dead, "lan": detect.Alive}[p.Path]; p.State != want {
				t.Errorf("%s is %s", p.Path, p.State)
			}
		}
		a.Deafen("beta", "crossover", false)
		await(t, a, "beta", 10*time.Second, allPaths(detect.Alive))
	})
}
