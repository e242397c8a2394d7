package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// forced has the operator make a node the Primary of a ledger of its own.
func (c *cluster) forced(node, resource string) Record {
	c.t.Helper()
	l := c.node(node)
	c.eventually(3*time.Second, node+" has no quorum", func() bool { return !l.CanChange() })
	if err := l.ForceAlone(limit(5*time.Second), "the others burnt"); err != nil {
		c.t.Fatal(err)
	}
	have, _ := l.Record(resource)
	r := must2(c.t)(l.Force(limit(time.Second), resource, node, "the others burnt", have.Token))
	r = must2(c.t)(l.Promote(limit(time.Second), resource, node, r.Token))
	l.Hold(resource, r.Tenure)
	c.eventually(3*time.Second, node+" holds", c.serves(node, resource))
	return r
}

// forcedOfThree has b forced, when the Primary, a, and the witness are lost.
func (c *cluster) forcedOfThree() Record {
	c.t.Helper()
	c.openAll()
	c.watch("r")
	c.primary("a", "r")
	c.crash("a")
	c.crash("w")
	return c.forced("b", "r")
}

// serves tells whether a node holds a lease, whoever else may.
func (c *cluster) serves(node, resource string) func() bool {
	return func() bool { l := c.node(node); return l.Lease(resource).Valid(l.clock()) }
}

// serving checks that a node's lease never lapses until the returned func is
// called, whoever else has one.
func (c *cluster) serving(node, resource string) (stop func()) {
	return c.always(node+" holds a lease of "+resource, c.serves(node, resource))
}

// whole waits until all three are voters of one group of an incarnation.
func (c *cluster) whole(within time.Duration, incarnation uint64) {
	c.t.Helper()
	c.eventually(within, "three voters of one group", func() bool {
		for _, v := range c.voters() {
			l := c.node(v.Node)
			if l == nil {
				return false
			}
			if s := l.Status(); s.Of != 3 || s.Reachable != 3 || s.Incarnation != incarnation || s.SplitBrain != "" || s.State != "leader" && s.State != "follower" || !s.Promising {
				return false
			}
		}
		return true
	})
}

// Two of three are lost; the third is forced. The others come back one by one,
// also without their directories, and the lease never lapses: a voter counts
// again only when both are there.
func TestWitnessForced(t *testing.T) {
	for _, emptied := range []bool{false, true} {
		bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
			r := c.forcedOfThree()
			if s := c.node("b").Status(); s.Incarnation != 2 || !s.Alone || !s.Quorum || s.Lineage[1].Term == 0 || len(s.Forced) != 1 {
				t.Fatalf("status %+v", s)
			}
			held := c.alwaysHeld("b", "r")
			if emptied {
				for _, n := range []string{"a", "w"} {
					if err := os.RemoveAll(filepath.Join(c.dir, n)); err != nil {
						t.Fatal(err)
					}
				}
			}
			a := c.open("a")
			c.eventually(10*time.Second, "a has the record", func() bool { got, _ := a.Record("r"); return got.Equal(r) })
			time.Sleep(3 * time.Second)
			if s := c.node("b").Status(); s.Of != 1 {
				t.Fatalf("of two voters neither could be lost: %+v", s)
			}
			c.crash("a")
			time.Sleep(2 * time.Second)
			c.open("w")
			c.open("a")
			c.whole(10*time.Second, 2)
			c.crash("a")
			time.Sleep(2 * time.Second)
			held()
			if got, _ := c.node("w").Record("r"); !got.Equal(r) {
				t.Errorf("w has %+v, b %+v", got, r)
			}
		})
	}
}

// The other two live behind a cut and go on: both groups go on, say so, and
// nobody discards anything by itself. The operator gives up one of them; the
// witness follows the data nodes.
func TestWitnessForcedBesideALiveMajority(t *testing.T) {
	for _, gives := range []string{"a", "b"} {
		t.Run(gives+" gives up", func(t *testing.T) {
			bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
				c.openAll()
				r := c.primary("a", "r")
				held := c.serving("a", "r")
				c.net.Cut("a", "b")
				c.net.Cut("w", "b")
				must2(t)(c.node("a").Exclude(limit(5*time.Second), "r", "b", r.Token))
				c.forced("b", "r")
				forced := c.serving("b", "r")
				c.net.HealAll()
				c.eventually(5*time.Second, "a, b and w know", func() bool {
					return c.node("a").SplitFrom() == "b" && c.node("b").SplitFrom() != "" && c.node("w").SplitFrom() == "b"
				})
				time.Sleep(5 * time.Second)
				held()
				forced()
				if a, b := c.node("a").Status(), c.node("b").Status(); a.Incarnation != 1 || a.Reachable != 2 || b.Incarnation != 2 || b.Of != 1 {
					t.Fatalf("they joined: %+v, %+v", a, b)
				}
				keeps, incarnation := map[string]string{"a": "b", "b": "a"}[gives], map[string]uint64{"a": 2, "b": 1}[gives]
				held = c.serving(keeps, "r")
				if err := c.node(gives).Surrender(limit(5*time.Second), "x"); !errors.Is(err, ErrServes) {
					t.Fatalf("given up while it serves: %v", err)
				}
				if err := c.node(gives).Release(limit(5*time.Second), "r"); err != nil {
					t.Fatal(err)
				}
				if err := c.node(gives).Surrender(limit(5*time.Second), "the other is right"); err != nil {
					t.Fatal(err)
				}
				c.whole(20*time.Second, incarnation)
				held()
				want, _ := c.node(keeps).Record("r")
				for _, n := range []string{gives, "w"} {
					if got, _ := c.node(n).Record("r"); !got.Equal(want) {
						t.Errorf("%s has %+v, %s %+v", n, got, keeps, want)
					}
				}
			})
		})
	}
}

// The other two live behind a cut, and nothing was decided there meanwhile: they
// give way, as the operator wants.
func TestWitnessForcedBesideAnIdleMajority(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.primary("a", "r")
		if c.awaitLeader("a", "b") == "b" { // an election behind the cut would be something decided
			if err := c.node("b").handOverLead(limit(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			c.awaitLeader("a")
		}
		c.net.Cut("a", "b")
		c.net.Cut("w", "b")
		r := c.forced("b", "r")
		c.net.HealAll()
		c.whole(20*time.Second, 2)
		if got, _ := c.node("a").Record("r"); !got.Equal(r) {
			t.Errorf("a has %+v, b %+v", got, r)
		}
	})
}

// A node that crashes while the others come back comes back after all, with any number of voters.
func TestWitnessForcedCrashWhileRejoining(t *testing.T) {
	for _, who := range []string{"a", "b", "w"} {
		for _, after := range []time.Duration{0, 1, 5, 20, 100, 300, 560, 580, 600, 620, 640, 660, 700, 800, 900, 1000, 1500} {
			bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
				c.forcedOfThree()
				c.open("a")
				c.open("w")
				time.Sleep(after * time.Millisecond)
				c.crash(who)
				c.open(who)
				c.whole(20*time.Second, 2)
			})
		}
	}
}

// A group of two of three is as one that neither can be lost of: it is passed through at
// once, also where one of the two that return asks seldom by now.
func TestBothCountAgainAtOnce(t *testing.T) {
	for _, last := range []string{"a", "w"} {
		bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
			c.forcedOfThree()
			first := map[string]string{"a": "w", "w": "a"}[last]
			c.open(first)
			time.Sleep(3 * time.Second)
			c.open(last)
			c.eventually(10*time.Second, "one of them counts", func() bool { return c.node("b").Status().Of > 1 })
			if took := c.eventually(5*time.Second, "both count", func() bool { return c.node("b").Status().Of == 3 }); took > 20*time.Millisecond {
				t.Errorf("%s came last: neither could be lost for %v", last, took)
			}
		})
	}
}

// Only an operator sends a voter of three off, and never the witness.
func TestWitnessRefusesToGoAlone(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.primary("a", "r")
		if err := c.node("a").GoAlone(limit(time.Second), "x"); !errors.Is(err, ErrNotPair) {
			t.Errorf("the Primary went alone: %v", err)
		}
		if err := c.node("b").ForceAlone(limit(time.Second), "x"); !errors.Is(err, ErrQuorum) {
			t.Errorf("a majority was left behind: %v", err)
		}
		if err := c.node("w").ForceAlone(limit(time.Second), "x"); !errors.Is(err, ErrHasNoData) {
			t.Errorf("the witness went alone: %v", err)
		}
		if err := c.node("a").Surrender(limit(time.Second), "x"); !errors.Is(err, ErrNotSplit) {
			t.Errorf("surrendered to nobody: %v", err)
		}
	})
}

// A node without a ledger is forced, and goes on alone. Should the others come back
// after all, theirs is the ledger that counts: to them it is a machine that they do not
// know. Nobody discards anything, and it is told what to do.
func TestWitnessForcedWithoutALedger(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		r := c.primary("a", "r")
		for _, n := range []string{"a", "w", "b"} {
			c.crash(n)
		}
		empty := func() {
			if err := os.RemoveAll(filepath.Join(c.dir, "b")); err != nil {
				t.Fatal(err)
			}
		}
		empty()
		c.open("b")
		forced := c.forced("b", "r")
		if s := c.node("b").Status(); s.Incarnation != 2 || !s.Alone || !s.Quorum || len(s.Unmet) != 0 {
			t.Fatalf("status %+v", s)
		}
		c.crash("b")
		c.open("b")
		c.eventually(3*time.Second, "b has it yet", func() bool { got, _ := c.node("b").Record("r"); return got.Equal(forced) })
		c.open("a")
		c.open("w")
		c.eventually(10*time.Second, "a and w lead, b is told", func() bool {
			return c.node("a").CanChange() && errors.Is(c.node("b").Status().Replaced, ErrReplaced)
		})
		c.eventually(time.Second, "a has what was decided", func() bool { got, _ := c.node("a").Record("r"); return got.Equal(r) })
		if got, _ := c.node("b").Record("r"); !got.Equal(forced) {
			t.Fatalf("b has %+v", got)
		}
		c.crash("b")
		empty()
		c.open("b")
		c.whole(20*time.Second, 1)
	})
}

// The power goes after the step that makes a node the only voter of three, before its
// identity says so: the others count again both or neither all the same.
func TestForcedCrashBeforeItIsNoted(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		c.crash("b")
		c.crash("w")
		a := c.node("a")
		was := a.id()
		r := c.forced("a", "r")
		if err := a.saveIdentity(was); err != nil {
			t.Fatal(err)
		}
		c.crash("a")
		a = c.open("a")
		a.Hold("r", r.Tenure)
		c.eventually(3*time.Second, "a serves", c.serves("a", "r"))
		c.open("b")
		time.Sleep(3 * time.Second)
		if s := a.Status(); s.Of != 1 {
			t.Fatalf("%+v", s)
		}
		c.open("w")
		c.whole(10*time.Second, 2)
	})
}
