package ledger

import (
	"testing"
	"time"
)

// Who has a mark made reads it at once, wherever the ledger is led.
func TestWhoMarksReadsIt(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.awaitLeader("a", "b", "w")
		for _, name := range []string{"a", "b", "w"} {
			l := c.node(name)
			for range 20 {
				if err := l.SetMaintenance(limit(time.Second), "r", "a test"); err != nil {
					t.Fatal(err)
				}
				if !l.Marked("r") {
					t.Fatalf("%s had a mark made, and does not read it", name)
				}
				if err := l.ClearMaintenance(limit(time.Second), "r"); err != nil {
					t.Fatal(err)
				}
				c.eventually(time.Second, "it is taken away", func() bool { return !l.Marked("r") })
			}
		}
	})
}
