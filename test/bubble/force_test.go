package bubble

import (
	"context"
	"testing"
	"time"
)

// force has the operator promote a node, whatever the ledger says.
func (w *World) force(node string) {
	w.t.Helper()
	w.notef("%s is forced", node)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := w.get(node).control.Promote(ctx, true, "the others burnt"); err != nil {
		w.t.Fatalf("seed %d, at %v: force %s: %v", w.seed, w.now(), node, err)
	}
}

// comeBack boots nodes one after the other and waits until all is well, with
// three voters of the incarnation that was forced.
func (w *World) comeBack(nodes ...string) {
	w.t.Helper()
	for _, n := range nodes {
		w.boot(n)
		time.Sleep(2 * time.Second)
	}
	w.await(again, "all is well", w.ailing)
	w.await(again, "three voters", func() string {
		for _, n := range allNodes {
			if s := w.get(n).ledger.Status(); s.Of != 3 || !s.Quorum || s.Incarnation != 2 || s.SplitBrain != "" {
				return n + ": " + s.State
			}
		}
		return ""
	})
}

// The Primary and the witness are gone: the Secondary does not go on by itself,
// and does when it is forced. Both come back, in either order.
func TestTheSecondaryIsForced(t *testing.T) {
	for _, witnessFirst := range []bool{false, true} {
		story(t, func(w *World, p, s string) {
			w.crash(witness, true)
			w.crash(p, true)
			time.Sleep(10 * time.Second)
			if got := w.primary(); got != "" {
				t.Errorf("%s serves without a quorum", got)
			}
			w.force(s)
			w.takesOver(s, time.Second)
			if witnessFirst {
				w.comeBack(witness, p)
			} else {
				w.comeBack(p, witness)
			}
			w.keepsServing(s, time.Second)
		})
	}
}

// The Secondary and the witness are gone: the Primary is frozen until it is forced.
func TestAFrozenPrimaryIsForced(t *testing.T) {
	story(t, func(w *World, p, s string) {
		w.crash(witness, true)
		w.crash(s, true)
		time.Sleep(10 * time.Second)
		w.force(p)
		w.keepsServing(p, 2*time.Second)
		w.comeBack(s, witness)
		w.keepsServing(p, time.Second)
	})
}

// All power is lost and one node comes back alone, whichever it is: it has read
// no ledger, and is forced.
func TestOneNodeIsForcedAfterAllPowerIsLost(t *testing.T) {
	for _, primary := range []bool{false, true} {
		story(t, func(w *World, p, s string) {
			for _, n := range []string{witness, s, p} {
				w.crash(n, true)
			}
			time.Sleep(time.Second)
			back, other := s, p
			if primary {
				back, other = p, s
			}
			w.boot(back)
			time.Sleep(10 * time.Second)
			w.force(back)
			w.takesOver(back, time.Second)
			w.comeBack(other, witness)
			w.keepsServing(back, time.Second)
		})
	}
}

// Forced while it was cut off from two that went on: both serve, which is what
// a force may bring about, both say so, and neither discards what the other has.
func TestForcedBesideALiveMajority(t *testing.T) {
	Run(t, 1, func(w *World) {
		w.await(60*time.Second, "all is well at first", w.ailing)
		p := w.primary()
		s := other(p)
		w.fabric.isolate(s)
		w.keepsServing(p, 5*time.Second)
		w.diverges()
		w.force(s)
		w.await(2*time.Second, s+" serves too", func() string { return map[bool]string{false: "it does not"}[w.get(s).serves()] })
		time.Sleep(time.Second) // both write
		w.fabric.healAll()
		w.await(10*time.Second, "both know", func() string {
			for _, n := range dataNodes {
				if w.get(n).ledger.SplitFrom() == "" {
					return n + " does not"
				}
			}
			return ""
		})
		time.Sleep(10 * time.Second)
		for _, n := range dataNodes {
			if !w.get(n).serves() {
				t.Errorf("%s does not serve any more", n)
			}
			if v := w.get(n).mirror.View(); v.Rival == nil {
				t.Errorf("%s does not know what the other has", n)
			}
		}
	})
}
