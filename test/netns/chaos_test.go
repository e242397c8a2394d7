package netns

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"hapair/test/lab"
)

// One round of chaos, and how long the world stays as it is between two blows.
const (
	blows   = 8
	calmMax = 1500 * time.Millisecond
)

// chaos strikes at random and remembers what it has done, to mend it.
type chaos struct {
	*pair
	rng    *rand.Rand
	off    map[string]bool
	paused map[string]bool
	dead   map[string]bool    // the agent alone
	cut    map[[2]string]bool // node and path
}

// Anything at any time, several things at once: when all is mended the pair
// serves again, and no answered record is missing. HAPAIR_ROUNDS sets how long,
// HAPAIR_SEED repeats the same blows.
func TestChaos(t *testing.T) {
	long(t)
	seed := number(t, "HAPAIR_SEED", int(time.Now().UnixNano()&0xffffff)+1)
	t.Logf("HAPAIR_SEED=%d repeats the blows", seed)
	c := &chaos{pair: newPair(t, true, nil), rng: rand.New(rand.NewPCG(uint64(seed), 0)),
		off: map[string]bool{}, paused: map[string]bool{}, dead: map[string]bool{}, cut: map[[2]string]bool{}}
	c.settle()
	for round := range number(t, "HAPAIR_ROUNDS", 8) {
		w := c.write()
		w.progress(steady)
		for range blows {
			c.must(c.strike())
			<-time.After(time.Duration(c.rng.Int64N(int64(calmMax))))
		}
		c.must(c.mend())
		c.say("round %d: everything is mended", round+1)
		c.settle()
		w.progress(steady)
		w.stop()
		c.finish()
	}
}

// strike breaks one thing, or mends what it finds broken.
func (c *chaos) strike() error {
	nodes := append(c.Data(), "gamma")
	node := nodes[c.rng.IntN(len(nodes))]
	what := c.rng.IntN(4)
	if what == 3 {
		path := lab.LAN
		if node != "gamma" && c.rng.IntN(2) == 0 {
			path = lab.Crossover
		}
		return c.toggle(node, path)
	}
	switch {
	case c.off[node]:
		return c.power(node)
	case c.dead[node]:
		c.dead[node] = false
		return c.Start(node)
	case c.paused[node]:
		c.paused[node] = false
		return c.Resume(node)
	case what == 0:
		c.off[node] = true
		return c.PowerOff(node)
	case what == 1:
		c.paused[node] = true
		return c.Pause(node)
	}
	c.dead[node] = true
	return c.Kill(node)
}

func (c *chaos) toggle(node, path string) error {
	key := [2]string{node, path}
	c.cut[key] = !c.cut[key]
	if c.cut[key] {
		return c.Cut(node, path)
	}
	return c.Heal(node, path)
}

func (c *chaos) power(node string) error {
	c.off[node] = false
	return c.PowerOn(node)
}

// mend puts everything right, in no particular order but one that repeats.
func (c *chaos) mend() error {
	for _, node := range append(c.Data(), "gamma") {
		for _, path := range []string{lab.LAN, lab.Crossover} {
			if c.cut[[2]string{node, path}] {
				if err := c.toggle(node, path); err != nil {
					return err
				}
			}
		}
		if err := c.wake(node); err != nil {
			return fmt.Errorf("wake %s: %w", node, err)
		}
	}
	return nil
}

func (c *chaos) wake(node string) error {
	switch {
	case c.off[node]:
		return c.power(node)
	case c.paused[node]:
		c.paused[node] = false
		return c.Resume(node)
	case c.dead[node] || !c.AgentRuns(node):
		c.dead[node] = false
		return c.Start(node)
	}
	return nil
}
