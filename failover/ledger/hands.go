package ledger

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/failover/lease"
	"hapair/failover/ledger/promise"
)

// holding is a lease this node asks for.
type holding struct {
	tenure lease.Token
	grants map[string]grant // by voter
	until  time.Duration    // what was told last; 0: not held
	timer  *time.Timer
}

// grant is what a voter promised, on our clock.
type grant struct {
	sent  time.Duration // when the renewal that it granted last was
	until time.Duration // how far its promises reach, each counted from when it was asked for
}

// release is a hand-back not yet acknowledged by everybody.
type release struct {
	tenure lease.Token
	asked  map[string]bool // voters that have acknowledged
	acked  chan struct{}   // closed and replaced at each acknowledgement
}

// hands holds the leases of this node, and asks for more.
type hands struct {
	l *Ledger

	mu       sync.Mutex
	closed   bool
	holds    map[string]*holding
	releases map[string]*release
	longest  map[string]time.Duration // voter -> what it promises at most, where that is less than asked for
}

func newHands(l *Ledger) *hands {
	return &hands{l: l, holds: map[string]*holding{}, releases: map[string]*release{}, longest: map[string]time.Duration{}}
}

// Hold starts asking the voters for the lease of a resource of which this node
// is Primary since tenure, and goes on until Release or until the ledger names
// another. It returns at once: OnLease and Lease tell the outcome.
func (l *Ledger) Hold(resource string, tenure lease.Token) {
	h := l.hands
	h.mu.Lock()
	old := h.holds[resource]
	if !h.closed && (old == nil || old.tenure != tenure) {
		if old != nil {
			old.stop()
		}
		delete(h.releases, resource)
		h.holds[resource] = &holding{tenure: tenure, grants: map[string]grant{}}
	}
	h.mu.Unlock()
	l.kick()
}

func (h *holding) stop() {
	if h.timer != nil {
		h.timer.Stop()
	}
	h.until = 0
}

// Release stops asking and hands the lease back. The lease is gone when it
// returns, whatever it returns; nil means a majority of the voters knows and
// the next holder need not wait. The caller has stopped all I/O before.
func (l *Ledger) Release(ctx context.Context, resource string) error {
	h := l.hands
	h.mu.Lock()
	held := h.holds[resource]
	if held == nil {
		h.mu.Unlock()
		return nil
	}
	held.stop()
	delete(h.holds, resource)
	r := &release{tenure: held.tenure, asked: map[string]bool{}, acked: make(chan struct{})}
	h.releases[resource] = r
	h.mu.Unlock()
	l.log.Info("lease handed back", zap.String("resource", resource), zap.Uint64("token", uint64(held.tenure)))
	l.tellLease(lease.Lease{Resource: resource, Tenure: held.tenure})
	l.kick()
	return h.awaitRelease(ctx, resource, r)
}

func (h *hands) awaitRelease(ctx context.Context, resource string, r *release) error {
	for {
		voters, ok := h.l.voters()
		h.mu.Lock()
		n, acked := 0, r.acked
		for _, v := range voters {
			if r.asked[v] {
				n++
			}
		}
		gone := h.releases[resource] != r
		h.mu.Unlock()
		if ok && n > len(voters)/2 || gone {
			return nil
		}
		select {
		case <-acked:
		case <-ctx.Done():
			return fmt.Errorf("hand back %s: %d of %d voters know, the others wait for it to run out: %w: %w",
				resource, n, len(voters), ErrNoQuorum, ctx.Err())
		case <-h.l.ctx.Done():
			return ErrClosed
		}
	}
}

// Lease returns the lease as it stands; it is not Valid when none is held.
func (l *Ledger) Lease(resource string) lease.Lease {
	now := l.clock()
	l.hands.mu.Lock()
	defer l.hands.mu.Unlock()
	if h := l.hands.holds[resource]; h != nil && now < h.until {
		return lease.Lease{Resource: resource, Tenure: h.tenure, Until: h.until}
	}
	return lease.Lease{Resource: resource}
}

// batch returns what to ask of a voter now: hand-backs it has not acknowledged
// first, then renewals of what the ledger says is ours.
func (h *hands) batch(node string) (ask leaseAsk) {
	ask = leaseAsk{Session: h.l.session, Incarnation: h.l.view.inc()}
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, r := range h.releases {
		if !r.asked[node] {
			ask.Items = append(ask.Items, leaseItem{Resource: name, Tenure: r.tenure, Seq: h.l.seq.Add(1), Release: true})
		}
	}
	for name, held := range h.holds {
		if h.ours(name, held.tenure) {
			ask.Items = append(ask.Items, leaseItem{Resource: name, Tenure: held.tenure, Seq: h.l.seq.Add(1), Duration: h.duration(node)})
		}
	}
	return ask
}

// duration is how long a lease a voter is asked for. mu is held.
func (h *hands) duration(node string) time.Duration {
	if longest, ok := h.longest[node]; ok {
		return min(longest, h.l.cfg.Timing.Lease)
	}
	return h.l.cfg.Timing.Lease
}

// askAnew has a voter, which may have been restarted, asked for the whole lease.
func (h *hands) askAnew(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.longest, node)
}

// ours tells whether the ledger, as far as applied here, gives us the tenure.
func (h *hands) ours(resource string, tenure lease.Token) bool {
	r, ok := h.l.view.get(resource)
	return ok && r.Primary == h.l.cfg.Self && r.Tenure == tenure
}

// answered takes a voter's reply to a batch sent at t0 on our clock, and
// returns how soon asking again may help, 0 for the usual interval.
func (h *hands) answered(node string, t0 time.Duration, ask leaseAsk, reply leaseReply) (again time.Duration) {
	if reply.Refused != "" || len(reply.Results) != len(ask.Items) {
		return 0
	}
	voters, _ := h.l.voters()
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, it := range ask.Items {
		res := reply.Results[i]
		switch {
		case it.Release:
			h.acknowledged(node, it, voters)
		case res.Refused == "":
			h.granted(node, it, t0, voters)
		case res.Longest >= minLease && res.Longest < it.Duration:
			h.longest[node], again = res.Longest, retryEvery
		case res.Wait > 0 && (again == 0 || res.Wait < again):
			again = res.Wait
		}
		if res.Refused != "" && res.Refused != promise.Stale {
			h.l.log.Debug("lease renewal refused", zap.String("resource", it.Resource), zap.String("peer", node), zap.String("because", string(res.Refused)))
		}
	}
	return h.soon(node, again)
}

// soon is again, and sooner where a voter promises less than the whole lease: as often
// within that as is usual. mu is held.
func (h *hands) soon(node string, again time.Duration) time.Duration {
	if d := h.duration(node); len(h.holds) > 0 && d < h.l.cfg.Timing.Lease && (again == 0 || d/5 < again) {
		return d / 5
	}
	return again
}

// acknowledged: a voter knows of a hand-back, which is done with when all of them do. Who
// voted before a witness came or went may have acknowledged it too. mu is held.
func (h *hands) acknowledged(node string, it leaseItem, voters []string) {
	r := h.releases[it.Resource]
	if r == nil || r.tenure != it.Tenure {
		return
	}
	r.asked[node] = true
	close(r.acked)
	r.acked = make(chan struct{})
	if !slices.ContainsFunc(voters, func(v string) bool { return !r.asked[v] }) {
		delete(h.releases, it.Resource)
	}
}

func (h *hands) granted(node string, it leaseItem, t0 time.Duration, voters []string) {
	held := h.holds[it.Resource]
	if held == nil || held.tenure != it.Tenure || !h.ours(it.Resource, it.Tenure) {
		return
	}
	g := held.grants[node]
	held.grants[node] = grant{sent: max(g.sent, t0), until: max(g.until, t0+it.Duration)}
	h.settle(it.Resource, held, voters)
}

// settle works out how far a majority of the voters' promises reaches, by what each has
// granted, and tells when it reaches further. mu is held.
func (h *hands) settle(resource string, held *holding, voters []string) {
	var reach []time.Duration
	for _, v := range voters {
		if g, ok := held.grants[v]; ok {
			reach = append(reach, g.until)
		}
	}
	quorum := len(voters)/2 + 1
	if len(voters) == 0 || len(reach) < quorum {
		return
	}
	slices.Sort(reach)
	until := reach[len(reach)-quorum]
	now := h.l.clock()
	if until <= held.until || until <= now {
		return
	}
	if held.until == 0 {
		h.l.log.Info("lease held", zap.String("resource", resource), zap.Uint64("token", uint64(held.tenure)))
	}
	held.until = until
	if held.timer != nil {
		held.timer.Stop()
	}
	held.timer = time.AfterFunc(until-now, func() { h.expire(resource, held) })
	h.l.tellLease(lease.Lease{Resource: resource, Tenure: held.tenure, Until: until})
}

// expire runs when the lease should have run out.
func (h *hands) expire(resource string, held *holding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.holds[resource] != held || held.until == 0 {
		return
	}
	if left := held.until - h.l.clock(); left > 0 { // renewed, or the clocks differ
		held.timer = time.AfterFunc(left, func() { h.expire(resource, held) })
		return
	}
	h.lose(resource, held, "not renewed by a majority of the voters")
}

func (h *hands) lose(resource string, held *holding, because string) {
	if held.until == 0 {
		return
	}
	held.stop()
	h.l.log.Warn("lease lost", zap.String("resource", resource), zap.Uint64("token", uint64(held.tenure)), zap.String("because", because))
	h.l.tellLease(lease.Lease{Resource: resource, Tenure: held.tenure})
}

// revoke ends a lease the ledger no longer gives us.
func (h *hands) revoke(resource string, r Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := h.holds[resource]
	if held == nil || r.Tenure < held.tenure || r.Tenure == held.tenure && r.Primary == h.l.cfg.Self {
		return
	}
	clear(held.grants)
	h.lose(resource, held, fmt.Sprintf("the ledger now says primary %q, token %d", r.Primary, r.Tenure))
	if r.Tenure > held.tenure {
		delete(h.holds, resource)
	}
}

// suspend ends every lease, with the ledger that they rest on. They are asked for again
// if that goes on.
func (h *hands) suspend(because string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, held := range h.holds {
		clear(held.grants)
		h.lose(name, held, because)
	}
}

// drop ends every lease for good.
func (h *hands) drop(because string) {
	h.suspend(because)
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.holds)
	clear(h.releases)
}

// resettle counts again after the voters have changed.
func (h *hands) resettle() {
	voters, _ := h.l.voters()
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, held := range h.holds {
		if h.ours(name, held.tenure) {
			h.settle(name, held, voters)
		}
	}
}

// names returns what is held or asked for.
func (h *hands) names() (names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name := range h.holds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// fresh tells whether node has granted everything asked for within the renewals
// of late: counting its vote would not shorten a lease.
func (h *hands) fresh(node string) bool {
	now := h.l.clock()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, held := range h.holds {
		if held.until != 0 && now-held.grants[node].sent > 2*h.l.cfg.Timing.Renew {
			return false
		}
	}
	return true
}

func (h *hands) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, held := range h.holds {
		held.stop()
	}
	clear(h.holds)
}
