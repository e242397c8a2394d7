package ledger

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// files are what the configuration of each node says, by which it is opened: the
// witness, "" for none.
type files map[string]string

// byFiles has nodes opened by what their files say: a pair by arbitration manual, or one
// with a witness.
func (c *cluster) byFiles() files {
	f := files{}
	c.arb = ArbitrationWitness // whom to stop in the end
	c.config = func(cfg *Config) {
		cfg.Arbitration, cfg.Voters = ArbitrationManual, []Voter{{Node: "a"}, {Node: "b"}}
		if w := f[cfg.Self]; w != "" {
			cfg.Arbitration, cfg.Voters = ArbitrationWitness, append(cfg.Voters, Voter{Node: w, Witness: true})
		}
	}
	return f
}

// wants has the operators of the nodes say who is to be witness.
func (c *cluster) wants(f files, witness string, nodes ...string) {
	c.t.Helper()
	for _, node := range nodes {
		f[node] = witness
		if l := c.node(node); l != nil {
			if err := l.Arrange(witness, ArbitrationManual); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

// arranged waits until both data nodes know that the voters are so many.
func (c *cluster) arranged(of int) time.Duration {
	c.t.Helper()
	return c.eventually(10*time.Second, "the voters have changed", func() bool {
		for _, node := range []string{"a", "b"} {
			if s := c.node(node).Status(); s.Of != of || s.Arranging != "" || len(s.Voters) != of {
				return false
			}
		}
		return true
	})
}

// waitsFor waits until a node says why nothing changes.
func (c *cluster) waitsFor(node, why string) {
	c.t.Helper()
	c.eventually(5*time.Second, node+" says "+why, func() bool { return strings.Contains(c.node(node).Status().Arranging, why) })
}

// pairServes opens two data nodes, of which a is Primary.
func (c *cluster) pairServes() {
	c.t.Helper()
	c.open("a")
	c.open("b")
	c.watch("r")
	c.primary("a", "r")
}

// added is a pair, a Primary, to which a witness has come under way.
func (c *cluster) added(f files) {
	c.t.Helper()
	c.pairServes()
	f["w"] = "w"
	c.open("w")
	c.wants(f, "w", "a", "b")
	c.arranged(3)
}

// A witness is added while the Primary serves; then it counts: the Primary dies, and
// the other node takes over with it. The old Primary starts with the file that it had:
// what the ledger says is in force, and it says so.
func TestWitnessIsAdded(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		c.pairServes()
		held := c.alwaysHeld("a", "r")
		f["w"] = "w"
		c.open("w")
		c.wants(f, "w", "a")
		c.waitsFor("a", "a is configured with the witness w, b with no witness")
		if s := c.node("a").Status(); s.Arbitration != ArbitrationManual || s.Of != 2 || s.Wanted != "w" {
			t.Fatalf("%+v", s)
		}
		c.wants(f, "w", "b")
		t.Logf("added after %v", c.arranged(3))
		time.Sleep(time.Second)
		held()
		for _, node := range []string{"a", "b", "w"} {
			if s := c.node(node).Status(); s.Arbitration != ArbitrationWitness || s.Of != 3 || s.Incarnation != 1 {
				t.Errorf("%s: %+v", node, s)
			}
		}
		c.crash("a")
		c.takeOver(c.node("b"), "r")
		f["a"] = ""
		a := c.open("a")
		c.eventually(5*time.Second, "a is back", func() bool { return a.Status().Promising && a.Status().State == "follower" })
		if s := a.Status(); s.Arbitration != ArbitrationWitness || s.Of != 3 {
			t.Errorf("by its old file: %+v", s)
		}
		c.waitsFor("a", "a is configured with no witness, b with the witness w")
		if err := a.GoAlone(limit(time.Second), "by its file"); !errors.Is(err, ErrNotPair) {
			t.Error(err)
		}
	})
}

// A witness is taken away: the Primary keeps its lease, and goes on alone afterwards.
// The same witness comes again, with an empty directory.
func TestWitnessIsRemovedAndComesAgain(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		c.added(f)
		held := c.alwaysHeld("a", "r")
		c.wants(f, "", "a", "b")
		t.Logf("removed after %v", c.arranged(2))
		c.wants(f, "w", "a", "b") // it is the same, and remembers all
		c.arranged(3)
		c.crash("w") // it does not hear that it has no vote any more
		c.wants(f, "", "a", "b")
		c.arranged(2)
		held()
		c.crash("b")
		if err := c.node("a").GoAlone(limit(5*time.Second), "peer gone"); err != nil {
			t.Fatal(err)
		}
		c.eventually(2*time.Second, "a serves alone", c.holds("a", "r"))
		held = c.alwaysHeld("a", "r")
		c.open("b")
		c.arranged(2)
		c.open("w")
		c.wants(f, "w", "a", "b")
		c.arranged(3) // it has missed much, and says nothing that counts
		if a := c.node("a"); a.SplitFrom() != "" {
			t.Error("a split brain with a witness that was away")
		}
		c.stop("w")
		c.wipes("w")
		c.eventually(5*time.Second, "w counts again", func() bool { return c.node("w").Status().Promising && c.node("w").Status().Of == 3 })
		held()
		if s := c.node("w").Status(); s.Incarnation != 2 || s.Of != 3 {
			t.Errorf("%+v", s)
		}
		c.crash("a")
		c.takeOver(c.node("b"), "r")
	})
}

// steps are the groups that a node's log goes through.
func (c *cluster) steps(node string) string {
	c.t.Helper()
	var out []string
	err := c.node(node).entriesFrom(1, func(e *raft.Log) {
		if e.Type == raft.LogConfiguration {
			text := ""
			for _, s := range raft.DecodeConfiguration(e.Data).Servers {
				text += string(s.ID)
				if s.Suffrage != raft.Voter {
					text += "?"
				}
			}
			out = append(out, text)
		}
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.Join(out, " ")
}

// Both data nodes have the middle of each way in their logs: in one of two voters it is
// not committed otherwise (R28).
func TestNoStepIsLeftOut(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		c.added(f)
		c.wants(f, "", "a", "b")
		c.arranged(2)
		for _, node := range []string{"a", "b"} {
			if got := c.steps(node); got != "ab abw? abw abw? ab" {
				t.Errorf("%s went through %s", node, got)
			}
		}
	})
}

// The leader is cut off when only it has in its log that the witness lost its vote: the
// others decide, and it does not go alone.
func TestCutOffWhileTheWitnessGoes(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		c.added(f)
		if c.awaitLeader("a", "b") == "b" {
			if err := c.node("b").handOverLead(limit(time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		c.awaitLeader("a")
		time.Sleep(time.Second)
		a := c.node("a")
		_, at, err := a.storedMembership()
		if err != nil {
			t.Fatal(err)
		}
		c.net.Isolate("a")
		why := a.dismiss(limit(50*time.Millisecond), a.group(), "w", at)
		if got := c.steps("a"); got != "ab abw? abw abw?" {
			t.Fatalf("%s: %s", got, why)
		}
		c.takeOver(c.node("b"), "r")
		for range 20 {
			if err := a.GoAlone(limit(time.Second), "no quorum"); !errors.Is(err, ErrNotPair) {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		c.net.HealAll()
		c.eventually(5*time.Second, "a follows", func() bool { r, _ := a.Record("r"); return r.Primary == "b" && a.Status().Of == 3 })
	})
}

// What the pair needs is looked at before the witness loses its vote.
func TestWitnessStaysWhileItIsNeeded(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		c.added(f)
		r, _ := c.node("a").Record("r")
		r = must2(t)(c.node("a").Exclude(limit(time.Second), "r", "b", r.Token))
		c.wants(f, "", "a", "b")
		c.waitsFor("a", "b has no current copy of r")
		c.crash("b")
		c.waitsFor("a", "b is not reached")
		if s := c.node("a").Status(); s.Of != 3 || !s.Quorum {
			t.Fatalf("%+v", s)
		}
		c.open("b")
		must2(t)(c.node("a").Include(limit(5*time.Second), "r", "b", r.Token))
		c.arranged(2)
	})
}

// Another witness takes the place of the first.
func TestWitnessIsExchanged(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		c.added(f)
		defer c.stop("x")
		held := c.alwaysHeld("a", "r")
		f["x"] = "x"
		c.open("x")
		c.wants(f, "x", "a", "b")
		c.arranged(3)
		held()
		if s := c.node("b").Status(); s.Voters[2].Node != "x" || !s.Voters[2].Voting {
			t.Fatalf("%+v", s)
		}
		c.stop("w")
		c.crash("a")
		c.takeOver(c.node("b"), "r")
	})
}

// What makes no sense is not begun.
func TestArrangeRefuses(t *testing.T) {
	l := &Ledger{cfg: Config{Self: "a", Voters: []Voter{{Node: "a"}, {Node: "b"}}}}
	for _, w := range []string{"a", "b"} {
		if err := l.Arrange(w, ArbitrationManual); !errors.Is(err, ErrConfig) {
			t.Error(w, err)
		}
	}
	if err := l.Arrange("", ArbitrationWitness); !errors.Is(err, ErrConfig) {
		t.Error(err)
	}
	l.cfg.Self = "w"
	if err := l.Arrange("w", ArbitrationManual); !errors.Is(err, ErrNotPair) {
		t.Error(err)
	}
}
