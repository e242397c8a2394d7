package failover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/failover/lease"
	"hapair/failover/plan"
)

// Limits of the fences.
const (
	voidEvery   = 100 * time.Millisecond // how often to look whether a fence under way has become void
	recordEvery = time.Second            // how often the ledger is tried when it takes no outcome
	unkept      = 16                     // outcomes that wait for the ledger; older ones are forgotten
)

// FencesConfig is what Fences are made of.
type FencesConfig struct {
	Self, Peer string
	Ballot     Ballot
	Devices    FenceDevices
	Clock      lease.Clock
	Log        *zap.Logger
	Wake       func(cause string)              // something changed: all controllers are to look
	Events     func(text string, problem bool) // for the operator; nil: nobody is told
}

// Fences has the peer of a node fenced, for all its controllers as one: it asks the
// ledger, then the devices, and tells the ledger what came of it. It is safe for
// concurrent use.
type Fences struct {
	cfg    FencesConfig
	ctx    context.Context //nolint:containedctx // of the fences, which outlive the step that asked
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // capacity 1: an outcome waits for the ledger

	mu       sync.Mutex
	closed   bool
	state    plan.FenceState // as last seen
	since    time.Duration
	failures int
	text     string
	waiting  []fenceOutcome
}

type fenceOutcome struct{ outcome, reason string }

// NewFences returns Fences that have asked nobody anything. Close ends them.
func NewFences(cfg FencesConfig) *Fences {
	f := &Fences{cfg: cfg, wake: make(chan struct{}, 1)}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.wg.Go(f.record)
	return f
}

// Close breaks off the fence under way, whose outcome is unknown then, and waits
// for its devices.
func (f *Fences) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	f.wg.Wait()
}

// Fence implements Fencer.
func (f *Fences) Fence(because string) error {
	ticket, err := f.cfg.Ballot.AskFence()
	switch {
	case err != nil && f.cfg.Ballot.Fence().State == plan.FenceAsked:
		return nil // for another resource
	case err != nil:
		return fmt.Errorf("fence %s: %w", f.cfg.Peer, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		_, err := f.cfg.Ballot.FenceDecided(ticket, false, time.Time{})
		return errors.Join(fmt.Errorf("fence %s: %w", f.cfg.Peer, ErrStopped), err)
	}
	f.follow(plan.FenceAsked)
	f.cfg.Log.Warn("the peer is to be fenced", zap.String("peer", f.cfg.Peer), zap.String("because", because))
	f.tell(true, "%s is being fenced: %s", f.cfg.Peer, because)
	f.wg.Go(func() { f.carry(ticket, because) })
	return nil
}

// carry waits for the devices. What has become void, because the two have met, is
// broken off: the peer is not to be shot when it is back. It is decided only when the
// devices have ended, as they may strike until then (rule R24).
func (f *Fences) carry(ticket uint64, because string) {
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	done := make(chan FenceReport, 1)
	f.wg.Go(func() { done <- f.cfg.Devices.Fence(ctx, f.cfg.Peer, because) })
	look := time.NewTicker(voidEvery)
	defer look.Stop()
	for {
		select {
		case r := <-done:
			f.ended(ticket, r)
			return
		case <-look.C:
			if f.cfg.Ballot.Fence().State == plan.FenceVoid {
				cancel()
			}
		}
	}
}

// ended tells everybody what came of a fence.
func (f *Fences) ended(ticket uint64, r FenceReport) {
	counts, err := f.cfg.Ballot.FenceDecided(ticket, r.Confirmed, r.Began)
	f.mu.Lock()
	f.text = r.String()
	switch {
	case counts:
		f.failures = 0
	case r.Confirmed:
		f.text += "; it does not count: the two have met since"
	default:
		f.failures++
	}
	text := f.text
	f.follow(f.cfg.Ballot.Fence().State)
	if !counts { // what counts is kept by going alone
		f.waiting = append(f.waiting, fenceOutcome{r.outcome(), text})
		f.waiting = f.waiting[max(0, len(f.waiting)-unkept):]
	}
	f.mu.Unlock()
	f.cfg.Log.Warn("fence ended", zap.String("peer", f.cfg.Peer), zap.Bool("confirmed", r.Confirmed), zap.Bool("counts", counts),
		zap.String("because", text), zap.Duration("took", r.Took), zap.Error(err))
	if r.Confirmed && !counts { // the devices tell the rest
		f.tell(false, "fence of %s: %s", f.cfg.Peer, text)
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
	f.cfg.Wake("fence of " + f.cfg.Peer)
}

func (f *Fences) tell(problem bool, format string, args ...any) {
	if f.cfg.Events != nil {
		f.cfg.Events(fmt.Sprintf(format, args...), problem)
	}
}

// follow notes since when the fence is as it is. mu is held.
func (f *Fences) follow(now plan.FenceState) {
	if now == f.state {
		return
	}
	f.state, f.since = now, f.cfg.Clock()
	if now == plan.FenceNone { // the two have met, or one goes on alone
		f.failures = 0
	}
}

// View implements Fencer.
func (f *Fences) View() plan.Fence {
	b := f.cfg.Ballot.Fence()
	v := plan.Fence{State: b.State, First: f.first(b.Primaries)}
	if b.May != nil {
		v.May = b.May.Error()
	}
	if err := f.cfg.Devices.Ready(f.cfg.Peer); err != nil {
		v.Unready = err.Error()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.follow(b.State)
	v.Since, v.Failures, v.Text = f.since, f.failures, f.text
	return v
}

// first tells whether this node is the one to win when both live: who has all the
// Primaries or, where both have some, who comes first by name.
func (f *Fences) first(primaries []string) bool {
	here, there := slices.Contains(primaries, f.cfg.Self), slices.Contains(primaries, f.cfg.Peer)
	return here && (!there || f.cfg.Self < f.cfg.Peer)
}

// record has the ledger keep the outcomes, which it only can with a quorum.
func (f *Fences) record() {
	var again <-chan time.Time
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-f.wake:
		case <-again:
		}
		again = nil
		for o, ok := f.oldest(); ok; o, ok = f.oldest() {
			err := bounded(f.ctx, ledgerTimeout, func(ctx context.Context) error { return f.cfg.Ballot.RecordFence(ctx, f.cfg.Peer, o.outcome, o.reason) })
			if err != nil {
				again = time.After(recordEvery)
				break
			}
			f.mu.Lock()
			if len(f.waiting) > 0 && f.waiting[0] == o {
				f.waiting = f.waiting[1:]
			}
			f.mu.Unlock()
		}
	}
}

func (f *Fences) oldest() (fenceOutcome, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiting) == 0 {
		return fenceOutcome{}, false
	}
	return f.waiting[0], true
}
