package failover

import (
	"context"
	"errors"
	"testing"
	"time"

	"hapair/failover/plan"
	"hapair/mirror/state"
)

// A Secondary that cannot stop a service keeps its session with the Primary, and takes
// over when that dies; or by force.
func TestServiceThatDoesNotStopOnTheSecondary(t *testing.T) {
	stuck := func(t *testing.T, w *world) *node {
		n2 := w.nodes["n2"]
		w.in(func() { n2.running, n2.forcedFails = plan.Broken, true })
		n2.ctl.Wake("found running")
		time.Sleep(time.Minute)
		w.until(0, "n2 is let be", func() bool { return n2.aborts == 0 && n2.role == state.Secondary && w.serves("n1") })
		return n2
	}
	scene(t, nil, func(t *testing.T, w *world) {
		stuck(t, w)
		w.crash("n1")
		w.until(10*time.Second, "n2 serves", func() bool { return w.serves("n2") })
	})
	scene(t, nil, func(t *testing.T, w *world) {
		n2 := stuck(t, w)
		w.crash("n1")
		w.setCut("n2", "w", true)
		time.Sleep(10 * time.Second)
		if err := n2.ctl.Promote(t.Context(), true, "n1 is broken"); err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		w.until(0, "n2 serves", func() bool { return w.serves("n2") })
	})
}

// Services that take minutes to stop are handed over in the end, whoever was asked, and
// whoever still waits for it.
func TestSwitchoverOfSlowServices(t *testing.T) {
	for _, asked := range []string{"n1", "n2"} {
		t.Run("asked on "+asked, func(t *testing.T) {
			back := func(s *plan.Settings) { s.Preferred, s.FailbackAfter = "n1", time.Minute }
			scene(t, back, func(t *testing.T, w *world) {
				n1 := w.nodes["n1"]
				w.in(func() { n1.orderly = 3 * time.Minute })
				if err := w.nodes[asked].ctl.Switchover(t.Context(), "n2", false); err != nil {
					t.Fatalf("%v\n%s", err, w.story())
				}
				w.until(2*time.Second, "n2 serves", func() bool { return w.serves("n2") })
				time.Sleep(5 * time.Minute)
				w.until(0, "n2 serves, as an operator wanted", func() bool { return w.serves("n2") && w.marks[MarkStay("pg")] })
			})
			scene(t, back, func(t *testing.T, w *world) {
				n1 := w.nodes["n1"]
				w.in(func() { n1.orderly = 3 * time.Minute })
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var r *Refusal
				if err := w.nodes[asked].ctl.Switchover(ctx, "n2", false); !errors.As(err, &r) || r.Code != CodeTimeout {
					t.Fatalf("%v\n%s", err, w.story())
				}
				w.until(3*time.Minute, "n2 serves", func() bool { return w.serves("n2") })
				if n1.starts != 1 {
					t.Errorf("%d starts on n1", n1.starts)
				}
				time.Sleep(5 * time.Minute)
				w.until(0, "n2 serves, as an operator wanted", func() bool { return w.serves("n2") && w.marks[MarkStay("pg")] })
			})
		})
	}
}

// A demotion that nobody waits for any more is one nevertheless: it stays down.
func TestDemotionThatNobodyWaitsFor(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.in(func() { n1.orderly = 3 * time.Minute })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := n1.ctl.Demote(ctx, false); err == nil {
			t.Fatal("demoted")
		}
		w.until(3*time.Minute, "nobody is Primary", func() bool { return w.rec.Primary == "" && n1.running == plan.Stopped })
		time.Sleep(time.Minute)
		w.until(0, "it stays down", func() bool { return w.rec.Primary == "" && w.marks[MarkDown("pg")] })
	})
}

// What nobody waits for gives way: to who changes his mind, and to force, which does not
// wait for the stop that was begun in order.
func TestRequestThatNobodyWaitsForGivesWay(t *testing.T) {
	left := func(t *testing.T, w *world) *node {
		n1 := w.nodes["n1"]
		w.in(func() { n1.orderly = time.Hour })
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := n1.ctl.Switchover(ctx, "n2", false); err == nil {
			t.Fatal("switched over")
		}
		return n1
	}
	scene(t, nil, func(t *testing.T, w *world) {
		n1, began := left(t, w), w.now()
		if err := n1.ctl.Switchover(t.Context(), "n2", true); err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		if took := w.now() - began; took > 10*time.Second {
			t.Errorf("took %v\n%s", took, w.story())
		}
		w.until(2*time.Second, "n2 serves", func() bool { return w.serves("n2") })
	})
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := left(t, w)
		w.in(func() { n1.orderly = 0 })
		if err := n1.ctl.Demote(t.Context(), true); err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		w.until(0, "nobody is Primary", func() bool { return w.rec.Primary == "" && n1.running == plan.Stopped })
	})
}

// A service that needs its whole time-out to fail reaches the peer like one that fails
// at once.
func TestSlowFailuresReachThePeer(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.in(func() { n1.running, n1.startFails, n1.startTakes = plan.Broken, -1, 11*time.Minute })
		n1.ctl.Wake("service down")
		w.until(time.Hour, "n2 serves", func() bool { return w.serves("n2") })
	})
}

// What an administrator stops in maintenance is held against nobody.
func TestStoppedInMaintenanceIsNoFailure(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		if err := n1.ctl.Maintenance(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			for _, s := range []plan.ServiceState{plan.Broken, plan.Started} {
				w.in(func() { n1.running = s })
				n1.ctl.Wake("an administrator")
				time.Sleep(time.Second)
			}
		}
		if f := n1.ctl.View().Self.Failed; f.Count != 0 {
			t.Errorf("%+v", f)
		}
	})
}
