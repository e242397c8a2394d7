package ledger

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hapair/failover/plan"
)

// asks has node ask for a fence of its peer, as soon as it does not reach it.
func (c *cluster) asks(node string) uint64 {
	c.t.Helper()
	l := c.node(node)
	c.eventually(2*time.Second, node+" does not reach its peer", func() bool { return !errors.Is(l.Fence().May, ErrAnswers) })
	ticket, err := l.AskFence()
	if err != nil {
		c.t.Fatal(err)
	}
	return ticket
}

// confirmed ends a fence as an honest device does.
func (c *cluster) confirmed(node string, ticket uint64, began time.Time, want bool) {
	c.t.Helper()
	counts, err := c.node(node).FenceDecided(ticket, true, began)
	if err != nil || counts != want {
		c.t.Fatalf("a confirmed fence counts: %t (%v), wanted %t", counts, err, want)
	}
}

// The Primary dies and is fenced: the Secondary goes on alone, nobody is Primary
// then, and the lease of the dead one is not waited for. It comes back without
// a ledger.
func TestFencingSecondaryGoesOnAlone(t *testing.T) {
	bubble(t, ArbitrationFencing, func(t *testing.T, c *cluster) {
		c.config = func(cfg *Config) { cfg.Timing.Lease = 3 * time.Second } // so that waiting for it would be seen
		c.openAll()
		c.watch("r")
		was := c.primary("a", "r")
		c.crash("a")
		b := c.node("b")
		ticket := c.asks("b")
		if err := b.GoAlone(limit(time.Second), "asked only"); !errors.Is(err, ErrNotFenced) {
			t.Fatalf("went alone before the fence was decided: %v", err)
		}
		c.confirmed("b", ticket, time.Now(), true)
		began := time.Now()
		if err := b.GoAlone(limit(5*time.Second), "a is fenced"); err != nil {
			t.Fatal(err)
		}
		r, _ := b.Record("r")
		if r.Primary != "" || r.Token != was.Token+1 || r.Tenure != was.Tenure || !slices.Equal(r.InSync, []string{"a", "b"}) {
			t.Fatalf("record %+v, before it was %+v", r, was)
		}
		r = must2(t)(b.Promote(limit(time.Second), "r", "b", r.Token))
		b.Hold("r", r.Tenure)
		if took := c.eventually(time.Second, "b holds the lease", c.holds("b", "r")); time.Since(began) > 500*time.Millisecond {
			t.Errorf("the lease took %v", took)
		}
		if s := b.Status(); s.Incarnation != 2 || !s.Alone || len(s.Fences) != 1 || s.Fences[0].Node != "a" || s.Fences[0].Outcome != "confirmed" {
			t.Fatalf("status %+v", s)
		}
		r = must2(t)(b.Exclude(limit(time.Second), "r", "a", r.Token))
		held := c.alwaysHeld("b", "r")
		a := c.open("a")
		c.eventually(20*time.Second, "a is a voter again", func() bool { return a.Status().State == "follower" && b.Status().Of == 2 && b.Status().Reachable == 2 })
		if got, _ := a.Record("r"); a.Status().Incarnation != 2 || !got.Equal(r) || !c.happened("a:rejoining:b") {
			t.Fatalf("a: %+v, record %+v, events %v", a.Status(), got, c.events)
		}
		time.Sleep(2 * time.Second)
		held()
		for _, n := range []string{"a", "b"} {
			if may := c.node(n).Fence(); may.State != plan.FenceNone || !errors.Is(may.May, ErrAnswers) {
				t.Errorf("%s: fence %+v: the two have met, and answer each other", n, may)
			}
		}
	})
}

// The Secondary dies and is fenced: the Primary's tenure stays as it is.
func TestFencingPrimaryGoesOnAlone(t *testing.T) {
	bubble(t, ArbitrationFencing, func(t *testing.T, c *cluster) {
		c.openAll()
		c.watch("r")
		was := c.primary("a", "r")
		c.crash("b")
		ticket := c.asks("a")
		c.confirmed("a", ticket, time.Now(), true)
		if err := c.node("a").GoAlone(limit(5*time.Second), "b is fenced"); err != nil {
			t.Fatal(err)
		}
		c.eventually(time.Second, "a holds the lease", c.holds("a", "r"))
		if r, _ := c.node("a").Record("r"); !r.Equal(was) {
			t.Fatalf("record %+v, before it was %+v", r, was)
		}
	})
}

// R22: a refusal and an unknown outcome are the same: nothing follows, and it may
// be tried again.
func TestFencingUnconfirmed(t *testing.T) {
	bubble(t, ArbitrationFencing, func(t *testing.T, c *cluster) {
		c.openAll()
		c.primary("a", "r")
		c.net.Cut("a", "b")
		ticket := c.asks("b")
		b := c.node("b")
		if _, err := b.AskFence(); !errors.Is(err, ErrFenceUndecided) {
			t.Fatalf("asked twice: %v", err)
		}
		if counts, err := b.FenceDecided(ticket, false, time.Now()); counts || err != nil {
			t.Fatal(counts, err)
		}
		if err := b.GoAlone(limit(time.Second), "x"); !errors.Is(err, ErrNotFenced) {
			t.Fatalf("went alone: %v", err)
		}
		again := c.asks("b")
		c.confirmed("b", ticket, time.Now(), false) // of the fence before
		c.confirmed("b", again, time.Now(), true)
	})
}

// R25: who has not met its peer since it began asks for no fence; neither does
// one whose peer is of another arbitration, answers, or who would gain nothing.
func TestFencingIsNotAskedFor(t *testing.T) {
	refused := func(t *testing.T, c *cluster, node string, want error) {
		t.Helper()
		time.Sleep(3 * time.Second)
		if _, err := c.node(node).AskFence(); !errors.Is(err, want) {
			t.Fatalf("asked: %v; wanted: %v", err, want)
		}
		if may := c.node(node).Fence().May; !errors.Is(may, want) {
			t.Errorf("may: %v; wanted: %v", may, want)
		}
	}
	for name, x := range map[string]struct {
		want error
		do   func(c *cluster)
	}{
		"not met": {ErrNotMet, func(c *cluster) { c.primary("a", "r"); c.crash("a"); c.crash("b"); c.open("b") }},
		"of another arbitration": {ErrNotMet, func(c *cluster) {
			c.primary("a", "r")
			c.stop("a")
			c.config = func(cfg *Config) { cfg.Arbitration = ArbitrationManual }
			c.open("a")
			time.Sleep(2 * time.Second)
			c.crash("a")
		}},
		"answers": {ErrAnswers, func(c *cluster) { c.primary("a", "r") }},
		"nobody is Primary": {ErrNothingGained, func(c *cluster) {
			r := c.primary("a", "r")
			must2(c.t)(c.node("a").Demote(limit(time.Second), "r", "a", r.Token))
			c.crash("a")
		}},
		"not current": {ErrNothingGained, func(c *cluster) {
			r := c.primary("a", "r")
			must2(c.t)(c.node("a").Exclude(limit(time.Second), "r", "b", r.Token))
			c.crash("a")
		}},
		// The entry is in the log here, and nobody has said that it is committed.
		"perhaps not current": {ErrNothingGained, func(c *cluster) {
			r := c.primary("a", "r")
			c.net.CutOneWay("b", "a")
			c.node("a").Exclude(limit(100*time.Millisecond), "r", "b", r.Token) //nolint:errcheck // nobody answers
			if now, _ := c.node("b").Record("r"); !now.Has("b") {
				c.t.Fatal("the exclusion is committed")
			}
			c.crash("a")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, ArbitrationFencing, func(t *testing.T, c *cluster) {
				c.t = t
				c.openAll()
				c.eventually(2*time.Second, "both have caught up", func() bool { return c.happened("a:caught-up:a") && c.happened("b:caught-up:b") })
				time.Sleep(time.Second)
				x.do(c)
				refused(t, c, "b", x.want)
			})
		})
	}
}

// R26: what was asked for before the two met again does not count, whenever the
// device says what it did, and neither does a confirmation once they have met.
func TestFencingIsVoidOnceTheyMeet(t *testing.T) {
	meets := func(c *cluster, within time.Duration) {
		c.t.Helper()
		c.net.Heal("a", "b")
		c.eventually(within, "they meet", func() bool { return c.node("b").Status().Reachable == 2 })
		c.net.Cut("a", "b")
		c.eventually(2*time.Second, "they part", func() bool { return c.node("b").Status().Reachable == 1 })
	}
	alone := func(c *cluster) error { return c.node("b").GoAlone(limit(time.Second), "x") }
	bubble(t, ArbitrationFencing, func(t *testing.T, c *cluster) {
		c.openAll()
		c.primary("a", "r")
		c.net.Cut("a", "b")
		ticket := c.asks("b")
		meets(c, 3*time.Second)
		if s := c.node("b").Fence().State; s != plan.FenceVoid {
			t.Fatalf("they have met, and the fence is %v", s)
		}
		c.confirmed("b", ticket, time.Now(), false)
		if err := alone(c); !errors.Is(err, ErrNotFenced) {
			t.Fatalf("went alone by a fence that was asked for before they met: %v", err)
		}
		ticket = c.asks("b")
		c.confirmed("b", ticket, time.Now(), true)
		meets(c, 3*time.Second)
		if err := alone(c); !errors.Is(err, ErrNotFenced) {
			t.Fatalf("went alone by a fence that was confirmed before they met: %v", err)
		}
		ticket = c.asks("b")
		c.confirmed("b", ticket, time.Now().Add(-time.Minute), false) // it was off a minute ago
		if err := alone(c); !errors.Is(err, ErrNotFenced) {
			t.Fatalf("went alone because the peer had been off before they met: %v", err)
		}
	})
}

// R24: while a fence is undecided nothing is handed over, by the life that asked
// and by the next.
func TestFencingUndecidedHandsNothingOver(t *testing.T) {
	bubble(t, ArbitrationFencing, func(t *testing.T, c *cluster) {
		c.config = func(cfg *Config) { cfg.FenceTakes = 20 * time.Second }
		c.openAll()
		r := c.primary("a", "r")
		c.net.Cut("a", "b")
		ticket := c.asks("a")
		c.net.Heal("a", "b")
		demote := func() error {
			have, _ := c.node("a").Record("r")
			_, err := c.node("a").Demote(limit(3*time.Second), "r", "a", have.Token)
			return err
		}
		c.eventually(3*time.Second, "a holds the lease again", c.holds("a", "r"))
		if err := demote(); !errors.Is(err, ErrFenceUndecided) {
			t.Fatalf("demoted: %v", err)
		}
		have, _ := c.node("a").Record("r")
		if _, err := c.node("a").GiveUp(limit(3*time.Second), "r", "a", have.Token); !errors.Is(err, ErrFenceUndecided) {
			t.Fatalf("its copy is given up for one that the fence may strike: %v", err)
		}
		if err := c.node("a").Leave(limit(time.Second)); !errors.Is(err, ErrFenceUndecided) {
			t.Fatalf("left: %v", err)
		}
		c.stop("a")
		a := c.open("a")
		a.Hold("r", r.Tenure)
		c.eventually(5*time.Second, "a holds the lease in its next life", c.holds("a", "r"))
		if err := demote(); !errors.Is(err, ErrFenceUndecided) || a.Fence().State != plan.FenceVoid {
			t.Fatalf("demoted in its next life: %v, fence %v", err, a.Fence().State)
		}
		c.confirmed("a", ticket, time.Now(), false)
		c.eventually(21*time.Second, "the fence of the former life has ended", func() bool { return a.Fence().State == plan.FenceNone })
		if err := demote(); err != nil {
			t.Fatal(err)
		}
		c.stop("a")
		if s := c.open("a").Fence().State; s != plan.FenceNone {
			t.Fatalf("a fence that has ended is %v in the next life", s)
		}
	})
}

// The operator forces the Secondary, with no fence at all.
func TestFencingForced(t *testing.T) {
	bubble(t, ArbitrationFencing, func(t *testing.T, c *cluster) {
		c.openAll()
		c.primary("a", "r")
		c.crash("a")
		b := c.node("b")
		if err := b.ForceAlone(limit(5*time.Second), "a burnt"); err != nil {
			t.Fatal(err)
		}
		have, _ := b.Record("r")
		if have.Primary != "a" {
			t.Fatalf("record %+v: an operator's order is no fence", have)
		}
		r := must2(t)(b.Force(limit(time.Second), "r", "b", "a burnt", have.Token))
		must2(t)(b.Promote(limit(time.Second), "r", "b", r.Token))
		a := c.open("a")
		c.eventually(5*time.Second, "a is a voter again", func() bool { return a.Status().State == "follower" && a.Status().Incarnation == 2 })
	})
}

// A graceful stop needs no fence.
func TestFencingLeave(t *testing.T) {
	bubble(t, ArbitrationFencing, func(t *testing.T, c *cluster) {
		c.openAll()
		c.primary("b", "r")
		held := c.alwaysHeld("b", "r")
		if err := c.node("a").Leave(limit(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		c.stop("a")
		time.Sleep(3 * time.Second)
		held()
		if may := c.node("b").Fence().May; !errors.Is(may, ErrNotPair) {
			t.Fatalf("the only voter may fence: %v", may)
		}
	})
}

// powerCut fails every write to a disk from the n-th on, while it is armed.
type powerCut struct {
	n, count int
	armed    bool
}

func (p *powerCut) sync(*os.File) error {
	if !p.armed {
		return nil
	}
	if p.count++; p.count >= p.n {
		return errors.New("power cut")
	}
	return nil
}

// Power is lost between any two steps of going alone after a fence: the node that
// comes back has gone alone, with nobody Primary, or has not.
func TestFencingCrashWhileGoingAlone(t *testing.T) {
	for failAt := 1; failAt < 30; failAt++ {
		dir, done := scratch(t), false
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, dir, ArbitrationFencing, 1)
			defer c.closeAll()
			cut := &powerCut{n: failAt}
			c.config = func(cfg *Config) {
				if cfg.Self == "b" {
					cfg.store.Sync = cut.sync
				}
			}
			c.openAll()
			c.primary("a", "r")
			c.crash("a")
			ticket := c.asks("b")
			c.confirmed("b", ticket, time.Now(), true)
			cut.armed = true
			err := c.node("b").GoAlone(limit(2*time.Second), "a is fenced")
			done = err == nil && cut.count < failAt
			cut.armed = false
			c.crash("b")
			b := c.open("b")
			time.Sleep(2 * time.Second)
			s := b.Status()
			r, read := b.Record("r")
			switch {
			case s.Incarnation == 1 && err == nil:
				t.Errorf("fail at %d: went alone, but not durably", failAt)
			case s.Incarnation == 1 && s.Quorum:
				t.Errorf("fail at %d: not alone, but with a quorum: %+v", failAt, s)
			case s.Incarnation == 2 && (!read || r.Primary != "" || len(s.Fences) != 1):
				t.Errorf("fail at %d: alone with %+v, fences %+v", failAt, r, s.Fences)
			}
		})
		if done {
			return
		}
	}
	t.Error("going alone never got through")
}

// A greeting tells which life of a node it is; a release that does not say tells none.
// What is certain of a fence of this node is the instant at which what was answered last
// was sent.
func TestLifeIsTold(t *testing.T) {
	h := hello{Magic: helloMagic, Version: helloVersion, Node: "beta", Life: strings.Repeat("x", maxLife)}
	if err := h.check(); err != nil {
		t.Error(err)
	}
	h.Life += "x"
	if err := h.check(); !errors.Is(err, ErrWire) {
		t.Errorf("a life of %d bytes: %v", len(h.Life), err)
	}
	l := &Ledger{ctx: t.Context(), cfg: Config{Self: "alpha", Voters: []Voter{{Node: "alpha"}, {Node: "beta"}}}, peers: map[string]*peer{}, clock: func() time.Duration { return time.Hour }}
	l.peers["beta"], l.peers["gamma"] = newPeer(l, "beta"), newPeer(l, "gamma")
	l.peers["gamma"].contact = time.Minute // a witness that is to come fences nobody
	l.toldLife("gamma", "")
	if word, greeted := l.PeerLife(); word != "" || greeted {
		t.Errorf("%q, %v", word, greeted)
	}
	if at, ok := l.Certain(); ok {
		t.Errorf("certain at %v, and nobody was heard", at)
	}
	l.toldLife("beta", "one")
	l.toldLife("beta", "another")
	l.toldLife("gamma", "")
	l.peers["beta"].contact = time.Second
	if word, greeted := l.PeerLife(); word != "another" || !greeted {
		t.Errorf("%q, %v", word, greeted)
	}
	if at, ok := l.Certain(); !ok || at != time.Second {
		t.Errorf("certain at %v, %v", at, ok)
	}
}
