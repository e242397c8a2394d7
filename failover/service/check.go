package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Check asks every service whether it runs and returns the status afterwards.
// One that was running and is not any more is Failed.
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

func (g *Group) checkOne(ctx context.Context, i int) {
	running, err := g.slots[i].monitor(ctx)
	if err != nil && ctx.Err() != nil {
		return // nobody waits for the answer any more, and so it says nothing
	}
	g.set(i, judge(g.Status()[i], running, err))
}

// errFoundDown is a service's error when nobody stopped it.
var errFoundDown = errors.New("found stopped although it should run")

func judge(was Status, running bool, err error) Progress {
	switch {
	case running:
		return Progress{Now: Running, Err: err}
	case err != nil:
		return Progress{Now: Unknown, Err: err}
	case was.State == Failed && was.Error != nil:
		return Progress{Now: Failed, Err: was.Error} // the first reason is the better one
	case was.State == Running:
		return Progress{Now: Failed, Err: errFoundDown}
	default:
		return Progress{Now: Stopped}
	}
}
