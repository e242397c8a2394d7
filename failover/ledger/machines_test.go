package ledger

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// shelves are the machines of each node that do not stand in its place now.
type shelves map[string][]string

// exchange puts a machine of the shelf in a node's place, or a new one.
func (c *cluster) exchange(on shelves, node, with string) {
	c.crash(node)
	at, aside := filepath.Join(c.dir, node), filepath.Join(c.dir, fmt.Sprintf("%s-%d", node, len(on[node])))
	for i := range on[node] {
		if on[node][i] == with {
			aside = with + "x"
			on[node][i] = aside
		}
	}
	if with == "" {
		on[node] = append(on[node], aside)
	}
	if err := os.Rename(at, aside); err != nil {
		c.t.Error(err)
	}
	if with != "" {
		if err := os.Rename(with, at); err != nil {
			c.t.Error(err)
		}
	}
	c.open(node)
}

// remember tells whether every node is there and remembers what it agreed to: only
// then may one more be given a new machine. More than one at a time is more than the
// ledger bears; a new one has been told all when its log has reached its floor.
func (c *cluster) remember() bool {
	for _, v := range c.voters() {
		if l := c.node(v.Node); l == nil || l.isBlank() || l.unfit() || l.wasReplaced() != nil {
			return false
		}
	}
	return true
}

// machineFaults has machines die and others take their places, new ones and, for a
// while, those that were replaced before; links are cut beside.
func (c *cluster) machineFaults(rng *rand.Rand) {
	names, on := []string{"a", "b", "w"}, shelves{}
	replaced, returned := 0, 0
	for {
		select {
		case <-c.done:
			c.t.Logf("%d machines replaced, %d came back", replaced, returned)
			if replaced < 5 || returned < 5 {
				c.t.Errorf("%d machines were replaced and %d came back: nothing was tested", replaced, returned)
			}
			return
		case <-time.After(time.Duration(rng.Intn(900)) * time.Millisecond):
		}
		node := names[rng.Intn(len(names))]
		switch n := rng.Intn(10); {
		case n < 2:
			c.net.Isolate(names[rng.Intn(len(names))])
		case n == 2:
			c.crash(node)
			c.open(node)
		case n < 5 && c.remember():
			replaced++
			c.exchange(on, node, "")
		case n < 8 && len(on[node]) > 0 && c.remember():
			returned++
			i := rng.Intn(len(on[node]))
			c.exchange(on, node, on[node][i])
			other := names[rng.Intn(len(names))]
			if other != node && rng.Intn(2) == 0 { // and it is needed
				c.crash(other)
			}
			time.Sleep(time.Duration(rng.Intn(3000)) * time.Millisecond)
			c.exchange(on, node, on[node][i]) // the present one
			if c.node(other) == nil {
				c.open(other)
			}
		default:
			c.net.HealAll()
		}
	}
}

// Machines are replaced and come back, in the middle of it all: nobody ever has the
// lease beside another, and no tenure has two Primaries.
func TestChaosOfMachines(t *testing.T) { chaosOf(t, 3, (*cluster).machineFaults) }
