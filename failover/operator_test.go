package failover

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hapair/failover/plan"
	"hapair/mirror/state"
)

// After a mended failure the operator decides, on whichever node he is.
func TestSwitchoverBackAfterFailures(t *testing.T) {
	for _, asked := range []string{"n1", "n2"} {
		t.Run("asked on "+asked, func(t *testing.T) {
			scene(t, nil, func(t *testing.T, w *world) {
				n1 := w.nodes["n1"]
				w.in(func() { n1.startFails, n1.running = -1, plan.Broken })
				w.until(20*time.Second, "n2 serves", func() bool { return w.serves("n2") })
				time.Sleep(10 * time.Second)
				if hint := failureHint(n1.ctl); hint != "mend the service, then hactl switchover pg --to n1" {
					t.Errorf("n1 says: %q", hint)
				}
				w.in(func() { n1.startFails, n1.running = 0, plan.Stopped })
				if err := w.nodes[asked].ctl.Switchover(t.Context(), "n1", false); err != nil {
					t.Fatalf("%v\n%s", err, w.story())
				}
				w.until(2*time.Second, "n1 serves", func() bool { return w.serves("n1") })
				time.Sleep(time.Minute)
				w.until(0, "n1 still serves", func() bool { return w.serves("n1") })
			})
		})
	}
}

func failureHint(c *Controller) string {
	for _, r := range c.Explain() {
		if r.Code == plan.CodeFailures {
			return r.Hint
		}
	}
	return ""
}

// That the record changed between the look and the step is no failure.
func TestOvertakenIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.close()
		w.nodes["n1"].late = 2
		w.start("n1")
		w.start("n2")
		w.until(5*time.Second, "n1 serves", func() bool { return w.serves("n1") })
		if n := len(journal(w, "n1", EntryOvertaken)); n != 2 {
			t.Errorf("overtaken %d times\n%s", n, w.story())
		}
		if failed := journal(w, "n1", EntryFailed); len(failed) > 0 {
			t.Errorf("%q", failed)
		}
	})
}

// A step that fails while its operator waits is that operator's answer.
func TestFailureIsAnswered(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		w.in(func() { w.nodes["n1"].stopFails = 1 })
		if err := w.nodes["n1"].ctl.Switchover(t.Context(), "n2", false); err == nil {
			t.Fatal("switched over")
		}
		w.until(time.Second, "n1 serves", func() bool { return w.serves("n1") })
		for _, e := range w.nodes["n1"].ctl.Journal().Since(0) {
			if e.Kind == EntryFailed && !e.Answered {
				t.Errorf("%s", e)
			}
		}
	})
}

func TestPromoteAfterFailuresTriesAtOnce(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.crash("n2")
		w.in(func() { n1.startFails, n1.running = -1, plan.Broken })
		w.until(time.Minute, "n1 waits long", func() bool { return n1.starts > 4 && n1.running == plan.Broken })
		w.in(func() { n1.startFails = 0 })
		if err := n1.ctl.Promote(t.Context(), false, ""); err != nil {
			t.Fatal(err)
		}
		w.until(0, "n1 serves", func() bool { return w.serves("n1") })
	})
}

// Asked for by force, on either node, whoever uses the resource is not waited for.
func TestForcedSwitchover(t *testing.T) {
	for _, asked := range []string{"n1", "n2"} {
		t.Run("asked on "+asked, func(t *testing.T) {
			scene(t, nil, func(t *testing.T, w *world) {
				n1 := w.nodes["n1"]
				w.in(func() { n1.stopFails, n1.holders = 1, []string{"vim (pid 812)"} })
				if err := w.nodes[asked].ctl.Switchover(t.Context(), "n2", false); err == nil {
					t.Fatal("switched over without force")
				}
				w.until(5*time.Second, "n1 serves", func() bool { return w.serves("n1") })
				if err := w.nodes[asked].ctl.Switchover(t.Context(), "n2", true); err != nil {
					t.Fatalf("%v\n%s", err, w.story())
				}
				w.until(2*time.Second, "n2 serves", func() bool { return w.serves("n2") && n1.aborts == 1 })
			})
		})
	}
}

func TestTheReasonReachesTheOneWhoAsked(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1, n2 := w.nodes["n1"], w.nodes["n2"]
		asked := func(want string) {
			t.Helper()
			began := w.now()
			err := n2.ctl.Switchover(t.Context(), "n2", false)
			var r *Refusal
			if !errors.As(err, &r) || !strings.HasPrefix(r.Text, "n1 does not hand over: ") || !strings.Contains(r.Text, want) {
				t.Errorf("%v\n%s", err, w.story())
			}
			if took := w.now() - began; took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
		}
		w.in(func() { n1.stopFails = 1 })
		asked("target is busy")
		w.until(5*time.Second, "n1 serves again", func() bool { return w.serves("n1") })
		w.in(func() { n2.suspect = true; w.rec.InSync = []string{"n1", "n2"} })
		asked("n2 crashed")
	})
}

// Without a quorum a demotion by force releases what waits at once; the ledger is
// told when it can be, and then nobody is promoted by himself.
func TestForcedDemotionWithoutAQuorum(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.crash("n2")
		w.setCut("n1", "w", true)
		w.until(5*time.Second, "I/O is frozen", func() bool { return !n1.lease.Valid(w.now()) })
		began := w.now()
		if err := n1.ctl.Demote(t.Context(), true); err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		if took := w.now() - began; took > time.Second || n1.role != state.Secondary || n1.running != plan.Stopped {
			t.Fatalf("after %v it is %s, services %s\n%s", took, n1.role, n1.running, w.story())
		}
		w.setCut("n1", "w", false)
		w.until(10*time.Second, "the ledger is told", func() bool { return w.rec.Primary == "" && w.marks[MarkDown("pg")] })
		w.start("n2")
		time.Sleep(20 * time.Second)
		w.until(0, "it stays down", func() bool { return w.rec.Primary == "" && n1.role == state.Secondary })
		if err := n1.ctl.Promote(t.Context(), false, ""); err != nil {
			t.Fatal(err)
		}
		w.until(0, "n1 serves", func() bool { return w.serves("n1") })
	})
}
