package failover

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"hapair/failover/lease"
	"hapair/failover/plan"
)

// parted runs a story in a pair without a witness, n1 its Primary, in which n2 has come to
// a ledger of its own, with higher tokens, while the links were cut. Both think that they
// are the right one.
func parted(t *testing.T, f func(t *testing.T, w *world, n2 *node)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(s *plan.Settings) { s.Arbitration, s.Preferred = plan.Manual, "n1" })
		defer w.close()
		w.start("n1")
		w.start("n2")
		w.until(5*time.Second, "n1 serves", func() bool { return w.serves("n1") && w.rec.Has("n2") })
		w.setCut("n1", "n2", true)
		w.until(5*time.Second, "n1 goes on alone", func() bool { return w.alone == "n1" && !w.rec.Has("n2") })
		n2 := w.nodes["n2"]
		own := plan.Record{Token: 90, Tenure: 80, InSync: []string{"n2"}}
		w.in(func() { n2.known = own })
		n2.ctl.Wake("a test")
		synctest.Wait()
		if r := n2.ctl.record(); r.Token != own.Token {
			t.Fatalf("n2 knows %+v", r)
		}
		f(t, w, n2)
	})
}

// discards has a node give its ledger up for the other's.
func (n *node) discards() {
	n.w.in(func() { n.known, n.read = plan.Record{}, false })
	n.ctl.Discarded()
}

// Whoever gave its ledger up for one with lower tokens goes by that one.
func TestDiscardedTakesOver(t *testing.T) {
	for name, move := range map[string]func(w *world) error{
		"switchover": func(w *world) error { return w.nodes["n1"].ctl.Switchover(w.t.Context(), "n2", false) },
		"by force": func(w *world) error {
			w.crash("n1")
			time.Sleep(2 * time.Second)
			ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
			defer cancel()
			return w.nodes["n2"].ctl.Promote(ctx, true, "n1 burnt")
		},
	} {
		t.Run(name, func(t *testing.T) {
			parted(t, func(t *testing.T, w *world, n2 *node) {
				n2.discards()
				w.in(func() { w.alone = "" })
				w.setCut("n1", "n2", false)
				w.until(5*time.Second, "n2 is in sync", func() bool { return w.rec.Has("n2") })
				time.Sleep(time.Second)
				if err := move(w); err != nil {
					t.Fatalf("%v\n%s", err, w.story())
				}
				w.until(time.Second, "n2 serves", func() bool { return w.serves("n2") })
			})
		})
	}
}

// What the old ledger granted, said and had asked is forgotten; what failed, and what an
// operator wants, is not.
func TestDiscardedForgets(t *testing.T) {
	parted(t, func(t *testing.T, w *world, n2 *node) {
		c := n2.ctl
		c.mu.Lock()
		m := &c.mu.memory
		m.tenure, m.lapse, m.hinted, m.owed, m.lastPrimary = 80, lapse{tenure: 80, lapsed: true}, true, true, "n2"
		m.hint = plan.Hint{Take: true, From: "n1", Until: time.Hour}
		m.failures.Add(w.now(), "", "a test")
		m.discard()
		kept := m.failures.Worst(w.now()).Count == 1
		gone := m.record.Token == 0 && !m.recordKnown && m.tenure == 0 && m.lapse == lapse{} && !m.hinted && !m.owed && m.lastPrimary == "" && !m.hint.Take
		c.mu.Unlock()
		if !kept || !gone {
			t.Fatalf("failures kept: %t, the rest forgotten: %t", kept, gone)
		}
		if err := c.Hinted(Hint{Kind: Take, Resource: "pg", From: "n1", Token: 4}); err != nil || !c.View().Hint.Take {
			t.Fatalf("a hand-over by a lower token counts as old: %v", err)
		}
	})
}

// meanwhile is a node whose ledger is discarded between what it was asked and its answer.
type meanwhile struct{ *node }

func (m meanwhile) Record(res string) (plan.Record, bool) {
	r, ok := m.node.Record(res)
	m.discards()
	return r, ok
}

func (m meanwhile) Demote(context.Context, string, string, lease.Token) (plan.Record, error) {
	m.discards()
	return plan.Record{Token: 91, InSync: []string{"n2"}}, nil
}

func (m meanwhile) Lapsed(context.Context, string) (bool, error) {
	m.discards()
	return true, nil
}

// An answer of the ledger that was discarded meanwhile is no answer.
func TestDiscardedMeanwhile(t *testing.T) {
	for name, ask := range map[string]func(ctx context.Context, c *Controller, v plan.View) error{
		"read": func(_ context.Context, c *Controller, _ plan.View) error { c.look(); return ErrOvertaken },
		"changed": func(ctx context.Context, c *Controller, v plan.View) error {
			return c.changeRecord(ctx, v, plan.LedgerDemote, "")
		},
		"lapsed": func(ctx context.Context, c *Controller, v plan.View) error { return c.askLapsed(ctx, v) },
	} {
		t.Run(name, func(t *testing.T) {
			parted(t, func(t *testing.T, w *world, n2 *node) {
				needs := n2.ctl.needs
				needs.Ledger, needs.Leases = meanwhile{n2}, meanwhile{n2}
				cfg := n2.ctl.cfg
				cfg.Needs = needs
				c, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				w.in(func() { n2.ctl = c })
				if err := ask(t.Context(), c, plan.View{Ledger: plan.Ledger{Known: true, Record: plan.Record{Token: 90, Tenure: 80}}}); !errors.Is(err, ErrOvertaken) {
					t.Error(err)
				}
				c.mu.Lock()
				defer c.mu.Unlock()
				if c.mu.recordKnown || c.mu.record.Token != 0 || c.mu.lapse.lapsed {
					t.Errorf("it knows %+v, lapsed %+v", c.mu.record, c.mu.lapse)
				}
			})
		})
	}
}
