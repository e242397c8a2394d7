package systemd

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// pass lets time go by, with looks in between that tell nothing of interest.
func (l *look) pass(now *time.Duration, d time.Duration) {
	*now += d
	l.looked = *now
}

// A watchdog of 40 s: loops may stand still for 20 s, and it is petted every 10 s.
func testLook(now *time.Duration, turned map[string]*time.Duration) *look {
	l := &look{manager: &Manager{log: zap.NewNop(), watchdog: 40 * time.Second}, began: *now, petted: *now, looked: *now}
	l.Clock, l.Status = func() time.Duration { return *now }, func() string { return "well" }
	for _, name := range []string{"heartbeat", "ledger"} {
		l.Loops = append(l.Loops, Loop{Name: name, Turned: func() time.Duration { return *turned[name] }})
	}
	return l
}

func TestPettedWhileAllLoopsTurn(t *testing.T) {
	now := time.Hour
	beat, led := time.Duration(0), time.Duration(0) // neither has come round yet
	l := testLook(&now, map[string]*time.Duration{"heartbeat": &beat, "ledger": &led})
	expect := func(want ...string) {
		t.Helper()
		if got := l.turn(); !slices.Equal(got, want) {
			t.Errorf("at %v: told %q, want %q", now, got, want)
		}
	}
	expect("STATUS=well")
	l.pass(&now, 10*time.Second)
	expect("WATCHDOG=1")
	beat, led = now, now
	l.pass(&now, 9*time.Second)
	expect()
	l.pass(&now, 1)
	led = now
	l.pass(&now, time.Second)
	expect("WATCHDOG=1")

	l.pass(&now, 10*time.Second) // the heartbeat has stood still for 21 s
	expect("STATUS=does not go on: heartbeat")
	l.pass(&now, time.Minute)
	expect("STATUS=does not go on: heartbeat, ledger")
	l.pass(&now, time.Hour)
	expect()
	beat, led = now, now
	expect("STATUS=well", "WATCHDOG=1")
}

// A loop that never comes round is found as well.
func TestLoopThatNeverTurned(t *testing.T) {
	now, beat, led := time.Hour, time.Duration(0), time.Duration(0)
	l := testLook(&now, map[string]*time.Duration{"heartbeat": &beat, "ledger": &led})
	l.pass(&now, 21*time.Second)
	if got := l.turn(); !slices.Equal(got, []string{"STATUS=does not go on: heartbeat, ledger"}) {
		t.Errorf("%q", got)
	}
}

// When this whole process has stood still, or the machine slept, no loop is to blame.
func TestAllStoodStill(t *testing.T) {
	now, beat, led := time.Hour, time.Hour, time.Hour
	l := testLook(&now, map[string]*time.Duration{"heartbeat": &beat, "ledger": &led})
	now += time.Minute
	if got := l.turn(); !slices.Equal(got, []string{"STATUS=well", "WATCHDOG=1"}) {
		t.Errorf("%q", got)
	}
	for range 21 { // but if they do not go on with it
		now += time.Second
		l.turn()
	}
	if l.status != "does not go on: heartbeat, ledger" {
		t.Errorf("%q", l.status)
	}
}

// Without a watchdog nobody is petted, but it is seen.
func TestNoWatchdog(t *testing.T) {
	now, beat, led := time.Hour, time.Hour, time.Hour
	l := testLook(&now, map[string]*time.Duration{"heartbeat": &beat, "ledger": &led})
	l.manager.watchdog = 0
	l.pass(&now, time.Minute)
	if got := l.turn(); !slices.Equal(got, []string{"STATUS=does not go on: heartbeat, ledger"}) {
		t.Errorf("%q", got)
	}
	beat, led = now, now
	if got := l.turn(); !slices.Equal(got, []string{"STATUS=well"}) {
		t.Errorf("%q", got)
	}
}

func TestWatchTellsTheManager(t *testing.T) {
	l := newListener(t)
	synctest.Test(t, func(t *testing.T) {
		m := &Manager{log: zap.NewNop(), watchdog: 4 * time.Second}
		began := time.Now()
		clock := func() time.Duration { return time.Since(began) }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			m.Watch(ctx, Watch{Clock: clock, Loops: []Loop{{"x", clock}}, Status: func() string { return "well" }})
		}()
		time.Sleep(1500 * time.Millisecond)
		cancel()
		<-ended
	})
	if got := l.next(); got != "STATUS=well\nWATCHDOG=1" {
		t.Errorf("%q", got)
	}
}
