package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// FailurePolicy says how often something may fail on a node before the peer is
// asked to take the resource, and how long that is held against the node.
type FailurePolicy struct {
	Threshold int           // failures within Within; Pacemaker's migration-threshold
	Within    time.Duration // the window they are counted in
	Forget    time.Duration // after the last one nothing is remembered; Pacemaker's failure-timeout
}

// thresholdMax bounds what is kept of each service.
const thresholdMax = 100

// Validate reports what cannot work. retry is the least time between two failures.
func (p FailurePolicy) Validate(retry time.Duration) error {
	const most = 366 * 24 * time.Hour
	switch {
	case p.Threshold < 1 || p.Threshold > thresholdMax:
		return fmt.Errorf("threshold %d: 1 to %d would be right", p.Threshold, thresholdMax)
	case p.Within <= 0 || p.Within > most:
		return fmt.Errorf("within %v: more than 0 and at most a year would be right", p.Within)
	case p.Forget <= 0 || p.Forget > most:
		return fmt.Errorf("forget %v: more than 0 and at most a year would be right", p.Forget)
	case min(p.Within, p.Forget) <= time.Duration(p.Threshold)*retry:
		return fmt.Errorf("%v is not longer than %d failures every %v: what keeps failing would never reach the peer",
			min(p.Within, p.Forget), p.Threshold, retry)
	}
	return nil
}

// Failures is what is remembered against a node: what speaks most against it.
type Failures struct {
	Count int           // within the window, up to the last
	Limit int           // with so many the peer is asked
	At    time.Duration // the last of them
	Until time.Duration // then they are forgotten
	What  string        // the last of them, in words
}

// Remembered reports whether anything is.
func (f Failures) Remembered(now time.Duration) bool { return f.Count > 0 && now < f.Until }

// Exhausted reports whether it is enough for the peer to be asked.
func (f Failures) Exhausted(now time.Duration) bool {
	return f.Remembered(now) && f.Count >= f.Limit
}

// worse orders by what speaks more against a node.
func (f Failures) worse(o Failures) int {
	spent := func(f Failures) int {
		if f.Count >= f.Limit {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(spent(f), spent(o)), cmp.Compare(f.Count*o.Limit, o.Count*f.Limit), cmp.Compare(f.At, o.At))
}

// FailureLog remembers the failures on one node, by service. The name "" stands
// for what belongs to no service, such as devices that do not open.
type FailureLog struct {
	common FailurePolicy
	own    map[string]FailurePolicy
	of     map[string]*failed
	held   bool
	since  time.Duration // then: when that began
}

type failed struct {
	at   []time.Duration // within the window, the last one last
	what string
}

// NewFailureLog returns an empty log. own are the policies of services that have
// one.
func NewFailureLog(common FailurePolicy, own map[string]FailurePolicy) *FailureLog {
	return &FailureLog{common: common, own: own, of: map[string]*failed{}}
}

func (l *FailureLog) policy(name string) FailurePolicy {
	if p, ok := l.own[name]; ok {
		return p
	}
	return l.common
}

// Hold has nothing grow older until Release: while services are being started none has
// been up that could count for a node, and a start that hangs for all of its time-out is
// else forgotten before the next one has failed.
func (l *FailureLog) Hold(now time.Duration) {
	if !l.held {
		l.held, l.since = true, now
	}
}

// Release ends Hold.
func (l *FailureLog) Release(now time.Duration) {
	for _, f := range l.of {
		for i := range f.at {
			f.at[i] += l.still(now)
		}
	}
	l.held = false
}

// still is how long nothing has grown older.
func (l *FailureLog) still(now time.Duration) time.Duration {
	if !l.held {
		return 0
	}
	return now - l.since
}

// Add notes a failure of a service.
func (l *FailureLog) Add(now time.Duration, name, what string) {
	l.expire(now)
	p, f := l.policy(name), l.of[name]
	if f == nil {
		f = &failed{}
		l.of[name] = f
	}
	now -= l.still(now)
	f.at = append(f.at, now)
	f.at = slices.DeleteFunc(f.at, func(at time.Duration) bool { return at <= now-p.Within })
	if over := len(f.at) - thresholdMax; over > 0 {
		f.at = slices.Delete(f.at, 0, over)
	}
	f.what = what
}

func (l *FailureLog) expire(now time.Duration) {
	now -= l.still(now)
	maps.DeleteFunc(l.of, func(name string, f *failed) bool { return now >= f.at[len(f.at)-1]+l.policy(name).Forget })
}

// Forget takes what is remembered of a service away, of all of them with "".
// It reports whether there was anything.
func (l *FailureLog) Forget(name string) (any bool) {
	if name == "" {
		any = len(l.of) > 0
		clear(l.of)
		return any
	}
	_, any = l.of[name]
	delete(l.of, name)
	return any
}

// Of returns what is remembered, by service.
func (l *FailureLog) Of(now time.Duration) map[string]Failures {
	l.expire(now)
	out := map[string]Failures{}
	for name, f := range l.of {
		p, last := l.policy(name), f.at[len(f.at)-1]+l.still(now)
		out[name] = Failures{Count: len(f.at), Limit: p.Threshold, At: last, Until: last + p.Forget, What: f.what}
	}
	return out
}

// Worst returns what speaks most against the node, the zero Failures when
// nothing does.
func (l *FailureLog) Worst(now time.Duration) (worst Failures) {
	for _, f := range l.Of(now) {
		if worst.Count == 0 || f.worse(worst) > 0 {
			worst = f
		}
	}
	return worst
}
