package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// reopens tries to open a node's ledger under another arbitration.
func (c *cluster) reopens(node string, arb Arbitration) error {
	c.t.Helper()
	c.crash(node)
	was := c.arb
	c.arb = arb
	cfg := Config{Self: node, Voters: c.voters(), Arbitration: arb, Dir: filepath.Join(c.dir, node), Clock: c.clock(node), Streams: c.net.Node(node)}
	c.arb = was
	cfg.store.Sync = func(*os.File) error { return nil }
	l, err := Open(cfg)
	if err != nil {
		return err
	}
	return l.Close()
}

// The configuration of one node says that there is no witness any more. By that its
// node could go on alone, while the other one and the witness, which know nothing of it,
// promote: two Primaries.
func TestWitnessIsNotTakenAwayByTheConfiguration(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		for _, arb := range []Arbitration{ArbitrationManual, ArbitrationFencing} {
			err := c.reopens("a", arb)
			if !errors.Is(err, ErrVoters) || !strings.Contains(err.Error(), "a, b, w in "+c.dir+"/a; a, b configured, arbitration "+arb.String()) {
				t.Fatal(err)
			}
		}
		c.open("a")
		c.eventually(5*time.Second, "a is back", func() bool { return c.node("a").Status().Promising })
	})
}

// A witness that is configured where the ledger was begun without would not count.
func TestWitnessIsNotAddedByTheConfiguration(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.openAll()
		c.primary("a", "r")
		if err := c.reopens("b", ArbitrationWitness); !errors.Is(err, ErrVoters) {
			t.Fatal(err)
		}
		if err := c.reopens("b", ArbitrationFencing); err != nil {
			t.Fatal("the voters are the same", err)
		}
	})
}
