package deadman

import (
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hapair/failover/lease"
)

// The agent puts nothing back that the helper has just taken away, and leaves nothing
// away that the helper leaves in peace: both have the same instant.
func TestMayHoldUntilItIsDue(t *testing.T) {
	l := lease.Lease{Tenure: 1, Until: time.Second}
	for _, now := range []time.Duration{0, l.Until - Lead - 1, l.Until - Lead, l.Until - 1, l.Until, 2 * l.Until} {
		var w watch
		w.hold(at(0, "10.0.0.1/24"))
		gone, _, _ := w.due(now, func(int) time.Duration { return l.Until })
		if MayHold(l, now) == (len(gone) > 0) {
			t.Errorf("%s before the end: may hold %v, due %v", l.Until-now, MayHold(l, now), gone)
		}
	}
	if MayHold(lease.Lease{Until: time.Hour}, 0) {
		t.Error("held without a tenure")
	}
}

// What is back though no new lease allows it is taken away again, and the helper does not
// end before; under a new lease it is left alone.
func TestServerTakesWhatIsBack(t *testing.T) {
	now, end, there := time.Hour, time.Minute, map[string]bool{"10.0.0.1/24": true, "10.0.0.2/24": true}
	var did []string
	s := server{clock: func() time.Duration { return now }, until: func(int) time.Duration { return end }, log: io.Discard, silence: func(Held) {},
		there:  func(h Held) bool { return there[h.Prefix.String()] },
		remove: func(h Held) error { delete(there, h.Prefix.String()); did = append(did, h.Prefix.String()); return nil }}
	s.watch.hold(at(0, "10.0.0.1/24"))
	s.watch.hold(at(1, "10.0.0.2/24"))
	turn := func(want []string, wantArmed bool, wantWait time.Duration) {
		t.Helper()
		did = nil
		if armed, wait := s.turn(); !slices.Equal(did, want) || armed != wantArmed || wait != wantWait {
			t.Fatalf("took %q, armed %v, wait %s; want %q, %v, %s", did, armed, wait, want, wantArmed, wantWait)
		}
	}
	turn([]string{"10.0.0.1/24", "10.0.0.2/24"}, true, again)
	turn(nil, false, again)
	there["10.0.0.2/24"] = true
	turn(nil, true, 0)
	turn([]string{"10.0.0.2/24"}, true, again)
	turn(nil, false, again)
	end, there["10.0.0.1/24"] = 2*now, true // a new lease
	turn(nil, true, end-Lead-now)
}

// An agent that lives, and whose lease nobody renews, as on a node that is cut off: it does not put
// back what was taken away. What somebody else puts there is taken away too.
func TestAddressOfAnAgentWithoutLease(t *testing.T) {
	s, lock := newStation(t), filepath.Join(t.TempDir(), "lock")
	cmd, _, end := s.holder(lock, "")
	if err := cmd.Process.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	s.await("the address is gone", func() bool { return !s.has() })
	for over := time.Now().Add(10 * again); time.Now().Before(over); time.Sleep(time.Millisecond) {
		if s.has() {
			t.Fatal("the address is back without a lease")
		}
	}
	for range 2 {
		if err := s.h.AddrAdd(s.link(), s.addr()); err != nil {
			t.Fatal(err)
		}
		s.await("the address is gone again", func() bool { return !s.has() })
	}
	end()
	if err := cmd.Wait(); err != nil {
		t.Errorf("an orderly end: %v", err)
	}
}
