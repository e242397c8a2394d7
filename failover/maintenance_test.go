package failover

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"hapair/failover/plan"
	"hapair/mirror/state"
)

// inMaintenance is scene with maintenance on.
func inMaintenance(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	scene(t, nil, func(t *testing.T, w *world) {
		w.in(func() { w.marks[MarkMaintenance] = true })
		f(t, w)
	})
}

// An agent that stops in maintenance hands over, and the peer starts the services:
// they are not down on both nodes.
func TestLeaveInMaintenance(t *testing.T) {
	inMaintenance(t, func(t *testing.T, w *world) {
		if err := w.nodes["n1"].ctl.Leave(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		w.until(2*time.Second, "n2 serves", func() bool { return w.serves("n2") })
		if told := journal(w, "n1", EntryFailed); len(told) > 0 {
			t.Errorf("told %q", told)
		}
	})
}

// Nobody can take it: that it is down until somebody does something is told.
func TestLeaveInMaintenanceWithoutPeer(t *testing.T) {
	inMaintenance(t, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.crash("n2")
		w.until(5*time.Second, "n1 goes on alone", func() bool { return !w.rec.Has("n2") })
		if err := n1.ctl.Leave(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		if n1.role != state.Secondary || n1.running != plan.Stopped {
			t.Errorf("left as %v, services %v", n1.role, n1.running)
		}
		if told := journal(w, "n1", EntryFailed); !slices.ContainsFunc(told, func(s string) bool { return strings.Contains(s, "it is down on both nodes") }) {
			t.Errorf("told %q", told)
		}
		w.crash("n1")
		w.start("n1")
		time.Sleep(time.Minute)
		if d := n1.ctl.Status().Decision; d.Code != plan.CodeMaintenance || d.Hint != "hactl maintenance off" {
			t.Errorf("after the restart: %+v", d)
		}
		if err := n1.ctl.Promote(t.Context(), false, ""); err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		w.until(0, "n1 serves", func() bool { return w.serves("n1") })
	})
}

// An agent that crashed takes up its work in maintenance, services and all.
func TestResumeInMaintenance(t *testing.T) {
	inMaintenance(t, func(t *testing.T, w *world) {
		w.crash("n2")
		w.until(5*time.Second, "n1 goes on alone", func() bool { return !w.rec.Has("n2") })
		w.crash("n1")
		w.start("n1")
		w.until(5*time.Second, "n1 serves", func() bool { return w.serves("n1") })
	})
}

// Nothing is moved in maintenance, on either node's word.
func TestSwitchoverInMaintenanceIsRefused(t *testing.T) {
	inMaintenance(t, func(t *testing.T, w *world) {
		for _, name := range []string{"n1", "n2"} {
			var r *Refusal
			err := w.nodes[name].ctl.Switchover(t.Context(), "n2", false)
			if !errors.As(err, &r) || r.Code != plan.CodeMaintenance || r.Hint != "hactl maintenance off, then hactl switchover pg" {
				t.Errorf("asked of %s: %v", name, err)
			}
		}
		time.Sleep(time.Minute)
		w.until(0, "n1 serves", func() bool { return w.serves("n1") && w.nodes["n2"].opens == 0 })
	})
}

// The services that a promotion starts in maintenance are started once. Its end is
// awaited, and told when they do not come up.
func TestPromoteInMaintenance(t *testing.T) {
	inMaintenance(t, func(t *testing.T, w *world) {
		n2 := w.nodes["n2"]
		w.in(func() { n2.startFails, n2.startTakes = 1, 3*time.Second })
		w.crash("n1")
		w.until(5*time.Second, "the lease has lapsed", func() bool { return !w.nodes["n1"].lease.Valid(w.now()) })
		time.Sleep(time.Second)
		var r *Refusal
		err := n2.ctl.Promote(t.Context(), false, "")
		if !errors.As(err, &r) || r.Code != plan.CodeMaintenance || !strings.Contains(r.Text, "(broken)") {
			t.Errorf("services do not come up: %v\n%s", err, w.story())
		}
		time.Sleep(time.Minute)
		w.until(0, "they are left alone", func() bool { return n2.role == state.Primary && n2.running == plan.Broken && n2.starts == 1 })
		if err := n2.ctl.Maintenance(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		w.until(30*time.Second, "n2 serves", func() bool { return w.serves("n2") })
	})
}

// What was stopped for a request that came to nothing is started again.
func TestHeldDemotionInMaintenance(t *testing.T) {
	inMaintenance(t, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.in(func() { n1.holders = []string{"vim (pid 812)"} })
		if err := n1.ctl.Demote(t.Context(), false); err == nil {
			t.Fatal("demoted although it is held")
		}
		w.until(10*time.Second, "n1 serves", func() bool { return w.serves("n1") })
	})
}

// What an administrator stops is not started, and nothing is stopped for him.
func TestServicesAreLeftAloneInMaintenance(t *testing.T) {
	inMaintenance(t, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		starts := n1.starts
		for _, is := range []plan.ServiceState{plan.Stopped, plan.Broken, plan.Partial} {
			w.in(func() { n1.running = is })
			time.Sleep(time.Minute)
			w.until(0, "they are left "+is.String(), func() bool { return n1.running == is && n1.starts == starts && n1.restarts == 0 })
		}
		d := n1.ctl.Status().Decision
		if d.Code != plan.CodeMaintenance || d.Hint != "hactl maintenance off" {
			t.Errorf("%+v", d)
		}
	})
}
