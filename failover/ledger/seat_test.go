package ledger

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// aside has the machine of a node taken away, directory and all.
func (c *cluster) aside(node string) (dir string) {
	c.t.Helper()
	if c.node(node) != nil {
		c.crash(node)
	}
	dir = filepath.Join(c.dir, "old-"+node)
	if err := os.Rename(filepath.Join(c.dir, node), dir); err != nil {
		c.t.Fatal(err)
	}
	return dir
}

// returns puts a machine that was taken away back in the place of the present one.
func (c *cluster) returns(node, dir string) *Ledger {
	c.t.Helper()
	if c.node(node) != nil {
		c.crash(node)
	}
	if err := os.Rename(filepath.Join(c.dir, node), dir+"-new"); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(dir, filepath.Join(c.dir, node)); err != nil {
		c.t.Fatal(err)
	}
	return c.open(node)
}

// refused waits until a node's machine knows that it was replaced.
func (c *cluster) refused(node string) {
	c.t.Helper()
	c.eventually(5*time.Second, node+" was replaced", func() bool { return errors.Is(c.node(node).Status().Replaced, ErrReplaced) })
	if s := c.node(node).Status(); s.State != "replaced" || s.Promising {
		c.t.Errorf("%+v", s)
	}
}

// A machine is replaced, and the old one comes back with its ledger: what was decided
// meanwhile is not with it, and it is no voter any more, whoever else is there.
func TestReplacedMachineIsRefused(t *testing.T) {
	for _, node := range []string{"b", "w"} {
		t.Run(node, func(t *testing.T) {
			bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
				c.openAll()
				c.watch("r")
				c.leads("a", "b")
				r := c.primary("a", "r")
				old := c.aside(node)
				c.open(node)
				c.eventually(5*time.Second, "the new machine votes", func() bool {
					got, _ := c.node(node).Record("r")
					return got.Equal(r) && c.node(node).Status().Promising
				})
				if !c.holds("a", "r")() {
					t.Error("it cost the lease")
				}
				other := map[string]string{"b": "w", "w": "b"}[node]
				c.crash(other) // now the new one is half of the majority
				r = must2(t)(c.node("a").Exclude(limit(5*time.Second), "r", "b", r.Token))
				c.crash("a")
				c.open(other)
				l := c.returns(node, old)
				c.refused(node)
				promote, why := c.node("b"), ErrNoQuorum
				if got, err := promote.Promote(limit(10*time.Second), "r", "b", r.Token-1); !errors.Is(err, why) {
					t.Fatalf("with a machine that was replaced: %+v, %v", got, err)
				}
				if w := l.Status().Replaced.Error(); !strings.Contains(w, other+" takes another machine for "+node) || !strings.Contains(w, "empty its ledger directory") {
					t.Error(w)
				}
				c.open("a")
				c.refused(node)
				c.emptied(node)
				c.eventually(5*time.Second, "emptied, it joins", func() bool {
					got, _ := c.node(node).Record("r")
					return got.Equal(r) && c.node(node).Status().Promising
				})
			})
		})
	}
}

// emptied takes the power from a node and has it come back without its directory.
func (c *cluster) emptied(node string) {
	c.t.Helper()
	c.crash(node)
	c.wipes(node)
}

// In a pair the survivor goes on alone; a new machine joins it, and the old one, which
// would discard its ledger and join as well, is refused.
func TestReplacedMachineOfAPair(t *testing.T) {
	for _, arb := range []Arbitration{ArbitrationManual, ArbitrationFencing} {
		t.Run(arb.String(), func(t *testing.T) {
			bubble(t, arb, func(t *testing.T, c *cluster) {
				c.openAll()
				c.watch("r")
				c.primary("a", "r")
				old := c.aside("b")
				if err := c.node("a").ForceAlone(limit(5*time.Second), "b burned"); err != nil {
					t.Fatal(err)
				}
				both := func() bool { return c.node("b").Status().State == "follower" && c.node("a").Status().Of == 2 }
				c.open("b")
				c.eventually(5*time.Second, "the new machine votes", both)
				c.returns("b", old)
				c.refused("b")
				if err := c.node("b").GoAlone(limit(5*time.Second), "nobody talks to me"); !errors.Is(err, ErrReplaced) {
					t.Error(err)
				}
				if s := c.node("a").Status(); s.Incarnation != 2 || s.SplitBrain != "" {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// twin is a network on which two machines call themselves b, the second reached as
// such once the switch is thrown.
type twin struct {
	Streams
	second *atomic.Bool
}

func (n twin) Dial(ctx context.Context, node, purpose string) (net.Conn, error) {
	if node == "b" && n.second.Load() {
		node = "b2"
	}
	return n.Streams.Dial(ctx, node, purpose)
}

func (n twin) Handle(prefix string, fn func(string, net.Conn)) {
	n.Streams.Handle(prefix, func(node string, c net.Conn) { fn(strings.TrimSuffix(node, "2"), c) })
}

// Two machines call themselves b. The one that is there stays; the other one waits,
// and says for whom, until the first is silent.
func TestTwoMachinesOfOneName(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		second := new(atomic.Bool)
		c.config = func(cfg *Config) { cfg.Streams = twin{cfg.Streams, second} }
		c.openAll()
		c.watch("r")
		c.leads("a", "b")
		r := c.primary("b", "r")
		b := c.node("b")
		cfg := b.cfg
		cfg.Dir, cfg.Streams = filepath.Join(c.dir, "b2"), twin{c.net.Node("b2"), second}
		newer, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer newer.Close()
		time.Sleep(10 * time.Second)
		if s := newer.Status(); s.State != "blank" || !slices.Equal(s.Refusing, []string{"a", "w"}) {
			t.Fatalf("%+v", s)
		}
		if !strings.Contains(newer.Status().Voters[0].Why, "that one was heard just now") {
			t.Errorf("%+v", newer.Status().Voters)
		}
		if err := newer.Begin(limit(5*time.Second), "by force"); !errors.Is(err, ErrSeat) {
			t.Error(err)
		}
		if !c.holds("b", "r")() || b.Status().Replaced != nil {
			t.Fatalf("the first one was disturbed: %+v", b.Status())
		}
		c.crash("b")
		second.Store(true)
		c.eventually(5*time.Second, "the second one votes", func() bool { return newer.Status().Promising })
		if got, _ := newer.Record("r"); !got.Equal(r) {
			t.Errorf("%+v", got)
		}
	})
}

// An operator says that a machine is gone for good: it is refused before the new one
// is there, also by a voter that was away when he said so; never while it answers.
func TestVacatedSeat(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		c.leads("a", "b")
		r := c.primary("a", "r")
		a := c.node("a")
		if _, err := a.Vacate(limit(time.Second), "b", "to be had"); !errors.Is(err, ErrAnswers) {
			t.Error(err)
		}
		if _, err := a.Vacate(limit(time.Second), "a", "myself"); !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
		c.crash("b")
		c.crash("w")
		c.eventually(5*time.Second, "b is missed", func() bool { return a.silent("b") && !a.reaches("b") })
		if told, err := a.Vacate(limit(time.Second), "b", "burned"); err != nil || len(told) != 0 {
			t.Fatal(told, err)
		}
		c.open("w")
		c.eventually(5*time.Second, "w knows", func() bool {
			return c.node("w").Stranger("b", "x") != nil && c.node("w").machineOf("b") == ""
		})
		c.crash("a")
		c.open("b")
		c.refused("b")
		c.open("a").Hold("r", r.Tenure)
		c.eventually(5*time.Second, "a serves, with w", c.holds("a", "r"))
		c.emptied("b")
		c.eventually(5*time.Second, "a new machine votes", func() bool {
			got, _ := c.node("b").Record("r")
			return got.Equal(r) && c.node("b").Status().Promising
		})
	})
}

// A machine that is still there, and was said to be gone where it could not be
// reached, is refused by the others too as soon as they hear of it: streams that are
// open do not save it.
func TestVacatedWhileItRuns(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		c.leads("a", "b")
		r := c.primary("b", "r")
		a := c.node("a")
		c.net.Cut("a", "b")
		c.eventually(5*time.Second, "b is missed", func() bool { return a.silent("b") && !a.reaches("b") })
		if !c.holds("b", "r")() {
			t.Error("b has the witness")
		}
		if told, err := a.Vacate(limit(time.Second), "b", "unreachable"); err != nil || !slices.Equal(told, []string{"w"}) {
			t.Fatal(told, err)
		}
		if s := c.node("w").tellSeats()["b"]; s.Quiet {
			t.Error("what b was promised stands yet")
		}
		c.eventually(time.Second, "b's lease runs out", func() bool { return len(c.holders("r")) == 0 })
		c.refused("b")
		r = must2(t)(a.Promote(limit(5*time.Second), "r", "a", r.Token))
		a.Hold("r", r.Tenure)
		c.eventually(5*time.Second, "a serves, with w", c.holds("a", "r"))
	})
}

// What a voter makes of who greets it, one greeting after another.
func TestSeatsAreJudged(t *testing.T) {
	bubble(t, ArbitrationWitness, func(t *testing.T, c *cluster) {
		a := c.open("a")
		a.mu.Lock()
		a.ident.Blank = false
		a.mu.Unlock()
		time.Sleep(time.Second) // what it had promised before it started has run out
		say := func(h hello) error {
			h.Node, h.Arbitration, h.LastIndex = "b", ArbitrationWitness.String(), 9
			return a.seated(&h)
		}
		for i, step := range []struct {
			what  string
			wait  time.Duration
			h     hello
			want  error
			holds string
		}{
			{"an earlier release", 0, hello{}, nil, ""},
			{"the first", 0, hello{Machine: "1"}, nil, "1"},
			{"a new one, at once", 0, hello{Machine: "2", Blank: true, Claims: true}, ErrSeat, "1"},
			{"one with a ledger, later", time.Second, hello{Machine: "2"}, ErrReplaced, "1"},
			{"a new one that only asks", 0, hello{Machine: "2", Blank: true}, ErrSeat, "1"},
			{"a new one", 0, hello{Machine: "2", Blank: true, Claims: true}, nil, "2"},
			{"the first, emptied of all but its name", time.Second, hello{Machine: "1", Blank: true, Claims: true}, ErrReplaced, "2"},
			{"the second", 0, hello{Machine: "2"}, nil, "2"},
			{"an earlier release beside it", 0, hello{}, ErrSeat, "2"},
			{"the second, downgraded", time.Second, hello{}, nil, ""},
			{"and again", 0, hello{}, nil, ""},
			{"the first, meanwhile", 0, hello{Machine: "1"}, ErrReplaced, ""},
			{"the second, upgraded again, which has a new identity", 0, hello{Machine: "3"}, nil, "3"},
			{"hearsay of a fourth", 0, hello{Machine: "3", Seats: map[string]seat{"w": {Machine: "7", Turn: 3}}}, nil, "3"},
		} {
			time.Sleep(step.wait)
			if err := say(step.h); !errors.Is(err, step.want) || (err == nil) != (step.want == nil) {
				t.Errorf("%d, %s: %v, wanted %v", i, step.what, err, step.want)
			}
			if got := a.machineOf("b"); got != step.holds {
				t.Errorf("%d, %s: %q has the seat, wanted %q", i, step.what, got, step.holds)
			}
		}
		if s := a.tellSeats()["w"]; s.Machine != "7" || s.Turn != 3 || s.Quiet {
			t.Errorf("%+v", s)
		}
	})
}

// Many witnesses have come and gone: greetings are still taken.
func TestGreetingAfterManyWitnesses(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.byFiles()
		a := c.open("a")
		c.open("b")
		c.awaitLeader("a", "b")
		for i := range 2 * maxSeats {
			node := fmt.Sprintf("w%02d", i)
			if err := a.seated(&hello{Node: node, Machine: newMachine(), Blank: true}); err != nil {
				t.Fatal(err)
			}
		}
		h := a.greeting()
		if err := h.check(); err != nil {
			t.Error(err)
		}
		if _, told := h.Seats["b"]; !told {
			t.Error("who has the seat of b is not told")
		}
	})
}
