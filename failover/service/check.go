package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// missesMax is how many checks in a row may not tell whether a service runs. The last
// of them is a failure: one that takes too long may be the load of the machine, and a
// restart would only add to it.
const missesMax = 3

// Check asks every service whether it runs and returns the status afterwards.
// One that was running and is not any more, or that does not work, is Failed; so is one
// of which missesMax checks in a row could not tell.
func (g *Group) Check(ctx context.Context) ([]Status, error) {
	return g.CheckSome(ctx, func(int) bool { return true })
}

// CheckSome is Check of those that which says, by their place. They are asked at
// the same time: one that hangs keeps nobody from being looked at. A Stop ends it,
// which is no error, and so does the end of ctx, which is one: what has not answered
// by then stays as it was.
func (g *Group) CheckSome(ctx context.Context, which func(int) bool) ([]Status, error) {
	within, done, err := g.begin(ctx)
	if errors.Is(err, ErrOverruled) {
		return g.Status(), nil
	}
	if err != nil {
		return nil, err
	}
	defer done()
	var asked sync.WaitGroup
	for i := range g.slots {
		if which(i) {
			asked.Go(func() { g.checkOne(within, i) })
		}
	}
	asked.Wait()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("check services of %s: %w", g.cfg.Resource, context.Cause(ctx))
	}
	return g.Status(), nil
}

// checkOne asks one service. While the device is frozen it waits with it, and whatever it
// says then but that it runs, or does not, is about the device.
func (g *Group) checkOne(ctx context.Context, i int) {
	s, frozen := g.slots[i], g.cfg.Frozen()
	running, err := s.monitor(ctx)
	if err != nil && ctx.Err() != nil {
		return // nobody waits for the answer any more, and so it says nothing
	}
	frozen = frozen || g.cfg.Frozen()
	if s.misses++; running || err == nil || frozen {
		s.misses = 0
	}
	g.set(i, judge(g.Status()[i], running, err, s.misses, frozen))
}

// errFoundDown is a service's error when nobody stopped it.
var errFoundDown = errors.New("found stopped although it should run")

// judge says what a service is after a check; misses is how many in a row have not told
// that.
func judge(was Status, running bool, err error, misses int, frozen bool) Progress {
	switch {
	case running:
		return Progress{Now: Running, Err: err}
	case was.State == Failed && was.Error != nil:
		return Progress{Now: Failed, Err: was.Error} // the first reason is the better one
	case err == nil && was.Up:
		return Progress{Now: Failed, Err: errFoundDown}
	case err == nil || was.State == Stopped: // a stop that succeeded is not in doubt by what says nothing
		return Progress{Now: Stopped}
	case was.Up && isBroken(err) && !frozen:
		return Progress{Now: Failed, Err: err}
	case was.Up && misses >= missesMax:
		return Progress{Now: Failed, Err: fmt.Errorf("%d checks in a row could not tell whether it runs: %w", misses, err)}
	default:
		return Progress{Now: Unknown, Err: err}
	}
}
