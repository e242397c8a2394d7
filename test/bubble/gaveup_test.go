package bubble

import (
	"context"
	"testing"
	"time"

	"hapair/failover/lease"
	"hapair/mirror"
)

// splitBrain has both nodes of a pair serve apart, and meet again: the Secondary was forced.
func (w *World) splitBrain(primary, secondary string) {
	w.t.Helper()
	w.fabric.cutLink(primary, secondary)
	w.keepsServing(primary, 5*time.Second)
	w.diverges()
	w.force(secondary)
	if err := w.get(secondary).control.Demote(w.t.Context(), false); err != nil {
		w.t.Fatal(err)
	}
	w.force(secondary) // more tokens than a switchover by the other side catches up with
	w.await(5*time.Second, secondary+" serves too", func() string { return map[bool]string{false: "it does not"}[w.get(secondary).serves()] })
	time.Sleep(time.Second) // both write
	w.fabric.healAll()
	w.await(10*time.Second, "both know of the split brain", func() string {
		for _, n := range dataNodes {
			if w.get(n).ledger.SplitFrom() == "" || !w.diverged(n) {
				return n + " does not"
			}
		}
		return ""
	})
}

// givesUp has a node give up its side, as the operator does it, and returns the token
// that its ledger had.
func (w *World) givesUp(node string) (had lease.Token) {
	w.t.Helper()
	w.notef("%s gives up", node)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b := w.get(node)
	err := b.control.Demote(ctx, false)
	if err == nil {
		had = w.token(node)
		err = b.ledger.Surrender(ctx, "the other side is right")
	}
	if err == nil {
		err = b.mirror.DiscardData(ctx, mirror.DiscardOptions{WithoutImage: true})
	}
	if err != nil {
		w.t.Fatalf("seed %d, at %v: %s gives up: %v", w.seed, w.now(), node, err)
	}
	b.mirror.Connect()
	w.get(other(node)).mirror.Connect()
	w.await(again, "all is well", w.ailing)
	w.await(again, "two voters", func() string {
		for _, n := range dataNodes {
			if s := w.get(n).ledger.Status(); s.Of != 2 || !s.Quorum {
				return n + ": " + s.State
			}
		}
		return ""
	})
	return had
}

// Who gave up its side of a split brain has the other's ledger, in which the tokens are
// lower than those it had seen: it takes over all the same, in order and by force.
func TestWhoGaveUpTakesOver(t *testing.T) {
	for name, move := range map[string]func(w *World, from, to string) error{
		"switchover": func(w *World, _, _ string) error { return w.switchover() },
		"its Primary dies": func(w *World, from, to string) error {
			w.crash(from, true)
			time.Sleep(5 * time.Second)
			w.force(to)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			runWell(t, manualPair(), func(w *World) {
				w.splitBrain(alpha, beta)
				if had, now := w.givesUp(beta), w.token(beta); now >= had {
					w.t.Fatalf("the token was %d and is %d: nothing is tested", had, now)
				}
				if err := move(w, alpha, beta); err != nil {
					w.t.Fatal(err)
				}
				w.takesOver(beta, 5*time.Second)
			})
		})
	}
}

// diverged reports whether the copy of a node has parted from the other one.
func (w *World) diverged(node string) bool {
	v := w.get(node).mirror.View()
	return v.Diverged()
}

// token is what a node's ledger says.
func (w *World) token(node string) lease.Token {
	r, _ := w.get(node).ledger.Record(resource)
	return r.Token
}
