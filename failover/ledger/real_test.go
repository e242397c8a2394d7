package ledger

import (
	"testing"
	"time"

	"hapair/failover/lease"
)

// Once with real time, the kernel's clock and a real disk: commands, the lease,
// going alone and the peer's return.
func TestRealClockAndDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two seconds of real time")
	}
	c := newCluster(t, t.TempDir(), ArbitrationManual, 1)
	defer c.closeAll()
	c.config = func(cfg *Config) { cfg.Clock, cfg.store.Sync = lease.Boottime(), nil }
	c.openAll()
	c.watch("r")
	r := c.primary("a", "r")
	began := time.Now()
	const n = 20
	for range n / 2 {
		r = must2(t)(c.node("a").Exclude(limit(5*time.Second), "r", "b", r.Token))
		r = must2(t)(c.node("b").Include(limit(5*time.Second), "r", "b", r.Token))
	}
	t.Logf("a command takes %v", time.Since(began)/n)
	c.crash("b")
	began = time.Now()
	if err := c.node("a").GoAlone(limit(5*time.Second), "peer gone"); err != nil {
		t.Fatal(err)
	}
	t.Logf("alone after %v, %v of them the attempt to reach the peer", time.Since(began), c.node("a").cfg.Timing.Heartbeat/2)
	c.eventually(time.Second, "a holds the lease", c.holds("a", "r"))
	c.open("b")
	began = time.Now()
	c.eventually(10*time.Second, "b is a voter again", func() bool { return c.node("b").Status().State == "follower" && c.node("a").Status().Of == 2 })
	t.Logf("the peer votes again after %v", time.Since(began))
	if !c.holds("a", "r")() {
		t.Error("the peer's return cost the lease")
	}
}
