package engine

import (
	"time"

	"hapair/mirror/state"
)

// rate is the progress of the last seconds.
type rate struct {
	at   [rateSamples]int64 // done, a sample a second
	n    int
	last time.Duration
}

const (
	rateSamples  = 5
	rateInterval = time.Second
)

// sample takes one a second; it reports whether it did.
func (r *rate) sample(now time.Duration, done int64) bool {
	if r.n > 0 && now-r.last < rateInterval {
		return false
	}
	copy(r.at[1:], r.at[:rateSamples-1])
	r.at[0], r.last = done, now
	r.n = min(r.n+1, rateSamples)
	return true
}

// perSecond is bytes per second over the samples, up to done at now.
func (r *rate) perSecond(now time.Duration, done int64) int64 {
	if r.n == 0 {
		return 0
	}
	span := now - r.last + time.Duration(r.n-1)*rateInterval
	if span <= 0 {
		return 0
	}
	return int64(float64(done-r.at[r.n-1]) / span.Seconds())
}

// wholeSync is a resync across the sessions it takes.
type wholeSync struct {
	action action
	bytes  int64 // that it has had to send since it began
}

// syncLeft says what is still to be sent. A resync that was broken off and goes
// on keeps its total: what was done stays done.
func (e *Engine) syncLeft(left int64) {
	r := &e.session.resync
	e.whole.bytes = max(e.whole.bytes, left)
	r.total, r.done = e.whole.bytes, e.whole.bytes-left
}

// syncTick measures a resync, and tells the target how far it is. What arrived
// there is made durable once a second, so that a break costs little.
func (e *Engine) syncTick() {
	s := &e.session
	switch s.repl {
	case state.SyncSource, state.SyncTarget, state.PausedSyncS, state.PausedSyncT:
	case state.Forwarding:
		if e.filling() && s.resync.rate.sample(e.now, s.resync.done) {
			e.pumpFill()
		}
		return
	default:
		return
	}
	if !s.resync.rate.sample(e.now, s.resync.done) || s.repl == state.SyncTarget || s.repl == state.PausedSyncT {
		return
	}
	e.sendState()
	if v := e.vols[min(s.resync.volume, len(e.vols)-1)]; len(v.sync.acked) > 0 && s.resync.flush == nil {
		e.flushTarget(v)
	}
	e.pumpSync()
}
