package failover

import (
	"testing"
	"time"

	"hapair/failover/plan"
	"hapair/mirror/state"
)

// demotedWhileCutOff: n1 was demoted by force while it was cut off, and the peer
// has taken over, long ago.
func demotedWhileCutOff(t *testing.T, w *world) {
	t.Helper()
	n1 := w.nodes["n1"]
	w.setCut("n1", "w", true)
	w.setCut("n1", "n2", true)
	w.until(5*time.Second, "I/O is frozen", func() bool { return !n1.lease.Valid(w.now()) })
	if err := n1.ctl.Demote(t.Context(), true); err != nil {
		t.Fatalf("%v\n%s", err, w.story())
	}
	w.until(20*time.Second, "n2 serves", func() bool { return w.serves("n2") })
	w.setCut("n1", "w", false)
	w.setCut("n1", "n2", false)
	time.Sleep(time.Hour)
}

// n1 was demoted by force while cut off; the peer has taken over. Long after, the
// peer dies: n1 takes over, as ever.
func TestForcedDemotionIsOverWithATakeover(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		demotedWhileCutOff(t, w)
		w.until(0, "n2 serves still", func() bool { return w.serves("n2") && w.rec.Has("n1") })
		if w.marks[MarkDown("pg")] {
			t.Errorf("marked as down")
		}
		w.crash("n2")
		w.until(30*time.Second, "n1 takes over", func() bool { return w.serves("n1") })
	})
}

// The same with a switchover back that is asked for on n2.
func TestForcedDemotionIsOverWithASwitchover(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		demotedWhileCutOff(t, w)
		err := w.nodes["n2"].ctl.Switchover(t.Context(), "n1", false)
		t.Log(err)
		w.until(30*time.Second, "n1 serves", func() bool { return w.serves("n1") })
	})
}

// What comes to nothing does not take the demotion back.
func TestRefusedRequestDoesNotTakeADemotionBack(t *testing.T) {
	for name, ask := range map[string]func(*testing.T, *Controller) error{
		"switchover": func(t *testing.T, c *Controller) error { return c.Switchover(t.Context(), "n2", false) },
	} {
		t.Run(name, func(t *testing.T) {
			scene(t, nil, func(t *testing.T, w *world) {
				n1 := w.nodes["n1"]
				w.crash("n2")
				w.setCut("n1", "w", true)
				w.until(5*time.Second, "I/O is frozen", func() bool { return !n1.lease.Valid(w.now()) })
				if err := n1.ctl.Demote(t.Context(), true); err != nil {
					t.Fatalf("%v\n%s", err, w.story())
				}
				err := ask(t, n1.ctl)
				if err == nil {
					t.Fatal("no refusal")
				}
				t.Log(err)
				w.setCut("n1", "w", false)
				time.Sleep(20 * time.Second)
				w.until(0, "it stays down", func() bool { return n1.role == state.Secondary && n1.running == plan.Stopped })
			})
		})
	}
}

// The ledger is slow for a moment, as between two leaders: a second for a change.
func TestForcedDemotionWithASlowLedger(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.in(func() { n1.slowMark = time.Second })
		if err := n1.ctl.Demote(t.Context(), true); err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		w.in(func() { n1.slowMark = 0 })
		time.Sleep(20 * time.Second)
		w.until(0, "it stays down", func() bool { return !w.serves("n1") && !w.serves("n2") })
	})
}

// The quorum is back while what waited is being stopped.
func TestQuorumComesBackDuringAForcedDemotion(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.crash("n2")
		w.setCut("n1", "w", true)
		w.until(5*time.Second, "I/O is frozen", func() bool { return !n1.lease.Valid(w.now()) })
		w.in(func() { n1.stopTakes = time.Second })
		go func() {
			time.Sleep(500 * time.Millisecond)
			w.setCut("n1", "w", false)
		}()
		if err := n1.ctl.Demote(t.Context(), true); err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		time.Sleep(20 * time.Second)
		w.until(0, "it stays down", func() bool { return !w.serves("n1") })
	})
}

// The replica of this node has not heard yet that an earlier demotion was taken back
// when the next one is asked for.
func TestDemotionBesideAReplicaThatLags(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.in(func() { n1.lags = MarkDown("pg") })
		if err := n1.ctl.Demote(t.Context(), false); err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		w.in(func() { n1.lags = "" })
		time.Sleep(20 * time.Second)
		w.until(0, "it stays down", func() bool { return !w.serves("n1") && !w.serves("n2") })
	})
}
