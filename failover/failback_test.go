package failover

import (
	"testing"
	"time"

	"hapair/failover/plan"
)

func backTo(node string) func(*plan.Settings) {
	return func(s *plan.Settings) { s.Preferred, s.FailbackAfter = node, 10*time.Second }
}

// The Primary crashes: the other takes over, and gives back when the first has
// been fit for the time. The preferred node stays Primary.
func TestFailback(t *testing.T) {
	scene(t, backTo("n1"), func(t *testing.T, w *world) {
		w.crash("n1")
		w.until(5*time.Second, "n2 serves", func() bool { return w.serves("n2") })
		w.start("n1")
		time.Sleep(8 * time.Second)
		w.until(0, "n2 still serves", func() bool { return w.serves("n2") })
		w.until(10*time.Second, "n1 serves again", func() bool { return w.serves("n1") })
		before := len(w.promos)
		time.Sleep(time.Minute)
		w.until(0, "and keeps it", func() bool { return w.serves("n1") && len(w.promos) == before })
	})
}

// Nothing goes back by itself without being told to.
func TestNoFailbackByDefault(t *testing.T) {
	scene(t, func(s *plan.Settings) { s.Preferred = "n1" }, func(t *testing.T, w *world) {
		moveTo(t, w, "n2")
		time.Sleep(time.Minute)
		w.until(0, "n2 still serves", func() bool { return w.serves("n2") })
	})
}

func moveTo(t *testing.T, w *world, node string) {
	t.Helper()
	if err := w.nodes["n1"].ctl.Switchover(t.Context(), node, false); err != nil {
		t.Fatalf("%v\n%s", err, w.story())
	}
	w.until(5*time.Second, node+" serves", func() bool { return w.serves(node) })
}

// Where an operator moved it, it stays, until he moves it back, or it comes back
// for another reason.
func TestAnOperatorsMoveStays(t *testing.T) {
	scene(t, backTo("n1"), func(t *testing.T, w *world) {
		moveTo(t, w, "n2")
		time.Sleep(time.Minute)
		w.until(0, "n2 still serves", func() bool { return w.serves("n2") && w.marks["stay/pg"] })
		w.crash("n2")
		w.until(10*time.Second, "n1 serves, and nothing is noted", func() bool { return w.serves("n1") && !w.marks["stay/pg"] })
	})
}

// In maintenance nothing moves; the time counts anew afterwards.
func TestNoFailbackInMaintenance(t *testing.T) {
	scene(t, backTo("n1"), func(t *testing.T, w *world) {
		w.crash("n1")
		w.until(5*time.Second, "n2 serves", func() bool { return w.serves("n2") })
		w.start("n1")
		w.in(func() { w.marks[MarkMaintenance] = true })
		time.Sleep(time.Minute)
		w.until(0, "n2 still serves", func() bool { return w.serves("n2") })
		if err := w.nodes["n2"].ctl.Maintenance(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8 * time.Second)
		w.until(0, "n2 serves yet", func() bool { return w.serves("n2") })
		w.until(10*time.Second, "n1 serves", func() bool { return w.serves("n1") })
	})
}

// A preferred node on which it fails again and again gets it back ever more
// seldom: no ping-pong.
func TestFailbackIsPutOff(t *testing.T) {
	short := func(s *plan.Settings) {
		backTo("n1")(s)
		s.Failures = plan.FailurePolicy{Threshold: 1, Within: 5 * time.Second, Forget: 5 * time.Second}
	}
	scene(t, short, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		var at []time.Duration
		for range 3 {
			w.in(func() { n1.running = plan.Broken })
			w.until(10*time.Second, "n2 serves", func() bool { return w.serves("n2") })
			from := w.now()
			w.until(time.Hour, "n1 serves again", func() bool { return w.serves("n1") })
			at = append(at, w.now()-from)
		}
		for i := 1; i < len(at); i++ {
			if at[i] < at[i-1]+5*time.Second {
				t.Errorf("went back after %v", at)
			}
		}
	})
}
