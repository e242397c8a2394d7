package ledger

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"hapair/failover/lease"
)

// controller plays a failover controller that is in a hurry: it promotes its
// node whenever it has no lease, and now and then gives it up.
func (c *cluster) controller(node, resource string, rng *rand.Rand) {
	for {
		select {
		case <-c.done:
			return
		case <-time.After(time.Duration(20+rng.Intn(300)) * time.Millisecond):
		}
		l := c.node(node)
		if l == nil {
			continue
		}
		r, _ := l.Record(resource)
		ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
		switch n := rng.Intn(20); {
		case n == 0 && r.Primary == node:
			if l.Release(ctx, resource) == nil {
				_, _ = l.Demote(ctx, resource, node, r.Token) // may fail: that is the test's point
			}
		case n == 1:
			// Asks for what may not be its to ask.
			l.Hold(resource, r.Tenure)
		case n == 2 && len(r.InSync) > 1:
			_, _ = l.Exclude(ctx, resource, r.InSync[rng.Intn(2)], r.Token) // as above
		case n == 3:
			_, _ = l.Include(ctx, resource, node, r.Token) // as above
		case r.Primary == node && l.Lease(resource).Tenure != 0:
		case r.Primary == node && n < 12:
			l.Hold(resource, r.Tenure)
		case r.Primary != "" && r.Primary != node && l.Arbitration() != ArbitrationWitness:
			// Without a witness nobody is promoted in the place of another: that one may
			// go on alone (R15).
		default:
			if p, err := l.Promote(ctx, resource, node, r.Token); err == nil {
				l.Hold(resource, p.Tenure)
			}
		}
		cancel()
	}
}

// faults breaks and mends one thing after another.
func (c *cluster) faults(rng *rand.Rand) {
	names := []string{"a", "b", "w"}[:len(c.voters())]
	pick := func() string { return names[rng.Intn(len(names))] }
	pair := func() (string, string) {
		i := rng.Intn(len(names))
		return names[i], names[(i+1+rng.Intn(len(names)-1))%len(names)]
	}
	for {
		select {
		case <-c.done:
			return
		case <-time.After(time.Duration(rng.Intn(900)) * time.Millisecond):
		}
		x, y := pair()
		switch rng.Intn(9) {
		case 0:
			c.net.Cut(x, y)
		case 1:
			c.net.CutOneWay(x, y)
		case 2:
			c.net.Isolate(x)
		case 3:
			n := pick()
			c.net.Pause(n)
			time.Sleep(time.Duration(rng.Intn(1500)) * time.Millisecond)
			c.net.Resume(n)
		case 4, 5:
			n := pick()
			c.crash(n)
			time.Sleep(time.Duration(rng.Intn(400)) * time.Millisecond)
			c.reopen(n)
		default:
			c.net.HealAll()
		}
	}
}

// tenures checks that a tenure never has two Primaries, wherever it is seen, nor a
// token two records: then something that was decided has been undone.
type tenures map[string]string

func (c *cluster) learn(seen tenures, resource string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for node, l := range c.nodes {
		r, known := l.Record(resource)
		key := fmt.Sprintf("%s#%d", resource, r.Token)
		if was, ok := seen[key]; known && ok && was != fmt.Sprint(r) {
			c.t.Errorf("%s: token %d is of %s and of %v", node, r.Token, was, r)
		}
		if known {
			seen[key] = fmt.Sprint(r)
		}
		if r.Primary == "" {
			continue
		}
		key = fmt.Sprintf("%s/%d", resource, r.Tenure)
		if was, ok := seen[key]; ok && was != r.Primary {
			c.t.Errorf("%s: tenure %d is %s's and %s's", node, r.Tenure, was, r.Primary)
		}
		seen[key] = r.Primary
	}
}

// roughly is a network that is quick, mostly.
func roughly(r *rand.Rand, _, _ string) time.Duration {
	if r.Intn(50) == 0 {
		return time.Duration(r.Intn(300)) * time.Millisecond
	}
	return time.Duration(r.Intn(2000)) * time.Microsecond
}

func chaos(t *testing.T, seed int64, lasts time.Duration, faults func(*cluster, *rand.Rand)) {
	dir := scratch(t)
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, dir, ArbitrationWitness, seed)
		rng := rand.New(rand.NewSource(seed))
		for _, n := range []string{"a", "b", "w"} {
			c.rate[n] = 0.96 + 0.08*rng.Float64()
		}
		c.net.Latency(roughly)
		c.openAll()
		must(t, Record{}, func() error {
			_, err := c.node("a").Declare(limit(20*time.Second), "r", []string{"a", "b"}, 0)
			return err
		}())
		c.watch("r")
		for i, n := range []string{"a", "b"} {
			r := rand.New(rand.NewSource(seed*7 + int64(i)))
			c.wg.Go(func() { c.controller(n, "r", r) })
		}
		stop := make(chan bool)
		c.wg.Go(func() { faults(c, rand.New(rand.NewSource(seed*13))); close(stop) })
		seen, grants, last := tenures{}, 0, lease.Token(0)
		for range int(lasts / (10 * time.Millisecond)) {
			time.Sleep(10 * time.Millisecond)
			c.learn(seen, "r")
			for _, n := range c.holders("r") {
				if l := c.node(n); l != nil {
					if got := l.Lease("r").Tenure; got > last {
						last, grants = got, grants+1
					}
				}
			}
		}
		if grants < int(lasts/(20*time.Second)) {
			t.Errorf("only %d tenures were ever held in %v: nothing was tested", grants, lasts)
		}
		t.Logf("seed %d: %d tenures seen, %d held", seed, len(seen), grants)
		c.settle(stop)
	})
}

// settle ends the faults and closes everything.
func (c *cluster) settle(faultsEnded chan bool) {
	close(c.done)
	<-faultsEnded
	c.net.HealAll()
	for _, v := range c.voters() {
		c.stop(v.Node)
	}
	c.wg.Wait()
}

func TestChaos(t *testing.T) { chaosOf(t, 4, (*cluster).faults) }

// chosenSeeds are those that the environment asks for, or so many from 1.
func chosenSeeds(usual int) (from, seeds int) {
	from, seeds = 1, usual
	if s := os.Getenv("LEDGER_SEEDS"); s != "" {
		seeds, _ = strconv.Atoi(s)
	}
	if s := os.Getenv("LEDGER_FROM"); s != "" {
		from, _ = strconv.Atoi(s)
	}
	return from, seeds
}

// chaosOf runs so many seeds, or those that the environment asks for.
func chaosOf(t *testing.T, seeds int, faults func(*cluster, *rand.Rand)) {
	from, seeds := chosenSeeds(seeds)
	for i := range seeds {
		t.Run(fmt.Sprint(from+i), func(t *testing.T) { chaos(t, int64(from+i), 2*time.Minute, faults) })
	}
}
