package failover

import (
	"errors"
	"testing"
	"time"

	"hapair/failover/plan"
	"hapair/mirror/state"
)

// Who keeps a service or a device from stopping is ended: the agent goes, and the
// peer serves.
func TestLeaveEndsWhoHolds(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.in(func() { n1.stopFails, n1.holders = 5, []string{"vim (pid 812)"} })
		if err := n1.ctl.Leave(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		w.until(time.Second, "n2 serves", func() bool { return w.serves("n2") })
		if n1.role != state.Secondary || n1.running != plan.Stopped || n1.aborts != 1 {
			t.Errorf("left as %v, services %v, %d aborts", n1.role, n1.running, n1.aborts)
		}
	})
}

// Without a quorum nobody can take it: it is taken down here, at once, and is not
// to stay down.
func TestLeaveWithoutQuorum(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.crash("n2")
		w.setCut("n1", "w", true)
		w.until(5*time.Second, "I/O is frozen", func() bool { return !n1.lease.Valid(w.now()) })
		began := w.now()
		if err := n1.ctl.Leave(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		if took := w.now() - began; took > 10*time.Second {
			t.Errorf("took %v\n%s", took, w.story())
		}
		if n1.role != state.Secondary || n1.running != plan.Stopped {
			t.Errorf("left as %v, services %v", n1.role, n1.running)
		}
		w.setCut("n1", "w", false)
		time.Sleep(20 * time.Second)
		w.until(0, "nothing says that it stays down", func() bool { return !w.marks[MarkDown("pg")] })
	})
}

// What an operator still waits for is answered, and does not hold it up.
func TestLeaveEndsRequests(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n2 := w.nodes["n2"]
		w.in(func() { n2.startTakes = time.Minute })
		ended := make(chan error)
		go func() { ended <- n2.ctl.Switchover(t.Context(), "n2", false) }()
		w.until(5*time.Second, "n2 is Primary", func() bool { return w.rec.Primary == "n2" })
		left := make(chan error)
		go func() { left <- n2.ctl.Leave(t.Context()) }()
		if err := <-ended; !errors.Is(err, ErrStopped) {
			t.Errorf("%v", err)
		}
		if err := <-left; err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		w.until(time.Second, "n1 serves", func() bool { return w.serves("n1") })
	})
}

// Both machines go down at once: they do not hand it to and fro, and who hands over
// does not wait for ever.
func TestBothLeave(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1, n2 := w.nodes["n1"], w.nodes["n2"]
		if err := n2.ctl.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		began, promotions := w.now(), len(w.promos)
		if err := n1.ctl.Leave(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, w.story())
		}
		if took := w.now() - began; took > w.set.HandOverGrace+2*time.Second {
			t.Errorf("took %v\n%s", took, w.story())
		}
		time.Sleep(time.Minute)
		w.until(0, "nobody is Primary", func() bool { return w.rec.Primary == "" && len(w.promos) == promotions })
	})
}

// Authority was lost a moment before: what is being stopped by force is waited for,
// beyond the mirror's demotion.
func TestLeaveAwaitsAbort(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.in(func() { n1.stopTakes = 20 * time.Second })
		w.setCut("n1", "w", true)
		w.setCut("n1", "n2", true)
		w.until(20*time.Second, "n2 serves", func() bool { return w.serves("n2") })
		w.setCut("n1", "w", false)
		w.setCut("n1", "n2", false)
		w.until(5*time.Second, "the devices are aborted", func() bool { return n1.aborts == 1 && n1.running != plan.Stopped })
		if err := n1.ctl.Leave(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		w.until(0, "n1 left nothing behind, n2 serves", func() bool { return n1.running == plan.Stopped && w.serves("n2") })
	})
}

// Authority is lost while the hand-over is under way: its end is not that the ledger
// names the peer.
func TestLeaveAwaitsAbortOfAHandOver(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.in(func() { n1.stopFails, n1.stopTakes = 1, 20*time.Second })
		left := make(chan error)
		go func() { left <- n1.ctl.Leave(t.Context()) }()
		time.Sleep(time.Second)
		w.in(func() { w.rec.Primary, w.rec.Token = "n2", w.rec.Token+1 })
		if err := <-left; err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		w.until(0, "n1 left nothing behind, n2 serves", func() bool { return n1.running == plan.Stopped && n1.aborts == 1 && w.serves("n2") })
	})
}

// An administrator at work runs the services by hand where nobody is Primary: that
// is nothing to wait for.
func TestLeaveBesideServicesRunByHand(t *testing.T) {
	scene(t, nil, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		if err := n1.ctl.Demote(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		w.in(func() { w.marks[MarkMaintenance], n1.running = true, plan.Started })
		time.Sleep(time.Second)
		began := w.now()
		if err := n1.ctl.Leave(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, w.story())
		}
		w.until(0, "they still run", func() bool { return n1.running == plan.Started })
		if took := w.now() - began; took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}
