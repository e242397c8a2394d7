package main

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"hapair/failover"
	"hapair/failover/lease"
	"hapair/failover/plan"
	"hapair/fencing"
	"hapair/fencing/device"
)

// slip is a ledger's word about one fence: asked for at first, and void once the two have met.
type slip struct {
	mu      sync.Mutex
	state   plan.FenceState
	decided chan struct{}
}

func (s *slip) Fence() failover.BallotFence {
	s.mu.Lock()
	defer s.mu.Unlock()
	return failover.BallotFence{State: s.state}
}

func (s *slip) now(state plan.FenceState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

func (s *slip) AskFence() (uint64, error) {
	s.now(plan.FenceAsked)
	return 1, nil
}

func (s *slip) FenceDecided(uint64, bool, time.Time) (bool, error) {
	s.now(plan.FenceNone)
	close(s.decided)
	return false, nil
}

func (*slip) RecordFence(context.Context, string, string, string) error { return nil }

// trigger is a device that is not held back any more once it is pulled.
type trigger struct{ takes time.Duration }

func (trigger) Name() string                  { return "trigger" }
func (trigger) Monitor(context.Context) error { return nil }

func (d trigger) Off(context.Context, device.Order) (device.Outcome, string) {
	time.Sleep(d.takes)
	return device.Unknown, "as told"
}

// arbiter is an agent that has beta fenced by a device.
func arbiter(t *testing.T, d device.Device, timeout time.Duration) (*agent, *slip) {
	t.Helper()
	room, err := fencing.New(fencing.Config{Self: "alpha", Nodes: map[string][]fencing.Level{"beta": {{{Device: d, Timeout: timeout, Monitor: time.Minute}}}}})
	if err != nil {
		t.Fatal(err)
	}
	began, s := time.Now(), &slip{decided: make(chan struct{})}
	clock := lease.Clock(func() time.Duration { return time.Since(began) })
	a := &agent{fence: room, fences: failover.NewFences(failover.FencesConfig{Self: "alpha", Peer: "beta", Ballot: s, Devices: fenceDevices{room},
		Clock: clock, Log: zap.NewNop(), Wake: func(string) {}})}
	if err := a.fences.Fence("a test"); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return a, s
}

// A fence that does not count any more is undecided for as long as its device may strike (R24).
func TestFenceIsDecidedWhenItsDeviceHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		a, s := arbiter(t, trigger{10 * time.Second}, time.Minute)
		s.now(plan.FenceVoid)
		<-s.decided
		if after := time.Since(began); after != 10*time.Second {
			t.Errorf("decided after %v; the device took 10s", after)
		}
		if err := a.stopArbitration(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// The agent stops although an operator waits for his own word.
func TestArbitrationStopsBesideAnOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, s := arbiter(t, fencing.Manual(), 0)
		operator := make(chan fencing.Report, 1)
		go func() { operator <- a.fence.Fence(t.Context(), "beta", "an operator") }()
		synctest.Wait()
		select {
		case err := <-stopped(a):
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("it does not stop")
			a.fence.Close()
		}
		<-s.decided
		if r := <-operator; r.Outcome != fencing.Unknown {
			t.Errorf("%+v", r)
		}
	})
}

func stopped(a *agent) <-chan error {
	done := make(chan error, 1)
	go func() { done <- a.stopArbitration(context.Background()) }()
	return done
}
