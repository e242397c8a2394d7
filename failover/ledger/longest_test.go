package ledger

import (
	"testing"
	"time"
)

// lasting has the nodes that are opened from now on be configured with a lease.
func (c *cluster) lasting(lease time.Duration) {
	c.config = func(cfg *Config) { cfg.Timing.Lease = lease }
}

// promisesAgain has a node lose its power and come back as it is configured now, and waits until
// it promises again.
func (c *cluster) promisesAgain(node string) {
	c.t.Helper()
	c.crash(node)
	l := c.open(node)
	c.eventually(10*time.Second, node+" promises again", l.voter.ready)
}

// The lease is made shorter node by node, and the Primary has the longer one still. Then
// both voters lose their power, and the Primary is cut off from them: what they forgot
// that they promised is waited for.
func TestAShorterLeaseIsNotWhatALongerOneIsWaitedFor(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.lasting(3 * time.Second)
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		c.lasting(500 * time.Millisecond)
		for _, node := range []string{"w", "b"} {
			c.promisesAgain(node)
		}
		c.keeps("a", "r", 6*time.Second)
		c.net.Isolate("a")
		c.crash("w")
		c.crash("b")
		c.open("w")
		c.takeOver(c.open("b"), "r")
	})
}

// keeps has node hold the lease all the time.
func (c *cluster) keeps(node, resource string, all time.Duration) {
	c.t.Helper()
	for began := time.Now(); time.Since(began) < all; time.Sleep(time.Millisecond) {
		if !c.holds(node, resource)() {
			c.t.Fatalf("after %v of %v %v hold the lease", time.Since(began), all, c.holders(resource))
		}
	}
}

// The lease is changed node by node. Meanwhile it is as long as the shorter of what the
// holder and a majority of the voters are configured with, and does not lapse.
func TestALeaseIsChangedNodeByNode(t *testing.T) {
	const long, short = 3 * time.Second, 500 * time.Millisecond
	for name, c := range map[string]struct {
		was, now time.Duration
		again    []string
		holder   string
	}{
		"shorter, the holder last": {long, short, []string{"w", "b"}, "a"},
		"longer, the holder first": {short, long, []string{"b"}, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, ArbitrationWitness, func(t *testing.T, cl *cluster) {
				cl.lasting(c.was)
				cl.openAll()
				cl.watch("r")
				cl.primary("a", "r")
				cl.lasting(c.now)
				for _, node := range c.again {
					cl.promisesAgain(node)
				}
				l := cl.node(c.holder)
				if c.holder != "a" {
					if err := cl.node("a").Release(limit(time.Second), "r"); err != nil {
						t.Fatal(err)
					}
					cl.takeOver(l, "r")
				}
				cl.keeps(c.holder, "r", 3*long)
				if left := l.Lease("r").Until - l.clock(); left > short {
					t.Errorf("the lease is good for %v", left)
				}
			})
		})
	}
}
