package service

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Limits bound one attempt each. 0: the default.
type Limits struct {
	Start   time.Duration
	Stop    time.Duration // orderly or by force
	Monitor time.Duration
}

// DefaultLimits bound a service that says nothing of its own.
func DefaultLimits() Limits {
	return Limits{Start: 90 * time.Second, Stop: 60 * time.Second, Monitor: 20 * time.Second}
}

func (l Limits) negative() bool { return l.Start < 0 || l.Stop < 0 || l.Monitor < 0 }

func (l Limits) orDefault() Limits {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	to := DefaultLimits()
	set(&l.Start, to.Start)
	set(&l.Stop, to.Stop)
	set(&l.Monitor, to.Monitor)
	return l
}

// ErrTimeout is wrapped by the error of an attempt that took too long.
var ErrTimeout = errors.New("took too long")

// heed is how long a call may take to give up once its context has ended: a
// command is given settle twice before it counts as unkillable.
const heed = 3 * settle

// Item is one service of a group.
type Item struct {
	Movable
	Label  string // what it is called after its kind; "": as the Movable says
	Limits Limits
	// Parallel starts and stops it together with the one before, on which it does
	// not depend.
	Parallel bool
}

// slot is an Item with what its group keeps of it. It belongs to whoever has
// the group's turn.
type slot struct {
	m          Movable
	kind, name string
	limits     Limits
	misses     int   // checks in a row that could not tell
	calls      calls // of the Movable
}

func newSlot(i Item) *slot {
	s := &slot{m: i.Movable, name: i.Movable.Name(), limits: i.Limits.orDefault()}
	s.kind, _, _ = strings.Cut(s.name, ":")
	if i.Label != "" {
		s.name = s.kind + ":" + i.Label
	}
	return s
}

func (s *slot) start(ctx context.Context) error {
	s.misses = 0
	return s.attempt(ctx, "start", s.limits.Start, s.m.Start)
}

func (s *slot) stop(ctx context.Context) error {
	return s.attempt(ctx, "stop", s.limits.Stop, s.m.Stop)
}

// stopForced is stop where the service cannot be forced.
func (s *slot) stopForced(ctx context.Context) error {
	if f, ok := s.m.(Forcible); ok {
		return s.attempt(ctx, "forced stop", s.limits.Stop, f.StopForced)
	}
	return s.stop(ctx)
}

// monitor does not wait for an earlier call: whoever wants to stop waits for
// the turn.
func (s *slot) monitor(ctx context.Context) (running bool, err error) {
	if s.calls.busy() {
		return false, &StuckError{What: "an earlier call on", Path: s.name, Cause: ErrTimeout}
	}
	answer := make(chan bool, 1) // a call that was left alone answers nobody
	err = s.attempt(ctx, checking, s.limits.Monitor, func(ctx context.Context) error {
		running, err := s.m.Monitor(ctx)
		answer <- running
		return err
	})
	select {
	case running = <-answer:
	default:
	}
	return running, err
}

// checking is what an attempt does that only asks.
const checking = "check"

// patience is how long a call is waited for whose ctx has ended. A check that a Stop
// ended is left alone at once: the stop of that service waits for it, and the others need
// not.
func patience(ctx context.Context, what string) time.Duration {
	if what == checking && errors.Is(context.Cause(ctx), ErrOverruled) {
		return 0
	}
	return heed
}

// attempt makes one call within its limit. One that does not give up is left
// alone, and the next waits for it: a service is never called twice at a time.
func (s *slot) attempt(ctx context.Context, what string, limit time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s %w: %s", what, ErrTimeout, limit))
	defer cancel()
	if err := s.calls.await(ctx, s.name); err != nil {
		return err
	}
	done, result := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(done)
		result <- call(ctx)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		select {
		case <-done:
		case <-time.After(patience(ctx, what)):
			s.calls.stuck = done
			return &StuckError{What: what, Path: s.name, Cause: context.Cause(ctx)}
		}
	}
	return sayWhy(ctx, <-result)
}

// sayWhy adds the limit to an error that only says that the time is over.
func sayWhy(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || !errors.Is(cause, ErrTimeout) || errors.Is(err, ErrTimeout) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}
