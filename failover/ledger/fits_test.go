package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The configuration of one node says that there is no witness any more. By that its
// node could go on alone, while the other one and the witness, which know nothing of it,
// promote: two Primaries. What the ledger says is in force.
func TestWitnessIsNotTakenAwayByTheConfiguration(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		c.added(f)
		c.crash("a")
		f["a"] = ""
		a := c.open("a")
		if s := a.Status(); s.Arbitration != ArbitrationWitness || s.Of != 3 {
			t.Fatalf("%+v", s)
		}
		c.net.Isolate("a")
		if err := a.GoAlone(limit(time.Second), "by its file"); !errors.Is(err, ErrNotPair) {
			t.Fatal(err)
		}
		c.takeOver(c.node("b"), "r")
	})
}

// A witness that is configured where the ledger was begun without does not count.
func TestWitnessIsNotAddedByTheConfiguration(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		f := c.byFiles()
		c.open("a")
		c.open("b")
		c.primary("a", "r")
		c.crash("b")
		f["b"], f["w"] = "w", "w"
		b := c.open("b")
		c.open("w")
		c.waitsFor("b", "configured with the witness w, a with no witness")
		if s := b.Status(); s.Arbitration != ArbitrationManual || s.Of != 2 {
			t.Fatalf("%+v", s)
		}
		c.crash("a")
		if _, err := b.Promote(limit(5*time.Second), "r", "b", 2); err == nil {
			t.Fatal("promoted with a witness that only one node knows of")
		}
	})
}

// Other data nodes are another ledger.
func TestOtherDataNodesAreRefused(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.openAll()
		c.primary("a", "r")
		c.crash("a")
		cfg := Config{Self: "a", Voters: []Voter{{Node: "a"}, {Node: "c"}}, Arbitration: ArbitrationManual, Dir: filepath.Join(c.dir, "a"), Clock: c.clock("a"), Streams: c.net.Node("a")}
		cfg.store.Sync = func(*os.File) error { return nil }
		if _, err := Open(cfg); !errors.Is(err, ErrVoters) || !strings.Contains(err.Error(), "a, b in "+c.dir+"/a; a, c configured") {
			t.Fatal(err)
		}
	})
}
