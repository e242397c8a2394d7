package failover

import (
	"testing"
	"time"

	"hapair/failover/lease"
	"hapair/failover/plan"
)

// What fails seldom is restarted in place for ever; what fails often within the
// window moves.
func TestRestartInPlace(t *testing.T) {
	seldom := func(s *plan.Settings) {
		s.Failures = plan.FailurePolicy{Threshold: 2, Within: time.Minute, Forget: time.Hour}
	}
	scene(t, seldom, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		for i := range 4 {
			w.in(func() { n1.running = plan.Broken })
			n1.ctl.Wake("service down")
			w.until(2*time.Second, "n1 serves again", func() bool { return w.serves("n1") && n1.restarts == i+1 })
			time.Sleep(61 * time.Second)
		}
		w.in(func() { n1.running = plan.Broken })
		n1.ctl.Wake("service down")
		w.until(2*time.Second, "restarted", func() bool { return w.serves("n1") && n1.restarts == 5 })
		w.in(func() { n1.running = plan.Broken })
		n1.ctl.Wake("service down")
		w.until(5*time.Second, "n2 serves", func() bool { return w.serves("n2") })
		if f := n1.ctl.Failures()["systemd:postgresql.service"]; f.Count != 2 || f.Limit != 2 {
			t.Errorf("n1 remembers %+v", f)
		}
		if f := w.nodes["n2"].ctl.View().Peer.Failed; f.Limit != 2 || f.Until-f.At != time.Hour {
			t.Errorf("n2 was told %+v", f)
		}
	})
}

// An operator who has mended what failed on both has it tried again at once, from
// either node.
func TestCleanup(t *testing.T) {
	for _, asked := range []string{"n1", "n2"} {
		t.Run("asked on "+asked, func(t *testing.T) {
			scene(t, nil, func(t *testing.T, w *world) {
				n1, n2 := w.nodes["n1"], w.nodes["n2"]
				w.in(func() { n1.startFails, n2.startFails, n1.running = -1, -1, plan.Broken })
				w.until(time.Minute, "n2 failed too", func() bool { return n2.starts >= 3 })
				time.Sleep(20 * time.Second)
				w.in(func() { n1.startFails, n2.startFails = 0, 0 })
				if found, err := w.nodes[asked].ctl.Cleanup(t.Context(), ""); err != nil || !found {
					t.Fatalf("%t, %v", found, err)
				}
				w.until(2*time.Second, "n2 serves", func() bool { return w.serves("n2") })
				for _, n := range []*node{n1, n2} {
					if v := n.ctl.View(); v.Self.Failed.Count+v.Peer.Failed.Count != 0 {
						t.Errorf("%s remembers %+v %+v", n.name, v.Self.Failed, v.Peer.Failed)
					}
				}
			})
		})
	}
	scene(t, nil, func(t *testing.T, w *world) {
		w.setCut("n1", "n2", true)
		if found, err := w.nodes["n1"].ctl.Cleanup(t.Context(), "mount:pg"); err == nil || found {
			t.Errorf("nothing to forget and nobody to tell: %t, %v", found, err)
		}
	})
}

// A restart that cannot stop what somebody uses counts as no failure.
func TestNotStoppedIsNoFailure(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.in(func() { n1.running, n1.notStopped = plan.Broken, true })
		n1.ctl.Wake("service down")
		w.until(3*time.Second, "n1 serves", func() bool { return w.serves("n1") })
		if f := n1.ctl.View().Self.Failed; f.Count != 1 {
			t.Errorf("%+v", f)
		}
	})
}

// A peer of an earlier release tells neither how many failures it takes nor for how long.
func TestFailuresOfAnEarlierRelease(t *testing.T) {
	p := plan.FailurePolicy{Threshold: 3, Within: time.Minute, Forget: time.Hour}
	f := Hint{Failures: 3, FailedAgo: time.Second}.failed(time.Minute, p)
	if f.Limit != 3 || f.At != 59*time.Second || f.Until != f.At+time.Hour {
		t.Errorf("%+v", f)
	}
}

// A node that stood still finds its addresses gone, because its lease is: that is no
// failure of theirs here, or a node that stands still now and then would be one on which
// services fail.
func TestWhatGoesWithTheLeaseIsNoFailure(t *testing.T) {
	for until, want := range map[time.Duration]int{time.Second: 0, 3 * time.Second: 1} {
		m := memory{failures: plan.NewFailureLog(plan.FailurePolicy{Threshold: 3, Within: time.Minute, Forget: time.Hour}, nil)}
		v := plan.View{Now: 500 * time.Millisecond}
		v.Lease.Own = lease.Lease{Resource: "pg", Tenure: 2, Until: until}
		v.Services.State = plan.Started
		m.follow(&v, "")
		v.Now, v.Services.State, v.Services.FailedName = 2*time.Second, plan.Broken, "address:192.168.1.50/24"
		m.follow(&v, "")
		if f := m.failures.Worst(v.Now); f.Count != want {
			t.Errorf("lease until %v: %+v", until, f)
		}
	}
}
