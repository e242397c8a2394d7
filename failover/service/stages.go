package service

import (
	"context"
	"slices"
	"sync"
)

// each calls do for the services of a stage that which says, at the same time, and
// returns the errors by their places.
func (g *Group) each(at int, which func(int) bool, do func(i int) error) map[int]error {
	var (
		mu   sync.Mutex
		errs = map[int]error{}
		all  sync.WaitGroup
	)
	for _, i := range g.stages[at] {
		if which(i) {
			all.Go(func() {
				if err := do(i); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs[i] = err
				}
			})
		}
	}
	all.Wait()
	return errs
}

func (g *Group) stopStage(ctx context.Context, at int, which func(int) bool, stop func(*slot, context.Context) error) map[int]error {
	return g.each(at, which, func(i int) error { return g.stopOne(ctx, i, stop) })
}

// stopError says which of a stage did not stop, nil if all did.
func (g *Group) stopError(at int, errs map[int]error) error {
	var e *StopError
	for _, i := range slices.Backward(g.stages[at]) {
		switch {
		case errs[i] == nil:
		case e == nil:
			e = &StopError{Service: g.slots[i].name, Err: errs[i], Left: []string{g.slots[i].name}}
		default:
			e.Left = append(e.Left, g.slots[i].name)
		}
	}
	if e == nil {
		return nil
	}
	e.Left = append(e.Left, g.below(at)...)
	return e
}

// below lists the services of the stages before one, the last of them first.
func (g *Group) below(at int) (all []string) {
	for _, stage := range slices.Backward(g.stages[:at]) {
		for _, i := range slices.Backward(stage) {
			all = append(all, g.slots[i].name)
		}
	}
	return all
}

// Restart stops what is not running and all that was started after it, in reverse,
// and starts it again: what it does not depend on stays. A stop that fails ends it
// with a *StopError. When something does not start, what was started by this is
// stopped again, and a *StartError returned.
func (g *Group) Restart(ctx context.Context) error {
	ctx, done, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	first, which := g.fallen()
	for at := len(g.stages) - 1; at >= first; at-- {
		idle := g.Status()
		up := func(i int) bool { return which(i) && idle[i].State != Stopped }
		if err := g.stopError(at, g.stopStage(ctx, at, up, (*slot).stop)); err != nil {
			return err
		}
	}
	return g.startFrom(ctx, first, which)
}

// fallen finds the first stage with a service that does not run, and which services
// a restart is about: those of it that do not, and all of later stages.
func (g *Group) fallen() (first int, which func(i int) bool) {
	was, stage := g.Status(), make([]int, len(g.slots))
	first = len(g.stages)
	for at, places := range slices.Backward(g.stages) {
		for _, i := range places {
			stage[i] = at
			if !was[i].Up {
				first = at
			}
		}
	}
	return first, func(i int) bool { return stage[i] > first || !was[i].Up }
}
