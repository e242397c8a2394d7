package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"hapair/failover/lease"
	"hapair/failover/ledger/ledgertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster runs ledgers on a network in memory, inside a bubble, and watches that
// never two of them hold the lease of one resource.
type cluster struct {
	t     *testing.T
	net   *ledgertest.Net
	dir   string
	arb   Arbitration
	start time.Time
	rate  map[string]float64 // of a node's clock

	opening sync.Mutex // held while a node is opened that another one may open

	mu     sync.Mutex
	nodes  map[string]*Ledger
	held   map[string]map[string]time.Time // resource -> node -> until, in global time
	events []string
	config func(*Config)
	done   chan struct{}
	wg     sync.WaitGroup
}

// scratch prefers memory: the bubble's time stands still while a disk works.
func scratch(t *testing.T) string {
	if dir, err := os.MkdirTemp("/dev/shm", "ledger-test-"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}

func newCluster(t *testing.T, dir string, arb Arbitration, seed int64) *cluster {
	return &cluster{
		t: t, net: ledgertest.NewNet(seed), dir: dir, arb: arb, start: time.Now(), rate: map[string]float64{},
		nodes: map[string]*Ledger{}, held: map[string]map[string]time.Time{}, done: make(chan struct{}),
	}
}

func (c *cluster) voters() []Voter {
	if c.arb != ArbitrationWitness {
		return []Voter{{Node: "a"}, {Node: "b"}}
	}
	return []Voter{{Node: "a"}, {Node: "b"}, {Node: "w", Witness: true}}
}

func (c *cluster) clock(node string) lease.Clock {
	rate := c.rate[node]
	if rate == 0 {
		rate = 1
	}
	return func() time.Duration { return time.Hour + time.Duration(float64(time.Since(c.start))*rate) }
}

func (c *cluster) logger() *zap.Logger {
	if testing.Verbose() && os.Getenv("LEDGER_LOG") != "" {
		return zaptest.NewLogger(c.t)
	}
	return zap.NewNop()
}

func (c *cluster) open(node string) *Ledger {
	c.t.Helper()
	cfg := Config{
		Self: node, Voters: c.voters(), Arbitration: c.arb, Dir: filepath.Join(c.dir, node),
		Clock: c.clock(node), Logger: c.logger(), Streams: c.net.Node(node),
		Events: func(e Event) { c.note(node, e) },
	}
	cfg.store.Sync = func(*os.File) error { return nil }
	if c.config != nil {
		c.config(&cfg)
	}
	l, err := Open(cfg)
	if err != nil {
		c.t.Fatalf("open %s: %v", node, err)
	}
	c.mu.Lock()
	c.nodes[node] = l
	c.mu.Unlock()
	return l
}

func (c *cluster) openAll() {
	for _, v := range c.voters() {
		c.open(v.Node)
	}
}

func (c *cluster) note(node string, e Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, fmt.Sprintf("%s:%s:%s", node, e.Kind, e.Node))
}

func (c *cluster) happened(event string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.events, event)
}

// crash takes the power from a node.
func (c *cluster) crash(node string) {
	c.net.Crash(node)
	c.stop(node)
}

func (c *cluster) stop(node string) {
	c.mu.Lock()
	l := c.nodes[node]
	delete(c.nodes, node)
	c.mu.Unlock()
	if l == nil {
		return
	}
	if err := l.Close(); err != nil {
		c.t.Errorf("close %s: %v", node, err)
	}
}

func (c *cluster) closeAll() {
	c.net.HealAll()
	for _, v := range c.voters() {
		c.stop(v.Node)
	}
	close(c.done)
	c.wg.Wait()
}

func (c *cluster) node(name string) *Ledger {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[name]
}

// watch checks, every few virtual milliseconds, that at most one node would
// answer I/O for each resource.
func (c *cluster) watch(resources ...string) {
	c.wg.Go(func() {
		for {
			select {
			case <-c.done:
				return
			case <-time.After(3 * time.Millisecond):
			}
			for _, r := range resources {
				if h := c.holders(r); len(h) > 1 {
					c.t.Errorf("at %v two hold the lease of %s: %v", time.Since(c.start), r, h)
				}
			}
		}
	})
}

// holders returns who holds a valid lease now, each by its own clock.
func (c *cluster) holders(resource string) (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, l := range c.nodes {
		if l.Lease(resource).Valid(l.clock()) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// eventually waits for a condition in virtual time.
func (c *cluster) eventually(within time.Duration, what string, ok func() bool) time.Duration {
	c.t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > within {
			for name, l := range c.nodes {
				c.t.Logf("%s: %+v records %+v", name, l.Status(), l.Records())
			}
			c.t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}

func (c *cluster) holds(node, resource string) func() bool {
	return func() bool { return slices.Equal(c.holders(resource), []string{node}) }
}

func limit(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func must(t *testing.T, r Record, err error) Record {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// primary declares a resource and makes node its Primary, holding the lease.
func (c *cluster) primary(node, resource string) Record {
	c.t.Helper()
	l := c.node(node)
	r := must2(c.t)(l.Declare(limit(5*time.Second), resource, []string{"a", "b"}, 0))
	r = must2(c.t)(l.Promote(limit(5*time.Second), resource, node, r.Token))
	l.Hold(resource, r.Tenure)
	c.eventually(5*time.Second, node+" holds the lease", c.holds(node, resource))
	return r
}

func must2(t *testing.T) func(Record, error) Record {
	return func(r Record, err error) Record { t.Helper(); return must(t, r, err) }
}

func bubble(t *testing.T, arb Arbitration, f func(t *testing.T, c *cluster)) {
	dir := scratch(t)
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, dir, arb, 1)
		defer c.closeAll()
		f(t, c)
	})
}

func TestPromoteAndLease(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		r := c.primary("a", "r")
		if r.Token != 2 || r.Tenure != 2 || r.Primary != "a" {
			t.Fatalf("record %+v", r)
		}
		_, err := c.node("b").Exclude(limit(time.Second), "r", "a", 1)
		var stale *StaleError
		if !errors.Is(err, ErrStale) || !errors.As(err, &stale) || stale.Have.Token != 2 {
			t.Fatalf("exclude with an old token: %v", err)
		}
		c.eventually(time.Second, "b sees it", func() bool { got, _ := c.node("b").Record("r"); return got.Equal(r) })
	})
}

func TestPrimaryIsolated(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		c.net.Isolate("a")
		b := c.node("b")
		took := c.takeOver(b, "r")
		t.Logf("b held the lease %v after the cut", took)
		if took < 400*time.Millisecond || took > 2*time.Second {
			t.Errorf("took over after %v", took)
		}
		c.net.HealAll()
		c.eventually(5*time.Second, "a knows", func() bool { r, _ := c.node("a").Record("r"); return r.Primary == "b" })
		time.Sleep(time.Second)
		if !c.holds("b", "r")() {
			t.Errorf("after healing: %v", c.holders("r"))
		}
	})
}

// takeOver has l become Primary and hold the lease, as a failover would.
func (c *cluster) takeOver(l *Ledger, resource string) time.Duration {
	c.t.Helper()
	began := time.Now()
	for {
		have, _ := l.Record(resource)
		r, err := l.Promote(limit(5*time.Second), resource, l.cfg.Self, have.Token)
		if err == nil {
			l.Hold(resource, r.Tenure)
			break
		}
		if time.Since(began) > 10*time.Second {
			c.t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.eventually(5*time.Second, l.cfg.Self+" takes over", c.holds(l.cfg.Self, resource))
	return time.Since(began)
}

// That a node has read the ledger is told: nothing else happens then in a pair
// that was never declared.
func TestCatchingUpIsTold(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		for _, node := range []string{"a", "b", "w"} {
			took := c.eventually(2*time.Second, node+" has caught up", func() bool { return c.happened(node + ":caught-up:" + node) })
			if s := c.node(node).Status(); s.Applied == 0 || s.Leader == "" {
				t.Errorf("%s after %v: %+v", node, took, s)
			}
		}
	})
}

// What is asked often is answered without the whole status, and alike.
func TestShortAnswersAreThoseOfTheStatus(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		l := c.node("a")
		alike := func() {
			t.Helper()
			s := l.Status()
			if l.CanChange() != (s.Quorum && s.Leader != "") || l.Alone() != s.Alone || l.Incarnation() != s.Incarnation {
				t.Errorf("can change %t, alone %t, incarnation %d; status %+v", l.CanChange(), l.Alone(), l.Incarnation(), s)
			}
		}
		alike()
		c.eventually(2*time.Second, "a quorum", l.CanChange)
		alike()
		if err := l.SetMaintenance(limit(time.Second), "standby/a", "a test"); err != nil {
			t.Fatal(err)
		}
		c.eventually(time.Second, "the mark is read", func() bool { return l.Marked("standby/a") })
		if l.Marked("standby/b") {
			t.Error("a mark that nobody made")
		}
		c.crash("b")
		c.crash("w")
		c.eventually(5*time.Second, "no quorum", func() bool { return !l.CanChange() })
		alike()
	})
}
