package failover

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hapair/failover/plan"
	"hapair/mirror/state"
)

// unopened is a bubble in which the devices of n1, which is to serve, do not open so
// often, -1 for ever, although its mirror is Primary.
func unopened(t *testing.T, fails int, services bool, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(s *plan.Settings) { s.HasServices = services })
		defer w.close()
		w.nodes["n1"].opensFail = fails
		w.start("n1")
		w.start("n2")
		f(t, w)
	})
}

// Devices that do not open are tried again, and nothing is started without them.
func TestDevicesThatDoNotOpenAtFirst(t *testing.T) {
	unopened(t, 2, true, func(t *testing.T, w *world) {
		w.until(20*time.Second, "n1 serves", func() bool { return w.serves("n1") && !w.nodes["n1"].unopened })
		failed := journal(w, "n1", EntryFailed)
		if len(failed) != 2 || !strings.Contains(failed[0], "no loop device is free") {
			t.Errorf("told: %q\n%s", failed, w.story())
		}
	})
}

// A Primary without services is not settled without its devices either.
func TestDevicesThatDoNotOpenWithoutServices(t *testing.T) {
	unopened(t, 1, false, func(t *testing.T, w *world) {
		n1 := w.nodes["n1"]
		w.until(20*time.Second, "the devices of n1 are there", func() bool { return n1.role == state.Primary && n1.opens == 2 && !n1.unopened })
	})
}

// Where they never open, the peer takes it.
func TestDevicesThatNeverOpen(t *testing.T) {
	unopened(t, -1, true, func(t *testing.T, w *world) {
		w.until(30*time.Second, "n2 serves", func() bool { return w.serves("n2") })
		if n1 := w.nodes["n1"]; n1.opens != 3 || n1.role != state.Secondary {
			t.Errorf("n1 tried %d times, and is %s\n%s", n1.opens, n1.role, w.story())
		}
	})
}
