package bubble

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hapair/failover/plan"
	"hapair/mirror"
)

// forgets takes a node's ledger away while it is down.
func (w *World) forgets(node string) {
	w.t.Helper()
	w.notef("%s loses its ledger", node)
	if err := os.RemoveAll(filepath.Join(w.dir, node, "ledger")); err != nil {
		w.t.Fatal(err)
	}
}

// Every ledger is lost, after some tokens: the operator forces the copy that served
// last, under the first tokens of a new ledger, and the other one follows it.
func TestEveryLedgerIsLost(t *testing.T) {
	s := usual()
	s.preferred = alpha
	runWell(t, s, func(w *World) {
		for range 2 {
			if err := w.switchover(); err != nil {
				w.t.Fatal(err)
			}
			w.await(again, "all is well", w.ailing)
		}
		p := w.primary()
		w.crash(other(p), true)
		w.keepsServing(p, 5*time.Second) // it has written alone
		w.hush(true)
		time.Sleep(100 * time.Millisecond)
		for _, n := range []string{p, witness} {
			if err := w.stop(n); err != nil {
				w.t.Fatal(err)
			}
		}
		for _, n := range allNodes {
			w.forgets(n)
		}
		w.diverges() // what is counted begins anew
		w.hush(false)
		w.switchOn(allNodes...)
		time.Sleep(10 * time.Second)
		if got := w.primary(); got != "" {
			w.t.Fatalf("%s serves by itself", got)
		}
		w.force(p)
		w.takesOver(p, 5*time.Second)
		w.await(again, "all is well", w.ailing)
		time.Sleep(time.Second) // both have told so
		if err := w.switchover(); err != nil {
			w.t.Fatal(err)
		}
		w.takesOver(other(p), 5*time.Second)
	})
}

// One side of a split brain loses its ledger instead of giving it up in order. Its disk
// has seen higher tokens than the other side counts: that one serves on.
func TestWhoLostItsLedgerGivesUp(t *testing.T) {
	runWell(t, manualPair(), func(w *World) {
		w.splitBrain(alpha, beta)
		if err := w.get(beta).control.Demote(w.t.Context(), false); err != nil {
			w.t.Fatal(err)
		}
		had := w.token(beta)
		w.crash(beta, true)
		w.forgets(beta)
		w.boot(beta)
		w.await(again, "beta has the other ledger", func() string {
			if r, _ := w.get(beta).ledger.Record(resource); r.Primary != alpha {
				return r.Primary
			}
			return ""
		})
		if now := w.token(beta); now >= had {
			w.t.Fatalf("the token was %d and is %d: nothing is tested", had, now)
		}
		w.await(again, "beta knows that the copies have parted", func() string {
			if w.diverged(beta) {
				return ""
			}
			w.get(alpha).mirror.Connect() // it stands alone since it has met beta's copy
			return "it does not"
		})
		if err := w.get(beta).mirror.DiscardData(w.t.Context(), mirror.DiscardOptions{WithoutImage: true}); err != nil {
			w.t.Fatal(err)
		}
		w.get(beta).mirror.Connect()
		w.get(alpha).mirror.Connect()
		w.await(again, "all is well", func() string {
			if v := w.get(alpha).mirror.View(); v.Deposed {
				return "alpha was deposed"
			}
			return w.ailing()
		})
		if got := w.primary(); got != alpha {
			w.t.Fatalf("%q serves", got)
		}
	})
}

// A node is started alone, with a log that goes on beyond its snapshot: what it tells the
// operator, before he forces it, is that it does not know what is current, and what its
// log says.
func TestSnapshotIsNotTheRecord(t *testing.T) {
	runWell(t, manualPair(), func(w *World) {
		w.crash(beta, true)
		w.keepsServing(alpha, 5*time.Second) // it goes alone, and has a snapshot that names it
		w.boot(beta)
		w.await(again, "all is well", w.ailing)
		w.await(again, "beta votes", func() string { return map[bool]string{false: "it does not"}[w.get(beta).ledger.Status().Of == 2] })
		if err := w.switchover(); err != nil {
			w.t.Fatal(err)
		}
		w.await(again, "all is well", w.ailing)
		w.crash(alpha, true)
		w.keepsServing(beta, 5*time.Second)
		w.crash(beta, true)
		w.boot(alpha)
		time.Sleep(5 * time.Second)
		if r, _ := w.get(alpha).ledger.Record(resource); r.Primary != alpha {
			w.t.Fatalf("the snapshot says %+v: nothing is tested", r)
		}
		var said []string
		for _, r := range w.get(alpha).control.Explain() {
			if r.Code == plan.CodeLoss {
				said = append(said, r.Text)
			}
		}
		if text := strings.Join(said, "\n"); !strings.Contains(text, "what is current is not known") || !strings.Contains(text, "Primary was "+beta) {
			w.t.Errorf("what may be lost: %q", said)
		}
		w.recover(again)
	})
}

// The peer dies at the instant at which the ledger has promoted this node, before the
// device is open: it goes on all the same.
func TestPeerDiesAtThePromotion(t *testing.T) {
	for _, after := range []time.Duration{0, 100, 500, 1000, 2000, 5000} {
		t.Run((after * time.Microsecond).String(), func(t *testing.T) {
			runWell(t, manualPair(), func(w *World) {
				was := w.token(beta)
				done := make(chan error, 1)
				go func() { done <- w.switchover() }()
				for { // the ledger is looked at often
					if r, _ := w.get(beta).ledger.Record(resource); r.Token > was && r.Primary == beta {
						break
					}
					time.Sleep(20 * time.Microsecond)
				}
				time.Sleep(after * time.Microsecond)
				w.crash(alpha, true)
				w.takesOver(beta, 10*time.Second)
				<-done
				w.recover(again)
				w.still()
			})
		})
	}
}
