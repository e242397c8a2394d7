package ledger

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// apart has both nodes of a pair go on alone, and know of it.
func (c *cluster) apart() {
	c.t.Helper()
	c.openAll()
	c.primary("a", "r")
	c.net.Cut("a", "b")
	a, b := c.node("a"), c.node("b")
	if err := errors.Join(a.GoAlone(limit(5*time.Second), "peer gone"), b.ForceAlone(limit(5*time.Second), "forced")); err != nil {
		c.t.Fatal(err)
	}
	if err := a.Release(limit(time.Second), "r"); err != nil {
		c.t.Fatal(err)
	}
	c.net.Heal("a", "b")
	c.eventually(5*time.Second, "both know", func() bool { return a.SplitFrom() == "b" && b.SplitFrom() == "a" })
}

// Both sides of a split brain are given up at once, as where two policies name one node
// each: a ledger is left all the same, with the records in it.
func TestOfTwoThatSurrenderOneIsLeft(t *testing.T) {
	for _, later := range []time.Duration{0, 1, 2, 3, 5, 10, 20, 50} {
		t.Run(fmt.Sprint(later*time.Millisecond), func(t *testing.T) {
			bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
				c.apart()
				var errs [2]error
				done := make(chan bool)
				go func() {
					errs[0] = c.node("a").Surrender(limit(5*time.Second), "the other is right")
					close(done)
				}()
				time.Sleep(later * time.Millisecond)
				errs[1] = c.node("b").Surrender(limit(5*time.Second), "the other is right")
				<-done
				if errs[0] == nil && errs[1] == nil {
					t.Fatal("both have surrendered")
				}
				if a, b := c.node("a").id(), c.node("b").id(); a.Joining && b.Joining {
					t.Fatalf("neither has a ledger: %v", errs)
				}
				if errs[0] != nil && errs[1] != nil {
					if err := c.node("b").Surrender(limit(5*time.Second), "once more"); err != nil {
						t.Fatal(err)
					}
				}
				c.eventually(10*time.Second, "one group", func() bool { return c.node("a").Status().Of == 2 && c.node("b").Status().Of == 2 })
				for _, n := range []string{"a", "b"} {
					if r, _ := c.node(n).Record("r"); r.Primary != "a" {
						t.Errorf("%s has %+v", n, r)
					}
				}
			})
		})
	}
}

// Who has no group of its own, or is about to give it up, is nobody to surrender to;
// nor is one that is of the same history by now.
func TestSurrenderToNobody(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.apart()
		a, b := c.node("a"), c.node("b")
		for name, change := range map[string]func(*hello){
			"joining":      func(h *hello) { h.Joining, h.Voters = true, nil },
			"surrendering": func(h *hello) { h.Surrendering = true },
			"blank":        func(h *hello) { h.Blank = true },
			"stopping":     func(h *hello) { h.Left = true },
		} {
			h := b.greeting()
			if err := a.maySurrender(&h); err != nil {
				t.Fatalf("to the other side: %v", err)
			}
			change(&h)
			if err := a.maySurrender(&h); !errors.Is(err, ErrGivesUp) {
				t.Errorf("to one that is %s: %v", name, err)
			}
		}
		if err := b.Surrender(limit(5*time.Second), "a is right"); err != nil {
			t.Fatal(err)
		}
		c.eventually(5*time.Second, "b rejoined", func() bool { return a.Status().Of == 2 && b.Status().State == "follower" })
		for _, n := range []*Ledger{a, b} {
			if err := n.Surrender(limit(5*time.Second), "a policy that is late"); !errors.Is(err, ErrNotSplit) {
				t.Errorf("%s surrendered to one of its own group: %v", n.cfg.Self, err)
			}
		}
	})
}
