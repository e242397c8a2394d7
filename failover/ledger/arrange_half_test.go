package ledger

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// halfway has the witness be a member without a vote: it is gone as soon as it is one.
func (c *cluster) halfway(f files) {
	c.t.Helper()
	c.pairServes()
	f["w"] = "w"
	c.open("w")
	c.wants(f, "w", "a", "b")
	c.eventually(5*time.Second, "w is a member", func() bool {
		_, found := c.node("a").third(c.node("a").servers())
		return found
	})
	c.crash("w")
	for _, node := range []string{"a", "b"} {
		var s raft.Server
		c.eventually(time.Second, node+" knows of w", func() (found bool) { s, found = c.node(node).third(c.node(node).servers()); return found })
		if s.Suffrage != raft.Nonvoter {
			c.t.Fatalf("%s: %+v", node, s)
		}
	}
}

// Half of the way: nobody goes alone by itself (R28), for the other one may be about
// to decide with the witness. It is taken back, or by an operator's word broken off.
func TestNobodyGoesAloneHalfway(t *testing.T) {
	t.Run("taken back", func(t *testing.T) {
		bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
			f := c.byFiles()
			c.halfway(f)
			held := c.alwaysHeld("a", "r")
			time.Sleep(3 * time.Second)
			held()
			c.crash("b")
			if err := c.node("a").GoAlone(limit(time.Second), "peer gone"); !errors.Is(err, ErrNotPair) {
				t.Fatal(err)
			}
			c.crash("a") // nor after a restart, whatever its file says
			f["a"] = ""
			a := c.open("a")
			if err := a.GoAlone(limit(time.Second), "peer gone"); !errors.Is(err, ErrNotPair) {
				t.Fatal(err)
			}
			c.open("b")
			c.wants(f, "", "a", "b")
			c.arranged(2)
			r, _ := a.Record("r")
			a.Hold("r", r.Tenure)
			c.eventually(2*time.Second, "a serves", c.holds("a", "r"))
			c.crash("b")
			if err := a.GoAlone(limit(5*time.Second), "peer gone"); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("forced", func(t *testing.T) {
		bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
			f := c.byFiles()
			c.halfway(f)
			c.crash("a")
			b := c.node("b")
			c.eventually(3*time.Second, "no quorum", func() bool { return !b.CanChange() })
			if err := b.ForceAlone(limit(5*time.Second), "a burnt"); err != nil {
				t.Fatal(err)
			}
			c.open("w")
			c.open("a")
			c.arranged(3)
			if s := b.Status(); s.Incarnation != 2 || c.node("w").Status().Incarnation != 2 {
				t.Fatalf("%+v", s)
			}
		})
	})
}

// One node has the witness count already when an operator forces the other one, which
// knows nothing of that yet: nobody throws away what the two decide.
func TestForcedWhileTheWitnessCountsElsewhere(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		c.halfway(f)
		lead := c.awaitLeader("a", "b")
		other := map[string]string{"a": "b", "b": "a"}[lead]
		c.wants(f, "", other)
		c.open("w")
		c.eventually(5*time.Second, "the witness would promise", func() bool { return c.node("w").voter.ready() })
		c.net.Cut(lead, "w")
		c.wants(f, "w", other)
		time.Sleep(300 * time.Millisecond)
		// The other one is cut off just after it was asked, before it has the entry.
		c.net.Isolate(other)
		c.net.Heal(lead, "w")
		c.eventually(time.Second, "the witness votes", func() bool { return c.node(lead).Status().Of == 3 })
		if s := c.node(other).Status(); s.Of != 2 {
			t.Fatalf("%+v", s)
		}
		c.eventually(3*time.Second, "no quorum there", func() bool { return !c.node(other).CanChange() })
		if err := c.node(other).ForceAlone(limit(5*time.Second), "forced"); err != nil {
			t.Fatal(err)
		}
		if err := c.node(lead).SetMaintenance(limit(5*time.Second), "r", "decided by two"); err != nil {
			t.Fatal(err)
		}
		c.net.HealAll()
		c.eventually(5*time.Second, "both say split brain", func() bool {
			return c.node(lead).Status().State == "split brain" && c.node(other).Status().State == "split brain"
		})
		time.Sleep(2 * time.Second)
		if s := c.node(lead).Status(); s.Of != 3 || s.Maintenance["r"] == "" || s.Incarnation != 1 {
			t.Fatalf("%+v", s)
		}
		if err := c.node(other).Release(limit(5*time.Second), "r"); err != nil { // where it is the Primary
			t.Fatal(err)
		}
		if err := c.node(other).Surrender(limit(5*time.Second), "the others are right"); err != nil {
			t.Fatal(err)
		}
		c.eventually(5*time.Second, "it has joined them", func() bool {
			s := c.node(other).Status()
			return s.State == "follower" && s.Of == 3 && s.Maintenance["r"] != ""
		})
	})
}

// A data node that lost its directory, and whose file says nothing of the witness, has
// no part in anything; with the right file it begins as a voter of three, whatever the
// group once began with.
func TestNodeThatForgotTheWitness(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		c.added(f)
		c.crash("b")
		r, _ := c.node("a").Record("r")
		r = must2(t)(c.node("a").Exclude(limit(5*time.Second), "r", "b", r.Token))
		f["b"] = ""
		c.wipes("b")
		time.Sleep(2 * time.Second)
		if got, _ := c.node("b").Record("r"); got.Token != 0 || c.node("b").Status().Quorum {
			t.Fatalf("%+v, %+v", got, c.node("b").Status())
		}
		c.crash("b")
		f["b"] = "w"
		c.wipes("b")
		b := c.node("b")
		c.eventually(5*time.Second, "b knows", func() bool { got, _ := b.Record("r"); return got.Equal(r) && b.Status().Of == 3 })
		c.crash("b")
		b = c.open("b")
		c.eventually(5*time.Second, "b has begun", func() bool { return b.Status().Of == 3 && b.Status().Promising })
	})
}

// A data node of a pair loses its directory when its file names a witness that is not
// there yet: it needs the other one only, as in any pair.
func TestNodeOfAPairThatExpectsAWitness(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		c.open("a")
		c.open("b")
		r := c.primary("a", "r")
		c.crash("b")
		f["b"] = "w"
		c.wipes("b")
		b := c.node("b")
		c.eventually(5*time.Second, "b knows", func() bool { got, _ := b.Record("r"); return got.Equal(r) && b.Status().Of == 2 })
		if s := b.Status(); s.Arbitration != ArbitrationManual {
			t.Errorf("%+v", s)
		}
		c.waitsFor("b", "a with no witness")
	})
}

// fencing is a pair that fences, a Primary, and a witness that nobody knows of yet.
func (c *cluster) fencing() {
	c.t.Helper()
	f := c.byFiles()
	byFile := c.config
	c.config = func(cfg *Config) {
		if byFile(cfg); cfg.Arbitration == ArbitrationManual {
			cfg.Arbitration = ArbitrationFencing
		}
	}
	c.pairServes()
	f["w"] = "w"
	c.open("w")
}

// fencesAndGoesOn has a node fence its peer, which is off, and go on alone.
func (c *cluster) fencesAndGoesOn(node string) {
	c.t.Helper()
	l := c.node(node)
	var ticket uint64
	c.eventually(5*time.Second, node+" may fence", func() bool {
		ticket, _ = l.AskFence()
		return ticket != 0
	})
	time.Sleep(time.Second)
	if counts, err := l.FenceDecided(ticket, true, time.Now()); !counts || err != nil {
		c.t.Fatalf("%t, %v", counts, err)
	}
	if err := l.GoAlone(limit(5*time.Second), "it is off"); err != nil {
		c.t.Fatal(err)
	}
}

// A pair that fences gets a witness: nobody is fenced any more. It goes, and the two
// fence as before, without having begun anew.
func TestFencingGivesWayToAWitness(t *testing.T) {
	bubble(t, ArbitrationFencing, func(t *testing.T, c *cluster) {
		c.fencing()
		wants := func(witness string, of int) {
			t.Helper()
			for _, node := range []string{"a", "b"} {
				if err := c.node(node).Arrange(witness, ArbitrationFencing); err != nil {
					t.Fatal(err)
				}
			}
			c.arranged(of)
		}
		wants("w", 3)
		c.net.Isolate("a")
		time.Sleep(time.Second)
		for _, node := range []string{"a", "b"} {
			if _, err := c.node(node).AskFence(); !errors.Is(err, ErrNotFencing) {
				t.Errorf("%s: %v", node, err)
			}
		}
		c.net.HealAll()
		held := c.eventually(5*time.Second, "a serves again", c.holds("a", "r"))
		t.Logf("a serves again after %v", held)
		wants("", 2)
		time.Sleep(time.Second)
		c.crash("a")
		c.fencesAndGoesOn("b")
	})
}

// A witness that is to come is nobody's peer: it does not make void what was asked of a
// fence.
func TestWitnessToComeIsNobody(t *testing.T) {
	bubble(t, ArbitrationFencing, func(t *testing.T, c *cluster) {
		c.fencing()
		b := c.node("b")
		if err := b.Arrange("w", ArbitrationFencing); err != nil {
			t.Fatal(err)
		}
		c.eventually(5*time.Second, "w is reached", func() bool { return b.reaches("w") })
		c.crash("a")
		c.fencesAndGoesOn("b")
	})
}

// Two of three are gone, the third is forced, and the operator takes the witness out of
// the configuration: the other data node comes back alone, and the two are a pair.
func TestForcedWithoutTheWitness(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		c.added(f)
		c.crash("a")
		c.crash("w")
		r := c.forced("b", "r")
		held := c.alwaysHeld("b", "r")
		c.open("a")
		time.Sleep(2 * time.Second)
		if s := c.node("b").Status(); s.Of != 1 || s.Arbitration != ArbitrationWitness {
			t.Fatalf("%+v", s)
		}
		c.wants(f, "", "a", "b")
		c.arranged(2)
		c.eventually(2*time.Second, "the two are a pair", func() bool {
			return c.node("b").Arbitration() == ArbitrationManual && c.node("a").Arbitration() == ArbitrationManual
		})
		held()
		c.crash("a")
		if err := c.node("b").GoAlone(limit(5*time.Second), "peer gone"); err != nil {
			t.Fatal(err)
		}
		if got, _ := c.node("b").Record("r"); got.Tenure != r.Tenure {
			t.Errorf("%+v, was %+v", got, r)
		}
		c.open("a")
		c.wipes("w")
		c.wants(f, "w", "a", "b")
		c.arranged(3)
	})
}

// A witness that dies half of the way does not hold the pair up for long.
func TestWitnessThatNeverGetsReady(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		c.halfway(f)
		c.eventually(20*time.Second, "it is let go", func() bool {
			_, found := c.node("b").third(c.node("b").servers())
			return !found
		})
		c.waitsFor("a", "w is not reached")
		c.crash("b")
		if err := c.node("a").GoAlone(limit(5*time.Second), "peer gone"); err != nil {
			t.Fatal(err)
		}
		c.open("b")
		c.open("w")
		c.arranged(3)
	})
}

// comesBackToForced is a, which was forced, and w, back without a vote; b is away still.
func (c *cluster) comesBackToForced() files {
	c.t.Helper()
	f := c.byFiles()
	f["a"], f["b"], f["w"] = "w", "w", "w"
	c.openAll()
	c.watch("r")
	c.primary("a", "r")
	c.crash("b")
	c.crash("w")
	c.forced("a", "r")
	c.open("w")
	c.eventually(5*time.Second, "w is a member", func() bool { _, found := c.node("a").third(c.node("a").servers()); return found })
	return f
}

// A group that was forced, and is not whole yet, is to have another witness, or none.
func TestWitnessOfAForcedGroupIsExchanged(t *testing.T) {
	t.Run("another", func(t *testing.T) {
		bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
			f := c.comesBackToForced()
			f["v"] = "v"
			c.wants(f, "v", "a", "b")
			v := c.open("v")
			defer c.stop("v")
			c.eventually(5*time.Second, "v is a member", func() bool { return slices.Contains(v.greeting().Learners, "v") })
			time.Sleep(time.Second)
			c.crash("a")
			c.open("a")
			c.open("b")
			c.arranged(3)
			if s, _ := c.node("a").third(c.node("a").servers()); s.ID != "v" {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("none", func(t *testing.T) {
		bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
			f := c.comesBackToForced()
			c.crash("w")
			c.wants(f, "", "a", "b")
			c.open("b")
			c.arranged(2)
		})
	})
}

// A group that was forced is one of two that fence each other afterwards: each has heard
// of the other that it fences (R25).
func TestForcedGroupComesToFence(t *testing.T) {
	bubble(t, ArbitrationFencing, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		byFile := c.config
		c.config = func(cfg *Config) {
			if byFile(cfg); cfg.Arbitration == ArbitrationManual {
				cfg.Arbitration = ArbitrationFencing
			}
		}
		f["a"], f["b"], f["w"] = "w", "w", "w"
		c.openAll()
		c.primary("a", "r")
		c.crash("b")
		c.crash("w")
		c.forced("a", "r")
		c.crash("a")
		f["a"], f["b"] = "", ""
		a, b := c.open("a"), c.open("b")
		c.arranged(2)
		for _, l := range []*Ledger{a, b} {
			c.eventually(5*time.Second, "it may fence, but for the answers", func() bool { return errors.Is(l.mayFence(), ErrAnswers) })
		}
	})
}
