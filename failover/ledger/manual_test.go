package ledger

import (
	"errors"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// The peer dies; the Primary goes on alone, at once; the peer returns, learns
// that it is behind, and becomes a voter again without the lease ever lapsing.
func TestManualPrimaryGoesOnAlone(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		r := c.primary("a", "r")
		a := c.node("a")
		c.crash("b")
		if _, err := a.Exclude(limit(time.Second), "r", "b", r.Token); !errors.Is(err, ErrNoQuorum) && !errors.Is(err, ErrUnknownOutcome) {
			t.Fatalf("exclude without the peer: %v", err)
		}
		began := time.Now()
		if err := a.GoAlone(limit(5*time.Second), "peer gone"); err != nil {
			t.Fatal(err)
		}
		c.eventually(time.Second, "a holds the lease alone", c.holds("a", "r"))
		t.Logf("alone and holding after %v", time.Since(began))
		if s := a.Status(); s.Incarnation != 2 || !s.Alone || s.State != "leader" || !s.Quorum {
			t.Fatalf("status %+v", s)
		}
		r, _ = a.Record("r")
		if r.Has("b") { // an Exclude of unknown outcome may have been completed by the recovery
			r = must2(t)(a.Exclude(limit(time.Second), "r", "b", r.Token))
		}
		if r.Tenure != 2 || r.Primary != "a" || r.Has("b") {
			t.Fatalf("record %+v", r)
		}
		held := c.alwaysHeld("a", "r")
		b := c.open("b")
		c.eventually(5*time.Second, "b is a voter again", func() bool { return b.Status().State == "follower" && a.Status().Of == 2 && a.Status().Reachable == 2 })
		got, _ := b.Record("r")
		if b.Status().Incarnation != 2 || !got.Equal(r) || !c.happened("b:rejoining:a") {
			t.Fatalf("b: %+v, record %+v, events %v", b.Status(), got, c.events)
		}
		time.Sleep(2 * time.Second)
		held()
		must2(t)(b.Include(limit(time.Second), "r", "b", r.Token))
	})
}

// alwaysHeld checks that node's lease never lapses, and that nobody else has one,
// until the returned func is called.
func (c *cluster) alwaysHeld(node, resource string) (stop func()) {
	return c.always(node+" holds the lease of "+resource, c.holds(node, resource))
}

// always checks that something stays so until the returned func has returned: it
// waits for a look that is under way, which would otherwise meet the nodes that the
// test stops next.
func (c *cluster) always(what string, ok func() bool) (stop func()) {
	done, over := make(chan bool), make(chan bool)
	c.wg.Go(func() {
		defer close(over)
		for {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if !ok() {
				c.t.Errorf("at %v not so any more: %s", time.Since(c.start), what)
				return
			}
		}
	})
	return func() { close(done); <-over }
}

func TestManualRefusals(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r", "s")
		c.primary("a", "r")
		c.net.Cut("a", "b")
		if err := c.node("b").GoAlone(limit(time.Second), "x"); !errors.Is(err, ErrNotPrimaryHere) {
			t.Fatalf("the Secondary went alone: %v", err)
		}
		c.net.Heal("a", "b")
		c.primary("b", "s")
		c.net.Cut("a", "b")
		for _, n := range []string{"a", "b"} {
			if err := c.node(n).GoAlone(limit(time.Second), "x"); !errors.Is(err, ErrNotPrimaryHere) {
				t.Fatalf("%s went alone with a Primary on either side: %v", n, err)
			}
		}
		c.net.Heal("a", "b")
		c.eventually(5*time.Second, "both hold theirs again", func() bool { return c.holds("a", "r")() && c.holds("b", "s")() })
	})
}

// The Primary died for good; the operator forces the other node.
func TestManualForced(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		c.crash("a")
		b := c.node("b")
		if err := b.ForceAlone(limit(5*time.Second), "a burnt"); err != nil {
			t.Fatal(err)
		}
		have, _ := b.Record("r")
		r := must2(t)(b.Force(limit(time.Second), "r", "b", "a burnt", have.Token))
		r = must2(t)(b.Promote(limit(time.Second), "r", "b", r.Token))
		b.Hold("r", r.Tenure)
		c.eventually(2*time.Second, "b holds", c.holds("b", "r"))
		if s := b.Status(); len(s.Forced) != 1 || s.Forced[0].Reason != "a burnt" || s.Lineage[1].Reason != "a burnt" {
			t.Fatalf("status %+v", s)
		}
		// The old Primary returns: it must not go alone, and rejoins.
		a := c.open("a")
		c.eventually(5*time.Second, "a is a voter again", func() bool { return a.Status().State == "follower" && a.Status().Incarnation == 2 })
		if got, _ := a.Record("r"); !got.Equal(r) {
			t.Fatalf("a has %+v, b %+v", got, r)
		}
	})
}

// The old Primary is alive, but cut off, when the operator forces the other: the
// one that has not gone alone yet must not, once it hears of it.
func TestManualSuperseded(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.openAll()
		c.primary("a", "r")
		c.net.Cut("a", "b")
		if err := c.node("b").ForceAlone(limit(5*time.Second), "forced"); err != nil {
			t.Fatal(err)
		}
		c.net.Heal("a", "b")
		err := c.node("a").GoAlone(limit(5*time.Second), "peer gone")
		if !errors.Is(err, ErrSuperseded) && !errors.Is(err, ErrJoining) && !errors.Is(err, ErrNotPrimaryHere) {
			t.Fatalf("went alone beside a higher incarnation: %v", err)
		}
		c.eventually(5*time.Second, "a rejoined", func() bool { return c.node("a").Status().State == "follower" && c.node("a").Status().Of == 2 })
	})
}

func TestManualSplitBrain(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.openAll()
		c.primary("a", "r")
		c.net.Cut("a", "b")
		a, b := c.node("a"), c.node("b")
		if err := a.GoAlone(limit(5*time.Second), "peer gone"); err != nil {
			t.Fatal(err)
		}
		if err := b.ForceAlone(limit(5*time.Second), "forced"); err != nil {
			t.Fatal(err)
		}
		c.net.Heal("a", "b")
		c.eventually(5*time.Second, "both say split brain", func() bool {
			return a.Status().State == "split brain" && b.Status().State == "split brain" &&
				c.happened("a:splitbrain:b") && c.happened("b:splitbrain:a")
		})
		time.Sleep(3 * time.Second)
		if a.Status().Of != 1 || b.Status().Of != 1 {
			t.Fatalf("they joined: %+v, %+v", a.Status(), b.Status())
		}
		if err := b.Surrender(limit(5*time.Second), "a is right"); err != nil {
			t.Fatal(err)
		}
		c.eventually(5*time.Second, "b rejoined", func() bool {
			return b.Status().State == "follower" && a.Status().State == "leader" && a.Status().Of == 2
		})
		if r, _ := b.Record("r"); r.Primary != "a" {
			t.Fatalf("b has %+v", r)
		}
	})
}

// A node that has not rejoined yet is forced: it supersedes nothing. The Primary
// that had gone on without it keeps its ledger, its lease and its resource, and
// both say that there are two now.
func TestManualForcedBeforeItRejoined(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		c.crash("b")
		a := c.node("a")
		if err := a.GoAlone(limit(5*time.Second), "peer gone"); err != nil {
			t.Fatal(err)
		}
		c.eventually(time.Second, "a holds the lease alone", c.holds("a", "r"))
		held := c.alwaysHeld("a", "r")
		b := c.open("b")
		c.eventually(time.Second, "b has discarded its ledger", func() bool { return c.happened("b:rejoining:a") })
		c.net.Cut("a", "b")
		if of := a.Status().Of; of != 1 {
			t.Fatalf("b is one of %d voters already", of)
		}
		if err := b.ForceAlone(limit(5*time.Second), "forced"); err != nil {
			t.Fatal(err)
		}
		c.net.Heal("a", "b")
		c.eventually(5*time.Second, "both say split brain", func() bool {
			return a.Status().State == "split brain" && b.Status().State == "split brain"
		})
		time.Sleep(3 * time.Second)
		held()
		if s := a.Status(); s.Incarnation != 2 || s.Of != 1 {
			t.Fatalf("a: %+v", s)
		}
		if err := b.Surrender(limit(5*time.Second), "a is right"); err != nil {
			t.Fatal(err)
		}
		c.eventually(5*time.Second, "b rejoined", func() bool { return b.Status().State == "follower" && a.Status().Of == 2 })
	})
}

// A node that was stopped in order is started cut off from the other, and forced:
// it is no voter of the group that went on without it, and supersedes nothing.
func TestManualForcedAfterItLeft(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		held := c.alwaysHeld("a", "r")
		if err := c.node("b").Leave(limit(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		c.stop("b")
		a := c.node("a")
		c.eventually(time.Second, "a is the only voter", func() bool { return a.Status().Of == 1 })
		c.net.Cut("a", "b")
		b := c.open("b")
		if err := b.ForceAlone(limit(5*time.Second), "forced"); err != nil {
			t.Fatal(err)
		}
		c.net.Heal("a", "b")
		c.eventually(5*time.Second, "both say split brain", func() bool {
			return a.Status().State == "split brain" && b.Status().State == "split brain"
		})
		time.Sleep(3 * time.Second)
		held()
		if s := a.Status(); s.Incarnation != 1 || s.Of != 1 {
			t.Fatalf("a: %+v", s)
		}
		if err := b.Surrender(limit(5*time.Second), "a is right"); err != nil {
			t.Fatal(err)
		}
		c.eventually(5*time.Second, "b rejoined", func() bool { return b.Status().State == "follower" && a.Status().Of == 2 })
	})
}

// A node leaves gracefully, whichever leads; the other runs alone, restarts
// alone, and takes it back.
func TestManualLeave(t *testing.T) {
	for _, who := range []string{"a", "b"} {
		t.Run(who, func(t *testing.T) {
			bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
				c.openAll()
				c.watch("r")
				stays := map[string]string{"a": "b", "b": "a"}[who]
				r := c.primary(stays, "r")
				held := c.alwaysHeld(stays, "r")
				began := time.Now()
				if err := c.node(who).Leave(limit(5 * time.Second)); err != nil {
					t.Fatal(err)
				}
				t.Logf("left after %v", time.Since(began))
				c.stop(who)
				r = must2(t)(c.node(stays).Exclude(limit(time.Second), "r", who, r.Token))
				time.Sleep(3 * time.Second)
				held()
				c.stop(stays)
				l := c.open(stays)
				l.Hold("r", r.Tenure)
				c.eventually(3*time.Second, "holds after a restart alone", c.holds(stays, "r"))
				held = c.alwaysHeld(stays, "r")
				back := c.open(who)
				c.eventually(5*time.Second, "is a voter again", func() bool { return back.Status().State == "follower" && l.Status().Of == 2 })
				if got, _ := back.Record("r"); !got.Equal(r) || back.Status().Incarnation != 1 {
					t.Fatalf("%+v, %+v", got, back.Status())
				}
				time.Sleep(time.Second)
				held()
			})
		})
	}
}

// A node that crashes anywhere while it rejoins rejoins after all.
func TestManualCrashWhileRejoining(t *testing.T) {
	for _, after := range []time.Duration{0, 1, 5, 20, 100, 300, 560, 600, 700} {
		t.Run((after * time.Millisecond).String(), func(t *testing.T) {
			bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
				c.openAll()
				c.primary("a", "r")
				c.crash("b")
				if err := c.node("a").GoAlone(limit(5*time.Second), "peer gone"); err != nil {
					t.Fatal(err)
				}
				c.open("b")
				time.Sleep(after * time.Millisecond)
				c.crash("b")
				c.open("b")
				c.eventually(20*time.Second, "b is a voter again", func() bool {
					// Had the vote been counted already, the Primary is the one to decide.
					if err := c.node("a").GoAlone(limit(time.Second), "peer gone"); err != nil && !errors.Is(err, ErrNotPrimaryHere) {
						return false
					}
					time.Sleep(2 * time.Second)
					return c.node("b").Status().State == "follower" && c.node("a").Status().Of == 2
				})
			})
		})
	}
}

// Power is lost between any two steps of going alone.
func TestManualCrashWhileGoingAlone(t *testing.T) {
	for failAt := 1; failAt < 30; failAt++ {
		dir, done := scratch(t), false
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, dir, ArbitrationManual, 1)
			defer c.closeAll()
			count, armed := 0, false
			c.config = func(cfg *Config) {
				if cfg.Self != "a" {
					return
				}
				cfg.store.Sync = func(*os.File) error {
					if armed {
						if count++; count >= failAt {
							return errors.New("power cut")
						}
					}
					return nil
				}
			}
			c.openAll()
			c.primary("a", "r")
			c.crash("b")
			armed = true
			err := c.node("a").GoAlone(limit(2*time.Second), "peer gone")
			done = err == nil && count < failAt
			armed = false
			c.crash("a")
			a := c.open("a")
			if a.Status().Incarnation == 1 {
				if err == nil {
					t.Errorf("fail at %d: went alone, but not durably", failAt)
				}
				if err := a.GoAlone(limit(2*time.Second), "peer gone"); err != nil {
					t.Errorf("fail at %d: %v", failAt, err)
				}
			}
			c.eventually(3*time.Second, "alone", func() bool { return a.Status().State == "leader" && a.Status().Of == 1 })
			if r, ok := a.Record("r"); !ok || r.Primary != "a" || !slices.Equal(r.InSync, []string{"a", "b"}) {
				t.Errorf("fail at %d: record %+v", failAt, r)
			}
		})
		if done {
			return
		}
	}
	t.Error("going alone never got through")
}
