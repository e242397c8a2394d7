package service

import (
	"context"
	"errors"
	"sync"
)

// Check asks every service whether it runs and returns the status afterwards.
// One that was running and is not any more is Failed.
func (g *Group) Check(ctx context.Context) ([]Status, error) {
	return g.CheckSome(ctx, func(int) bool { return true })
}

// CheckSome is Check of those that which says, by their place. They are asked at
// the same time: one that hangs keeps nobody from being looked at.
func (g *Group) CheckSome(ctx context.Context, which func(int) bool) ([]Status, error) {
	if err := g.acquire(ctx); err != nil {
		return nil, err
	}
	defer g.release()
	var asked sync.WaitGroup
	for i, s := range g.slots {
		if which(i) {
			asked.Go(func() {
				running, err := s.monitor(ctx)
				g.set(i, judge(g.Status()[i], running, err))
			})
		}
	}
	asked.Wait()
	return g.Status(), nil
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
