package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"hapair/failover/plan"
)

// leavePatience is how long a hand-over at an orderly stop may stand still, with
// no step under way. Then the resource is taken down here.
const leavePatience = 15 * time.Second

// leaveSlack is what a hand-over may take beside the stops of the services: the
// flush of what the devices hold, the ledger, the peer.
const leaveSlack = 90 * time.Second

// abortPatience is for forced stops before the devices go below them.
const abortPatience = time.Second

var errNoProgress = fmt.Errorf("nothing was done for %v", leavePatience)

// leave is a resource of which a stop empties this node.
type leave struct {
	name   string
	within time.Duration
	empty  func(ctx context.Context) error
}

// leavesWithin bounds the whole of it.
func (a *agent) leavesWithin() (most time.Duration) {
	for _, l := range a.leaves {
		most = max(most, l.within)
	}
	return most
}

// leaveAll hands all resources over, beside each other.
func (a *agent) leaveAll(ctx context.Context) error {
	errs := make([]error, len(a.leaves))
	var all sync.WaitGroup
	for i, l := range a.leaves {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, l.within)
			defer cancel()
			if err := l.empty(ctx); err != nil {
				errs[i] = fmt.Errorf("leave %s: %w", l.name, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// leavesWithin bounds a hand-over: each service may take its time.
func (r *resource) leavesWithin() time.Duration {
	sum := leaveSlack
	for i := range r.conf.Services {
		sum += r.conf.Services[i].StopTimeout
	}
	return sum
}

// leave hands over for as long as something is being done about it.
func (r *resource) leave(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { r.whileBusy(ctx, cancel) })
	err := r.control.Leave(ctx)
	cancel(nil)
	watching.Wait()
	return err
}

// whileBusy cancels what has stood still for leavePatience.
func (r *resource) whileBusy(ctx context.Context, cancel context.CancelCauseFunc) {
	t := time.NewTicker(leavePatience / 30)
	defer t.Stop()
	busy := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			if r.control.Status().Running.Kind != plan.Nothing {
				busy = now
			}
			if now.Sub(busy) >= leavePatience {
				cancel(errNoProgress)
			}
		}
	}
}

// takeDown is for a Primary that could neither hand over nor demote. Addresses and
// services go first; whoever waits for I/O that is frozen dies with the devices.
func (r *resource) takeDown(ctx context.Context) error {
	stopped := make(chan error, 1)
	go func() {
		if r.group == nil {
			stopped <- nil
			return
		}
		stopped <- r.group.StopForced(ctx)
	}()
	var services error
	waiting := false
	select {
	case services = <-stopped:
	case <-time.After(abortPatience):
		waiting = true
	}
	err := r.mirror.Abort(ctx, errors.New("the agent stops while Primary"))
	if waiting {
		services = <-stopped
	}
	return errors.Join(services, err)
}
