package ledger

import (
	"errors"
	"fmt"
	"math/rand"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func (c *cluster) leader() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, l := range c.nodes {
		if g := l.group(); g != nil && g.raft.State() == raft.Leader && l.Status().Leader == name {
			return name
		}
	}
	return ""
}

func (c *cluster) awaitLeader(among ...string) string {
	c.t.Helper()
	leader := ""
	c.eventually(10*time.Second, "a leader", func() bool {
		leader = c.leader()
		for _, n := range among {
			if n == leader {
				return true
			}
		}
		return false
	})
	return leader
}

func TestWitnessNeverLeads(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		for i := range 20 {
			was := c.awaitLeader("a", "b")
			other := map[string]string{"a": "b", "b": "a"}[was]
			// Let the other know all that is committed: only then can it lead.
			c.eventually(time.Second, "caught up", func() bool {
				return c.node(other).Status().Applied >= c.node(was).Status().Applied && c.node(other).Status().Of == 3
			})
			time.Sleep(300 * time.Millisecond)
			c.crash(was)
			began := time.Now()
			if got := c.awaitLeader(other, "w"); got == "w" {
				t.Fatalf("round %d: the witness leads", i)
			}
			t.Logf("round %d: %s leads after %v", i, other, time.Since(began))
			c.open(was)
			c.eventually(5*time.Second, "back", func() bool { return c.node(was).Status().Promising })
		}
	})
}

// The last committed entry is with the lost leader and the witness only. Nobody
// could lead any more, did the witness not pass it on.
func TestWitnessPassesOn(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		for round := range 3 {
			lead := c.awaitLeader("a", "b")
			other := map[string]string{"a": "b", "b": "a"}[lead]
			c.net.Cut(lead, other)
			c.net.Cut("w", other)
			why := fmt.Sprintf("written without %s, round %d", other, round)
			if err := c.node(lead).SetMaintenance(limit(time.Second), "r", why); err != nil {
				t.Fatal(err)
			}
			c.crash(lead)
			c.net.HealAll()
			took := c.eventually(5*time.Second, other+" leads", func() bool { return c.leader() == other })
			t.Logf("%s led after %v", other, took)
			c.eventually(time.Second, "it knows", func() bool { return c.node(other).Status().Maintenance["r"] == why })
			for range 20 { // nor does the witness come back to it
				if got := c.leader(); got != other {
					t.Fatalf("%q leads", got)
				}
				time.Sleep(100 * time.Millisecond)
			}
			c.open(lead)
			c.eventually(5*time.Second, "back", func() bool { return c.node(lead).Status().Promising })
		}
	})
}

// A Primary whose lease the witness renews keeps it while the witness leads and
// stops to: neither touches the promises.
func TestLeaseWhileTheWitnessLeads(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		if c.awaitLeader("a", "b") == "a" {
			if err := c.node("a").handOverLead(limit(time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		c.awaitLeader("b")
		c.net.Cut("a", "b")
		c.net.Cut("a", "w") // for less than a lease
		if err := c.node("b").SetMaintenance(limit(200*time.Millisecond), "r", "written without a"); err != nil {
			t.Fatal(err)
		}
		c.crash("b")
		c.net.HealAll()
		held := c.alwaysHeld("a", "r")
		c.eventually(5*time.Second, "a leads", func() bool { return c.leader() == "a" })
		time.Sleep(2 * time.Second)
		held()
	})
}

// Answers to the Primary are slow: a lease counted from their arrival would
// outlive the promises.
func TestLeaseCountsFromTheSending(t *testing.T) {
	for _, cut := range []int{0, 20, 40, 60, 80, 100, 120, 140} {
		bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
			c.openAll()
			c.watch("r")
			c.primary("a", "r")
			c.net.Latency(func(_ *rand.Rand, _, to string) time.Duration {
				if to == "a" {
					return 150 * time.Millisecond
				}
				return time.Millisecond
			})
			time.Sleep(3*time.Second + time.Duration(cut)*time.Millisecond)
			if !c.holds("a", "r")() {
				t.Fatal("a does not hold the lease")
			}
			c.net.CutOneWay("a", "b")
			c.net.CutOneWay("a", "w")
			c.takeOver(c.node("b"), "r")
			time.Sleep(time.Second)
		})
	}
}

// A voter that restarts has forgotten whom it promised: it grants nobody, and
// says it does not know, until its promises have run out.
func TestRestartedVoterWaits(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		c.net.Cut("a", "b")
		time.Sleep(time.Second)
		if !c.holds("a", "r")() {
			t.Fatal("a and the witness are a majority")
		}
		c.stop("w")
		c.net.Isolate("a")
		c.open("w")
		restarted := time.Now()
		if lapsed, err := c.node("b").Lapsed(limit(100*time.Millisecond), "r"); lapsed || !errors.Is(err, ErrNoQuorum) {
			t.Fatalf("lapsed just after the restart: %v, %v", lapsed, err)
		}
		c.takeOver(c.node("b"), "r")
		if waited := time.Since(restarted); waited < 550*time.Millisecond || waited > 2*time.Second {
			t.Fatalf("b holds the lease %v after the voter restarted", waited)
		}
	})
}

// A voter that has restarted with an old snapshot of the ledger must not grant a
// Primary long replaced, though the old one never heard of it.
func TestRestartedVoterCatchesUpFirst(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		r := c.primary("a", "r")
		c.net.Isolate("a")
		c.takeOver(c.node("b"), "r")
		have, _ := c.node("b").Record("r")
		must2(t)(c.node("b").Exclude(limit(time.Second), "r", "a", have.Token))
		c.crash("b")
		c.crash("w")
		c.open("w") // its log says b, but nobody tells it that this is committed
		c.net.Heal("a", "w")
		time.Sleep(10 * time.Second)
		if h := c.holders("r"); len(h) != 0 {
			t.Fatalf("%v holds the lease of %+v, having missed a takeover", h, r)
		}
	})
}

func TestReleaseIsQuick(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		r := c.primary("a", "r")
		began := time.Now()
		if err := c.node("a").Release(limit(time.Second), "r"); err != nil {
			t.Fatal(err)
		}
		if lapsed, err := c.node("b").Lapsed(limit(time.Second), "r"); !lapsed || err != nil {
			t.Fatalf("after the hand-back: %v, %v", lapsed, err)
		}
		r = must2(t)(c.node("a").Demote(limit(time.Second), "r", "a", r.Token))
		r = must2(t)(c.node("b").Promote(limit(time.Second), "r", "b", r.Token))
		c.node("b").Hold("r", r.Tenure)
		c.eventually(time.Second, "b holds", c.holds("b", "r"))
		if took := time.Since(began); took > 50*time.Millisecond {
			t.Errorf("switchover took %v", took)
		} else {
			t.Logf("switchover took %v", took)
		}
		if err := c.node("a").Release(limit(time.Second), "r"); err != nil {
			t.Errorf("handing back nothing: %v", err)
		}
	})
}

// Many at once with the same token: one wins, the others learn what they lost to.
func TestTokenRaces(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		r := c.primary("a", "r")
		for round := range 20 {
			var won atomic.Int32
			var wg sync.WaitGroup
			for i := range 6 {
				l := c.node([]string{"a", "b", "w"}[i%3])
				wg.Go(func() {
					var err error
					if r.Has("b") {
						_, err = l.Exclude(limit(5*time.Second), "r", "b", r.Token)
					} else {
						_, err = l.Include(limit(5*time.Second), "r", "b", r.Token)
					}
					var stale *StaleError
					switch {
					case err == nil:
						won.Add(1)
					case !errors.As(err, &stale) || stale.Have.Token != r.Token+1:
						t.Errorf("round %d: %v", round, err)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Fatalf("round %d: %d won", round, won.Load())
			}
			c.eventually(time.Second, "a sees it", func() bool { got, _ := c.node("a").Record("r"); return got.Token == r.Token+1 })
			r, _ = c.node("a").Record("r")
		}
		if r.Tenure != 2 {
			t.Errorf("tenure %d", r.Tenure)
		}
	})
}

// A hung disk under the leader: the lease goes on, another node leads.
func TestStalledDisk(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		var hung atomic.Pointer[chan bool]
		c.config = func(cfg *Config) {
			node := cfg.Self
			cfg.store.Sync = func(*os.File) error {
				if gate := hung.Load(); gate != nil && node == "a" {
					<-*gate
				}
				return nil
			}
		}
		c.openAll()
		c.watch("r")
		r := c.primary("a", "r")
		if c.leader() == "b" {
			if err := c.node("b").handOverLead(limit(time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		c.awaitLeader("a")
		time.Sleep(time.Second)
		gate := make(chan bool)
		hung.Store(&gate)
		held := c.alwaysHeld("a", "r")
		began := time.Now()
		r, err := c.node("b").Exclude(limit(10*time.Second), "r", "b", r.Token)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("committed %v after the disk hung", time.Since(began))
		if !c.happened("a:stall:") {
			t.Errorf("events %v", c.events)
		}
		time.Sleep(3 * time.Second)
		held()
		hung.Store(nil)
		close(gate)
		c.eventually(5*time.Second, "a follows", func() bool { got, _ := c.node("a").Record("r"); return got.Equal(r) })
	})
}

// A failed disk: the node says so, votes no more, and its process lives. The
// others go on, and while they do its lease does, too.
func TestFailedDisk(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		var broken atomic.Bool
		c.config = func(cfg *Config) {
			node := cfg.Self
			cfg.store.Sync = func(*os.File) error {
				if node == "a" && broken.Load() {
					return errors.New("input/output error")
				}
				return nil
			}
		}
		c.openAll()
		r := c.primary("a", "r")
		broken.Store(true)
		if _, err := c.node("b").Exclude(limit(10*time.Second), "r", "b", r.Token); err != nil {
			t.Fatal(err)
		}
		c.eventually(5*time.Second, "a says so", func() bool { return c.node("a").Status().State == "failed" && c.happened("a:disk:") })
		if _, err := c.node("a").Exclude(limit(time.Second), "r", "b", r.Token); !errors.Is(err, ErrDisk) {
			t.Fatalf("command on a failed disk: %v", err)
		}
		time.Sleep(3 * time.Second)
		c.net.Isolate("b") // an election on a would panic, were it not guarded
		time.Sleep(3 * time.Second)
	})
}

func TestShutdownHandsOver(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		c.primary("a", "r")
		lead := c.awaitLeader("a", "b")
		other := map[string]string{"a": "b", "b": "a"}[lead]
		l := c.node(lead)
		c.mu.Lock()
		delete(c.nodes, lead)
		c.mu.Unlock()
		began := time.Now()
		if err := l.Shutdown(limit(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		c.awaitLeader(other)
		if took := time.Since(began); took > 50*time.Millisecond {
			t.Errorf("%s leads after %v", other, took)
		}
		if _, err := l.Promote(limit(time.Second), "r", "a", 2); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed ledger answers %v", err)
		}
	})
}

func TestNoQuorum(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		l := c.open("a")
		_, err := l.Declare(limit(2*time.Second), "r", []string{"a"}, 0)
		if !errors.Is(err, ErrNoQuorum) {
			t.Fatalf("%v", err)
		}
		if _, err := l.Lapsed(limit(time.Second), "r"); !errors.Is(err, ErrNoQuorum) {
			t.Fatalf("%v", err)
		}
		if s := l.Status(); s.Quorum || s.Reachable != 1 || s.Of != 3 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{
		Self: "a", Voters: []Voter{{Node: "a"}, {Node: "b"}}, Arbitration: ArbitrationManual, Dir: "x",
		Clock: func() time.Duration { return 0 }, Streams: nopStreams{}, Timing: Timing{}.withDefaults(),
	}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"not a voter":         func(c *Config) { c.Self = "z" },
		"no directory":        func(c *Config) { c.Dir = "" },
		"twice":               func(c *Config) { c.Voters = []Voter{{Node: "a"}, {Node: "a"}} },
		"manual with three":   func(c *Config) { c.Voters = append(c.Voters, Voter{Node: "w"}) },
		"witness with two":    func(c *Config) { c.Arbitration = ArbitrationWitness },
		"no arbitration":      func(c *Config) { c.Arbitration = 0 },
		"no margin":           func(c *Config) { c.Timing.Margin = 1 },
		"renewed too seldom":  func(c *Config) { c.Timing.Renew = c.Timing.Lease },
		"lease too long":      func(c *Config) { c.Timing.Lease = time.Hour },
		"election under beat": func(c *Config) { c.Timing.Election = 1 },
	} {
		c := good
		spoil(&c)
		if err := c.check(); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good.Arbitration = ArbitrationFencing
	if err := good.check(); err != nil {
		t.Errorf("fencing: %v", err)
	}
	good.Voters = append(good.Voters[:2:2], Voter{Node: "w", Witness: true})
	if err := good.check(); !errors.Is(err, ErrConfig) {
		t.Errorf("fencing with a witness: %v", err)
	}
}
