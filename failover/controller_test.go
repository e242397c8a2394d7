package failover

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"hapair/failover/plan"
	"hapair/mirror/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scene runs f in a bubble with both nodes up and n1 serving.
func scene(t *testing.T, change func(*plan.Settings), f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, change)
		defer w.close()
		w.start("n1")
		w.start("n2")
		w.until(5*time.Second, "n1 serves", func() bool { return w.serves("n1") })
		f(t, w)
	})
}

func promoted(w *world, name string) (n int) {
	w.in(func() {
		for _, p := range w.promos {
			if p == name {
				n++
			}
		}
	})
	return n
}

func journal(w *world, name string, kind EntryKind) (out []string) {
	for _, e := range w.nodes[name].ctl.Journal().Since(0) {
		if e.Kind == kind {
			out = append(out, e.String())
		}
	}
	return out
}

func TestPowerLossOfThePrimary(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		w.crash("n1")
		took := w.until(3*time.Second, "n2 serves", func() bool { return w.serves("n2") })
		if took > time.Second {
			t.Errorf("it took %v", took)
		}
		if n := promoted(w, "n2"); n != 1 {
			t.Errorf("n2 was promoted %d times\n%s", n, w.story())
		}
		lines := journal(w, "n2", EntryPromoted)
		if len(lines) != 1 || !strings.HasPrefix(lines[0], "promoted pg on n2, token ") || !strings.Contains(lines[0], ": detect ") || !strings.Contains(lines[0], ", services ") {
			t.Errorf("the line operators love: %q", lines)
		}
		t.Logf("%q after %v", lines, took)
		w.start("n1") // it comes back: nobody moves, it is brought in line
		w.until(5*time.Second, "n1 in sync", func() bool { return w.rec.Has("n1") })
		time.Sleep(time.Minute)
		w.until(0, "n2 still serves", func() bool { return w.serves("n2") && w.nodes["n1"].role == state.Secondary })
		if n := promoted(w, "n1"); n != 1 {
			t.Errorf("n1 was promoted %d times\n%s", n, w.story())
		}
	})
}

func TestSwitchoverThereAndBack(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		if err := w.nodes["n1"].ctl.Switchover(t.Context(), "n2", false); err != nil {
			t.Fatal(err)
		}
		w.until(time.Second, "n2 serves", func() bool { return w.serves("n2") })
		if lines := journal(w, "n1", EntryDemoted); len(lines) != 1 {
			t.Errorf("journal of n1: %q", lines)
		}
		// asked of the node that is not Primary: it asks the peer
		if err := w.nodes["n1"].ctl.Switchover(t.Context(), "n1", false); err != nil {
			t.Fatal(err)
		}
		w.until(0, "n1 serves", func() bool { return w.serves("n1") })
		w.in(func() { w.nodes["n2"].deaf = true }) // the hint is lost: a moment later, by the record
		if err := w.nodes["n1"].ctl.Switchover(t.Context(), "n2", false); err != nil {
			t.Fatal(err, w.story())
		}
		w.until(time.Second, "n2 serves", func() bool { return w.serves("n2") })
	})
}

func TestSwitchoverIsRefusedBeforeAnythingStops(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		w.crash("n2")
		err := w.nodes["n1"].ctl.Switchover(t.Context(), "n2", false)
		var r *Refusal
		if !errors.As(err, &r) || r.Code != plan.CodePeerCannot || r.Hint == "" {
			t.Fatalf("%v", err)
		}
		if err := w.nodes["n1"].ctl.Switchover(t.Context(), "n9", false); !errors.As(err, &r) || r.Code != CodeNode {
			t.Fatalf("%v", err)
		}
		w.until(0, "n1 serves", func() bool { return w.serves("n1") && w.nodes["n1"].starts == 1 })
	})
}

func TestFailedServiceIsRetriedThenHandedOverThenReported(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1, n2 := w.nodes["n1"], w.nodes["n2"]
		w.in(func() { n1.startFails, n1.running, n1.svcFailed = 1, plan.Broken, "killed" })
		w.until(10*time.Second, "n1 serves after a retry", func() bool { return w.serves("n1") && n1.starts == 3 })
		time.Sleep(11 * time.Minute) // forgotten
		w.in(func() { n1.startFails, n1.running, n1.starts = -1, plan.Broken, 0 })
		w.until(20*time.Second, "n2 serves", func() bool { return w.serves("n2") })
		if n1.starts < 2 || n1.starts > 3 {
			t.Errorf("n1 tried %d times\n%s", n1.starts, w.story())
		}
		before := len(w.promos)
		w.in(func() { n2.startFails, n2.running = -1, plan.Broken })
		time.Sleep(5 * time.Minute)
		if d := n2.ctl.Status().Decision; d.Code != plan.CodeFailures || d.Hint == "" {
			t.Errorf("n2 reports %q %q\n%s", d.Code, d.Because, w.story())
		}
		if len(w.promos) != before {
			t.Errorf("thrown back and forth: %v\n%s", w.promos, w.story())
		}
		w.in(func() { n2.startFails = 0 })
		w.until(11*time.Minute, "n2 serves once the failures are forgotten", func() bool { return w.serves("n2") })
	})
}

func TestFailedDiskHandsOverAtOnce(t *testing.T) {
	for name, deaf := range map[string]bool{"told": false, "the word is lost": true} {
		t.Run(name, func(t *testing.T) {
			scene(t, nil, func(t *testing.T, w *world) {
				n1, n2 := w.nodes["n1"], w.nodes["n2"]
				w.in(func() { n1.disk, n2.deaf = state.Failed, deaf })
				if took := w.until(10*time.Second, "n2 serves", func() bool { return w.serves("n2") }); took > 2*time.Second {
					t.Errorf("it took %v\n%s", took, w.story())
				}
				w.until(0, "n1 rests", func() bool { return n1.role == state.Secondary && n1.running == plan.Stopped })
			})
		})
	}
}

func TestLostAuthorityAborts(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		w.setCut("n1", "n2", true)
		w.setCut("n1", "w", true)
		w.until(2*time.Second, "n2 serves", func() bool { return w.serves("n2") })
		n1 := w.nodes["n1"]
		w.until(0, "n1 is frozen but not torn down", func() bool {
			return n1.role == state.Primary && n1.running == plan.Started && !n1.lease.Valid(w.now())
		})
		w.setCut("n1", "w", false)
		w.until(time.Second, "n1 lets go", func() bool { return n1.role == state.Secondary && n1.running == plan.Stopped && n1.aborts == 1 })
		w.setCut("n1", "n2", false)
		time.Sleep(time.Minute)
		w.until(0, "n2 still serves", func() bool { return w.serves("n2") })
	})
}

func TestLostAuthorityBreaksOffAStart(t *testing.T) {
	for name, ignore := range map[string]bool{"that obeys": false, "that hangs": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				defer w.close()
				n1 := w.nodes["n1"]
				n1.startTakes, n1.startIgnore = 20*time.Second, ignore
				w.start("n1")
				w.start("n2")
				w.until(5*time.Second, "n1 starts its services", func() bool { return n1.starts == 1 })
				w.setCut("n1", "n2", true)
				w.setCut("n1", "w", true)
				w.until(3*time.Second, "n2 serves", func() bool { return w.serves("n2") })
				w.setCut("n1", "w", false)
				w.until(3*time.Second, "n1 lets go", func() bool { return n1.role == state.Secondary && n1.running == plan.Stopped })
				time.Sleep(time.Minute) // the hanging start ends at last, and is stopped again
				w.until(0, "nothing runs on n1", func() bool { return n1.role == state.Secondary && n1.running == plan.Stopped })
			})
		})
	}
}

func TestTheSideWithTheWitnessGoesOn(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		w.setCut("n1", "n2", true)
		time.Sleep(10 * time.Second)
		w.until(0, "n1 goes on", func() bool { return w.serves("n1") && !w.rec.Has("n2") })
		w.setCut("n1", "n2", false)
		w.until(time.Second, "n2 in sync", func() bool { return w.rec.Has("n2") })
		if len(w.promos) != 1 {
			t.Errorf("promotions: %v", w.promos)
		}
	})
}

func TestAgentRestartTakesUpItsWork(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		n1.cancel()
		<-n1.dead
		w.in(func() { n1.role, n1.tenure, n1.held = state.Secondary, 0, 0 }) // services still run above a frozen device
		w.start("n1")
		w.until(time.Second, "n1 serves", func() bool { return w.serves("n1") })
		if n1.starts != 1 || promoted(w, "n2") != 0 {
			t.Errorf("services started %d times, promotions %v", n1.starts, w.promos)
		}
	})
}

func TestColdStartWithOneMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.close()
		w.start("n2")
		time.Sleep(20 * time.Second)
		if len(w.promos) != 0 {
			t.Fatalf("promoted after 20 s: %v", w.promos)
		}
		w.until(15*time.Second, "n2 serves after the grace", func() bool { return w.serves("n2") })
	})
}

func TestPowerLossOfBoth(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		w.crash("n1")
		w.crash("n2")
		time.Sleep(time.Minute)
		w.in(func() { w.rec.InSync = []string{"n1", "n2"} })
		w.start("n2")
		time.Sleep(time.Second)
		w.start("n1")
		w.until(5*time.Second, "n1 serves, the last Primary", func() bool { return w.serves("n1") })
		if promoted(w, "n2") != 0 {
			t.Errorf("promotions: %v\n%s", w.promos, w.story())
		}
	})
}

func manual(s *plan.Settings) { s.Arbitration = plan.Manual }

func TestManualSecondaryWaitsForTheOperator(t *testing.T) {
	scene(t, manual, func(t *testing.T, w *world) {
		w.crash("n1")
		time.Sleep(5 * time.Minute)
		if promoted(w, "n2") != 0 {
			t.Fatalf("promotions: %v", w.promos)
		}
		c := w.nodes["n2"].ctl
		if d := c.Status().Decision; d.Code != plan.CodeManual || !strings.Contains(d.Hint, "--force") {
			t.Errorf("it says %q, %q", d.Because, d.Hint)
		}
		if len(c.Losses()) == 0 {
			t.Error("nothing is said about what may be lost")
		}
		var r *Refusal
		if err := c.Promote(t.Context(), false, ""); !errors.As(err, &r) || r.Code != plan.CodeNoQuorum {
			t.Errorf("promote: %v", err)
		}
		if err := c.Promote(t.Context(), true, ""); !errors.As(err, &r) {
			t.Errorf("promote --force without a reason: %v", err)
		}
		if err := c.Promote(t.Context(), true, "n1 burnt down"); err != nil {
			t.Fatal(err, w.story())
		}
		w.until(0, "n2 serves", func() bool { return w.serves("n2") })
	})
}

func TestManualPrimaryGoesOnAlone(t *testing.T) {
	scene(t, manual, func(t *testing.T, w *world) {
		w.crash("n2")
		w.until(2*time.Second, "n1 goes on alone", func() bool { return w.alone == "n1" && w.serves("n1") })
		if n := w.nodes["n1"]; n.starts != 1 || n.aborts != 0 {
			t.Errorf("services were touched: %d starts, %d aborts", n.starts, n.aborts)
		}
	})
}

func TestDemote(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.in(func() { n1.holders = []string{"vim (pid 812)"} })
		err := n1.ctl.Demote(t.Context(), false)
		var busy Busy
		if !errors.As(err, &busy) || busy.Holders()[0] != "vim (pid 812)" {
			t.Fatalf("%v", err)
		}
		w.until(5*time.Second, "n1 takes its services up again", func() bool { return w.serves("n1") && len(w.marks) == 0 })
		if err := n1.ctl.Demote(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		w.until(0, "it stays down", func() bool { return w.rec.Primary == "" && n1.role == state.Secondary })
		var r *Refusal
		if err := w.nodes["n2"].ctl.Promote(t.Context(), false, ""); err != nil {
			t.Fatal(err)
		}
		w.until(0, "n2 serves", func() bool { return w.serves("n2") && len(w.marks) == 0 })
		if err := n1.ctl.Demote(t.Context(), false); !errors.As(err, &r) || r.Code != CodeNode {
			t.Errorf("demote of a Secondary: %v", err)
		}
		if err := n1.ctl.Promote(t.Context(), false, ""); !errors.As(err, &r) || r.Code != plan.CodeHolder {
			t.Errorf("promote beside a Primary: %v", err)
		}
		if err := n1.ctl.Promote(t.Context(), true, "because"); !errors.As(err, &r) || r.Code != plan.CodeHolder {
			t.Errorf("promote --force beside a living Primary: %v", err)
		}
	})
}

func TestStandbyAndMaintenance(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1, n2 := w.nodes["n1"].ctl, w.nodes["n2"].ctl
		if err := n1.Standby(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		w.until(2*time.Second, "n2 serves", func() bool { return w.serves("n2") })
		if err := n1.Standby(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if err := n2.Maintenance(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		w.crash("n2")
		time.Sleep(time.Minute)
		if d := n1.Status().Decision; d.Code != plan.CodeMaintenance {
			t.Errorf("in maintenance: %q\n%s", d.Because, w.story())
		}
		if err := n1.Maintenance(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		w.until(time.Second, "n1 serves", func() bool { return w.serves("n1") })
	})
}

func TestLeave(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		if err := w.nodes["n1"].ctl.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.until(time.Second, "n2 serves", func() bool { return w.serves("n2") })
		w.crash("n1")
		if err := w.nodes["n2"].ctl.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		w.until(0, "nobody is Primary", func() bool { return w.rec.Primary == "" })
	})
}

func TestRequestsOneAtATimeAndDropped(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n2 := w.nodes["n2"]
		w.in(func() { n2.startTakes = time.Minute })
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		ended := make(chan error)
		go func() { ended <- n2.ctl.Switchover(ctx, "n2", false) }()
		time.Sleep(time.Second)
		var r *Refusal
		if err := n2.ctl.Promote(t.Context(), false, ""); !errors.As(err, &r) || r.Code != CodePending {
			t.Errorf("a second request: %v", err)
		}
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &r) || r.Code != CodeTimeout {
			t.Errorf("out of time: %v", err)
		}
		w.until(2*time.Minute, "n2 serves nevertheless", func() bool { return w.serves("n2") })
	})
}

func TestStepWithoutEffectIsNotRepeatedInALoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.close()
		n1 := w.nodes["n1"]
		n1.lies = true
		w.start("n1")
		w.start("n2")
		time.Sleep(30 * time.Second)
		if n1.opens < 2 || n1.opens > 20 {
			t.Errorf("opened %d times in 30 s\n%s", n1.opens, w.story())
		}
		w.in(func() { n1.lies = false })
		w.until(15*time.Second, "n1 serves", func() bool { return w.serves("n1") })
	})
}

func TestForceThatTheLedgerRefusesIsAnswered(t *testing.T) {
	scene(t, manual, func(t *testing.T, w *world) {
		w.crash("n1")
		time.Sleep(5 * time.Second)
		refusal := errors.New("n1 goes on under a higher incarnation")
		w.in(func() { w.nodes["n2"].noAlone = refusal })
		var step *StepError
		if err := w.nodes["n2"].ctl.Promote(t.Context(), true, "lost"); !errors.Is(err, refusal) || !errors.As(err, &step) || step.Step != plan.ForceAlone {
			t.Errorf("%v", err)
		}
	})
}
