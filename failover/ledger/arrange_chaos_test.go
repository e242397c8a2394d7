package ledger

import (
	"errors"
	"math/rand"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// loners go alone whenever the ledger lets them: what arbitration manual does for a
// Primary that has lost its peer, and a hasty one at that.
func (c *cluster) loners(node, resource string, rng *rand.Rand, went *int) {
	for {
		select {
		case <-c.done:
			return
		case <-time.After(time.Duration(50+rng.Intn(1500)) * time.Millisecond):
		}
		l := c.node(node)
		if l == nil || l.CanChange() {
			continue
		}
		if r, _ := l.Record(resource); r.Primary == node && l.GoAlone(limit(time.Second), "no quorum") == nil {
			c.mu.Lock()
			*went++
			c.mu.Unlock()
		}
	}
}

// operators change their minds about the witness, node by node, and do not always see
// the change to its end; a witness that comes may have lost its directory, or not.
func (c *cluster) operators(f files, rng *rand.Rand, came, left *int) {
	witness := ""
	for {
		witness = map[string]string{"": "w", "w": ""}[witness]
		if witness == "w" && rng.Intn(2) == 0 {
			c.crash("w")
			if err := os.RemoveAll(filepath.Join(c.dir, "w")); err != nil {
				c.t.Error(err)
			}
			c.reopen("w")
		}
		for _, node := range []string{"a", "b"} {
			c.filed(f, node, witness)
			if l := c.node(node); l != nil {
				_ = l.Arrange(witness, ArbitrationManual) // closed just now: its file says it
			}
			time.Sleep(time.Duration(rng.Intn(300)) * time.Millisecond)
		}
		of := map[string]int{"": 2, "w": 3}[witness]
		for range 20 + rng.Intn(100) {
			select {
			case <-c.done:
				return
			case <-time.After(100 * time.Millisecond):
			}
			a, b := c.node("a"), c.node("b")
			if a == nil || b == nil || len(a.servers()) != of || len(b.servers()) != of || a.Status().Arranging != "" {
				continue
			}
			c.mu.Lock()
			if of == 3 {
				*came++
			} else {
				*left++
			}
			c.mu.Unlock()
			break
		}
	}
}

// filed writes a node's file; reopen reads it.
func (c *cluster) filed(f files, node, witness string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f[node] = witness
}

// reopen opens a node that another goroutine may have opened meanwhile.
func (c *cluster) reopen(node string) {
	c.opening.Lock()
	defer c.opening.Unlock()
	if c.node(node) == nil {
		c.open(node)
	}
}

// A witness comes and goes while everything breaks, nodes go alone as soon as they
// may, and each promotes itself as soon as it may. Never do two hold the lease, and
// nothing that was decided is undone.
func TestChaosOfWitnesses(t *testing.T) { chaosOfWitnesses(t, 3, 90*time.Second) }

func chaosOfWitnesses(t *testing.T, seeds int, lasts time.Duration) {
	came, left, went := 0, 0, 0
	from, seeds := chosenSeeds(seeds)
	for seed := from; seed < from+seeds; seed++ {
		dir := scratch(t)
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, dir, ArbitrationManual, int64(seed))
			f := c.byFiles()
			f["w"] = "w"
			byFile := c.config
			c.config = func(cfg *Config) {
				c.mu.Lock()
				defer c.mu.Unlock()
				byFile(cfg)
			}
			rng := rand.New(rand.NewSource(int64(seed)))
			for _, n := range []string{"a", "b", "w"} {
				c.rate[n] = 0.97 + 0.06*rng.Float64()
			}
			c.net.Latency(roughly)
			c.openAll()
			must2(t)(c.node("a").Declare(limit(20*time.Second), "r", []string{"a", "b"}, 0))
			c.watch("r")
			for i, n := range []string{"a", "b"} {
				r, s := rand.New(rand.NewSource(int64(seed*7+i))), rand.New(rand.NewSource(int64(seed*11+i)))
				c.wg.Go(func() { c.controller(n, "r", r) })
				c.wg.Go(func() { c.loners(n, "r", s, &went) })
			}
			stop := make(chan bool)
			c.wg.Go(func() { c.faults(rand.New(rand.NewSource(int64(seed * 13)))); close(stop) })
			c.wg.Go(func() { c.operators(f, rand.New(rand.NewSource(int64(seed*17))), &came, &left) })
			seen := tenures{}
			for range int(lasts / (10 * time.Millisecond)) {
				time.Sleep(10 * time.Millisecond)
				c.learn(seen, "r")
			}
			t.Logf("seed %d: %d tenures and tokens seen", seed, len(seen))
			c.settle(stop)
		})
	}
	t.Logf("the witness came %d times, left %d times; a node went alone %d times", came, left, went)
	if came < seeds || left < seeds || went < seeds {
		t.Error("too little happened for the test to tell anything")
	}
}

// Each node loses power at each write of its ledger while a witness comes, and while it
// goes: what was begun is finished when the node is back, and until then nobody is told
// two things.
func TestCrashWhileTheWitnessChanges(t *testing.T) {
	for _, way := range []string{"comes", "goes"} {
		for _, victim := range []string{"a", "b", "w"} {
			t.Run(way+" "+victim, func(t *testing.T) {
				for failAt := 1; failAt < 40; failAt++ {
					if !crashWhileTheWitness(t, way, victim, failAt) {
						t.Logf("%d writes", failAt-1)
						return
					}
				}
				t.Error("it never got through")
			})
		}
	}
}

// crashWhileTheWitness tells whether the victim came to the write that was to fail.
func crashWhileTheWitness(t *testing.T, way, victim string, failAt int) (failed bool) {
	dir := scratch(t)
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, dir, ArbitrationManual, int64(failAt))
		defer c.closeAll()
		f := c.byFiles()
		byFile := c.config
		var armed, struck atomic.Bool
		var count atomic.Int32
		c.config = func(cfg *Config) {
			byFile(cfg)
			if cfg.Self == victim {
				cfg.store.Sync = func(*os.File) error {
					if armed.Load() && int(count.Add(1)) >= failAt {
						struck.Store(true)
						return errors.New("power cut")
					}
					return nil
				}
			}
		}
		of, want := 3, "w"
		if way == "goes" {
			c.added(f)
			of, want = 2, ""
		} else {
			c.open("a")
			c.open("b")
			c.watch("r")
			c.primary("a", "r")
			f["w"] = "w"
			c.open("w")
		}
		seen := tenures{}
		armed.Store(true)
		c.wants(f, want, "a", "b")
		for range 300 {
			time.Sleep(5 * time.Millisecond)
			c.learn(seen, "r")
			if struck.Load() {
				c.crash(victim)
				break
			}
		}
		failed = struck.Load()
		armed.Store(false)
		if l := c.node("a"); l != nil && !l.CanChange() { // as its arbitration has it
			_ = l.GoAlone(limit(time.Second), "no quorum") // may be refused: then it waits
		}
		c.learn(seen, "r")
		if c.node(victim) == nil {
			c.open(victim)
		}
		c.eventually(20*time.Second, "it is done", func() bool {
			c.learn(seen, "r")
			for _, node := range []string{"a", "b"} {
				if s := c.node(node).Status(); s.Of != of || s.Arranging != "" || !s.Quorum {
					return false
				}
			}
			return true
		})
		// A node that was just opened has applied nothing yet: its voters answer first.
		c.eventually(20*time.Second, "b knows who is Primary", func() bool {
			r, _ := c.node("b").Record("r")
			return r.Primary == "a"
		})
	})
	return failed
}
