package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"hapair/failover/plan"
	"hapair/mirror/state"
)

// monitor looks whether the services of a Primary still run, each at its own
// interval; what is found down is the controller's to mend.
func (r *resource) monitor(ctx context.Context) {
	due := newDue(len(r.conf.Services), time.Now(), func(i int) time.Duration { return r.conf.Services[i].MonitorInterval })
	t := time.NewTimer(due.wait(time.Now()))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		which := due.take(time.Now())
		if r.mirror.View().Role == state.Primary {
			if _, err := r.group.CheckSome(ctx, func(i int) bool { return which[i] }); err != nil && ctx.Err() == nil {
				r.a.log.Warn("services could not be checked", zap.String("resource", r.name), zap.Error(err))
			}
		}
		t.Reset(due.wait(time.Now()))
	}
}

// due is when each of some things is to be looked at next.
type due struct {
	every func(i int) time.Duration
	next  []time.Time
}

func newDue(n int, now time.Time, every func(i int) time.Duration) *due {
	d := &due{every: every}
	for i := range n {
		d.next = append(d.next, now.Add(every(i)))
	}
	return d
}

// wait is how long nothing is due; n must not have been 0.
func (d *due) wait(now time.Time) time.Duration {
	first := d.next[0]
	for _, at := range d.next {
		if at.Before(first) {
			first = at
		}
	}
	return max(first.Sub(now), 0)
}

// take returns which are due, and counts anew for them: one that took longer than
// its interval is not made up for.
func (d *due) take(now time.Time) (which []bool) {
	which = make([]bool, len(d.next))
	for i, at := range d.next {
		if which[i] = !now.Before(at); which[i] {
			d.next[i] = now.Add(d.every(i))
		}
	}
	return which
}

// policies are those of the services that have one of their own, by the names that
// the group gives them.
func (r *resource) policies() map[string]plan.FailurePolicy {
	out := map[string]plan.FailurePolicy{}
	if r.group == nil {
		return out
	}
	for i, s := range r.group.Status() {
		if f := r.conf.Services[i].Failures; f != nil {
			out[s.Name] = f.Policy()
		}
	}
	return out
}
