package service

import (
	"context"
	"errors"
	"slices"
)

// Stop stops every service in reverse order, whether it is known to run or
// not, and interrupts a Start or a Check. At the first stage where one fails it ends with a
// *StopError: those started before may be what it depends on.
func (g *Group) Stop(ctx context.Context) error {
	done, err := g.overrule(ctx)
	if err != nil {
		return err
	}
	defer done()
	for at := range slices.Backward(g.stages) {
		if err := g.stopError(at, g.stopStage(ctx, at, func(int) bool { return true }, (*slot).stop)); err != nil {
			return err
		}
	}
	return nil
}

// StopForced stops every service in reverse order by force where it has one,
// goes on whatever fails, and returns all errors joined, each a *StopError.
func (g *Group) StopForced(ctx context.Context) error {
	done, err := g.overrule(ctx)
	if err != nil {
		return err
	}
	defer done()
	var all error
	for at := range slices.Backward(g.stages) {
		errs := g.stopStage(ctx, at, func(int) bool { return true }, (*slot).stopForced)
		for _, i := range slices.Backward(g.stages[at]) {
			if err := errs[i]; err != nil {
				name := g.slots[i].name
				all = errors.Join(all, &StopError{Service: name, Err: err, Left: []string{name}})
			}
		}
	}
	return all
}

// overrule ends a Start or Check under way and takes the turn.
func (g *Group) overrule(ctx context.Context) (done func(), err error) {
	g.countStop(+1)
	if err := g.acquire(ctx); err != nil {
		g.countStop(-1)
		return nil, err
	}
	return func() {
		g.countStop(-1)
		g.release()
	}, nil
}

func (g *Group) countStop(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.stops += n
	if n > 0 && g.mu.cancel != nil {
		g.mu.cancel(ErrOverruled)
	}
}
