package ledger

import (
	"testing"
	"time"
)

// backFromAlone has b lose its power, a go on alone, and b come back: by the snapshot with
// which a went alone.
func (c *cluster) backFromAlone() (b *Ledger) {
	c.t.Helper()
	c.crash("b")
	if err := c.node("a").GoAlone(limit(5*time.Second), "peer gone"); err != nil {
		c.t.Fatal(err)
	}
	c.eventually(time.Second, "a holds the lease alone", c.holds("a", "r"))
	b = c.open("b")
	c.eventually(5*time.Second, "b is a voter again", func() bool { return c.happened("b:rejoined:b") })
	return b
}

// leftWithAnOldSnapshot: b serves alone what a had before, and the newest snapshot it
// has says that a is the only voter.
func (c *cluster) leftWithAnOldSnapshot() {
	c.t.Helper()
	c.openAll()
	c.watch("r")
	c.primary("a", "r")
	b := c.backFromAlone()
	if err := c.node("a").Leave(limit(5 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	c.stop("a")
	c.eventually(5*time.Second, "b is alone", func() bool { return b.Status().Alone })
	c.takeOver(b, "r")
}

// forget has nothing have happened yet.
func (c *cluster) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = nil
}

// A node that comes back is sent a snapshot of a time in which it was the only voter,
// and may hear nothing then for a while, whenever that begins: it does not lead by that,
// and goes on with what its peer decided meanwhile.
func TestRejoinBySnapshotOfItsOwn(t *testing.T) {
	for cut := time.Duration(0); cut < 30*time.Millisecond; cut += time.Millisecond {
		t.Run(cut.String(), func(t *testing.T) {
			bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
				c.leftWithAnOldSnapshot()
				want, _ := c.node("b").Record("r")
				c.forget()
				a := c.open("a")
				if cut > 0 {
					time.Sleep(cut)
					c.net.Cut("a", "b")
					time.Sleep(5 * time.Second)
					if s := a.Status(); s.State == "leader" || s.Quorum {
						t.Errorf("a leads by what was: %+v", s)
					}
					c.net.HealAll()
				}
				c.eventually(10*time.Second, "both vote", func() bool { return c.node("b").Status().Of == 2 && a.Status().Of == 2 && !a.Status().Joining })
				c.eventually(5*time.Second, "a knows what b did", func() bool { r, _ := a.Record("r"); return r.Equal(want) })
				if c.happened("b:rejoining:a") {
					t.Error("b gave up what it had decided")
				}
			})
		})
	}
}
