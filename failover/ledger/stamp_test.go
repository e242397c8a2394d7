package ledger

import (
	"sync/atomic"
	"testing"
	"time"
)

// What a node has heard reaches the others within a renewal, whichever of the two
// asks, and what goes through the ledger's calls as well.
func TestStampsRideOnRenewals(t *testing.T) {
	stamps := map[string]*atomic.Uint64{"a": {}, "b": {}, "w": {}}
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.config = func(cfg *Config) {
			mine := stamps[cfg.Self]
			cfg.Stamp = mine.Load
			cfg.Heard = func(s uint64) {
				if s == 0 {
					t.Error("the stamp of a node without one was told")
				}
				for was := mine.Load(); s > was && !mine.CompareAndSwap(was, s); was = mine.Load() {
				}
			}
		}
		c.openAll()
		c.eventually(10*time.Second, "a leader", func() bool { return c.node("a").Status().Quorum })
		for i, n := range []string{"a", "w", "b"} {
			want := uint64(100 * (i + 1))
			stamps[n].Store(want)
			took := c.eventually(time.Second, "all have heard", func() bool {
				return stamps["a"].Load() == want && stamps["b"].Load() == want && stamps["w"].Load() == want
			})
			if took > 2*c.node("a").cfg.Timing.Renew {
				t.Errorf("what %s said took %v", n, took)
			}
		}
	})
}
