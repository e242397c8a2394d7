package mirror

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"hapair/mirror/engine"
)

// A disk that was given up because it did not answer, and has let go of all it was
// given since, is attached by itself: after a pause, which doubles each time, because a
// disk that hangs again costs the application another wait. One that does so too
// often is left to an operator. One that has failed with an error always is.
const (
	takeBackMin      = 10 * time.Second
	takeBackMax      = 10 * time.Minute
	takeBackTries    = 6
	takeBackForgiven = time.Hour // after which a disk that hangs is as one that never did
)

// takeBack is used by the tick only.
type takeBack struct {
	pause time.Duration // the latest
	due   time.Duration // when the disks are attached; 0: nothing to do
	last  time.Duration // when they were, or that was tried
	tries int
	told  bool // that there will be no more
}

// takeBackDisks attaches disks that hung and answer again, when their pause is over.
func (r *Resource) takeBackDisks() {
	t, now := &r.back, r.cfg.Clock()
	if !r.opening.Load() {
		switch plan, due := t.next(now, r.answersAgain()); {
		case plan:
			r.planTakeBack(now)
		case due && r.mayAttach() == nil: // else as soon as it may: something else is under way
			t.due, t.last = 0, now
			go func() { // Attach has its own end
				if err := r.Attach(r.ctx, AttachOptions{}); err != nil && !errors.Is(err, engine.ErrNotTaken) && r.ctx.Err() == nil {
					r.log.Warn("a disk that answers again is not taken into use", zap.Error(err))
				}
			}()
		}
	}
	r.takenBackAt.Store(int64(t.due))
}

// next says whether a pause is to be chosen, and whether it is over. What else is under
// way does not count: it would make a disk that hung once one that hangs each time.
func (t *takeBack) next(now time.Duration, answers bool) (plan, due bool) {
	if !answers {
		t.due, t.told = 0, false
	}
	return answers && t.due == 0 && !t.told, answers && t.due != 0 && now >= t.due
}

// planTakeBack chooses the pause.
func (r *Resource) planTakeBack(now time.Duration) {
	t := &r.back
	if now-t.last > takeBackForgiven {
		t.pause, t.tries = 0, 0
	}
	if t.tries == takeBackTries {
		t.told = true
		r.cfg.Observer.Trouble(r.cfg.Resource, fmt.Sprintf("a disk that hangs answers again, for the %dth time: it is left alone until somebody attaches it", t.tries+1))
		return
	}
	first := takeBackMin
	if r.cfg.TakeBack > 0 {
		first = r.cfg.TakeBack
	}
	t.tries++
	t.pause = min(max(2*t.pause, first), takeBackMax)
	t.due = now + t.pause
	r.cfg.Observer.Happened(r.cfg.Resource, engine.OnDisk, fmt.Sprintf("a disk that hung answers again; it is attached in %v", t.pause))
}

// answersAgain reports whether each disk that is not in use was given up because it did
// not answer, and has let go of everything since.
func (r *Resource) answersAgain() bool {
	if !r.anyFailed() { // the tick asks, and a View is much to make
		return false
	}
	failed := false
	for i, x := range r.View().Volumes {
		if x.Disk.HasData() {
			continue
		}
		if !x.Hung || len(r.vols[i].on.Load().hanging()) > 0 {
			return false
		}
		failed = true
	}
	return failed
}

func (r *Resource) anyFailed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.vols {
		if !r.mu.eng.Disk(i).HasData() {
			return true
		}
	}
	return false
}
