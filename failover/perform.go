package failover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"hapair/failover/plan"
	"hapair/mirror/state"
)

// perform carries out one step. It runs in the step's own goroutine and
// returns when ctx ends, as far as the hands do. Every step may be asked for
// again after a failure.
func (c *Controller) perform(ctx context.Context, v plan.View, s plan.Step, because string) error {
	n, res := c.needs, c.cfg.Resource
	switch s.Kind {
	case plan.LedgerDemote:
		if v.Owed {
			return c.tellDemotion(ctx, v, because)
		}
		return c.changeRecord(ctx, v, s.Kind, because)
	case plan.Declare, plan.LedgerPromote, plan.LedgerForce:
		return c.changeRecord(ctx, v, s.Kind, because)
	case plan.AskLapsed:
		return c.askLapsed(ctx, v)
	case plan.HoldLease:
		c.needs.Leases.Hold(res, v.Tenure)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.mu.asked = true
		return nil
	case plan.ReleaseLease:
		return c.releaseLease(ctx)
	case plan.GoAlone:
		return bounded(ctx, ledgerTimeout, func(ctx context.Context) error { return n.Group.GoAlone(ctx, because) })
	case plan.ForceAlone:
		return bounded(ctx, ledgerTimeout, func(ctx context.Context) error { return n.Group.ForceAlone(ctx, because) })
	case plan.FencePeer:
		return n.Fencer.Fence(because)
	case plan.HandOver:
		return c.hintPeer(ctx, Hint{Kind: Take, Reason: because})
	case plan.GoBack:
		return c.goBack(v, because)
	case plan.AskPeer:
		return c.hintPeer(ctx, Hint{Kind: Give, Reason: because, Force: v.Wish.Force})
	case plan.Disconnect:
		return bounded(ctx, mirrorTimeout, func(ctx context.Context) error { return n.Mirror.Disconnect(ctx, res) })
	case plan.MirrorPromote:
		return c.promoteMirror(ctx, v, s.Force)
	case plan.MirrorDemote:
		return c.demoteMirror(ctx, s.Force)
	case plan.StartServices, plan.RestartServices:
		return c.startServices(ctx, s.Kind == plan.RestartServices)
	case plan.StopServices:
		return c.stopServices(ctx, s.Force)
	case plan.AbortLost:
		return c.abort(ctx)
	default: // plan.Nothing is never begun
		return fmt.Errorf("step %s: not implemented", s.Kind)
	}
}

func bounded(ctx context.Context, d time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return do(ctx)
}

// changeRecord commits one change against the record the decision was made by.
func (c *Controller) changeRecord(ctx context.Context, v plan.View, kind plan.Kind, because string) error {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	l, res, self, expect, ledger := c.needs.Ledger, c.cfg.Resource, c.cfg.Self, v.Ledger.Record.Token, c.ledger()
	var r plan.Record
	var err error
	switch kind {
	case plan.Declare:
		r, err = l.Declare(ctx, res, []string{self, c.cfg.Peer}, expect)
	case plan.LedgerForce:
		r, err = l.Force(ctx, res, self, because, expect)
	case plan.LedgerDemote:
		r, err = l.Demote(ctx, res, self, expect)
	default:
		r, err = l.Promote(ctx, res, self, expect)
	}
	if err != nil {
		return fmt.Errorf("ledger, token %d expected: %w", expect, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := &c.mu.memory
	if m.discards != ledger {
		return fmt.Errorf("%w: the ledger was discarded", ErrOvertaken)
	}
	if kind == plan.LedgerPromote && r.Primary == self {
		m.tenure, m.hint = r.Tenure, plan.Hint{}
	}
	if r.Token > m.record.Token {
		m.newRecord(r, c.cfg.Clock(), false)
	}
	return nil
}

// tellDemotion has the ledger know of a forced demotion: first that nobody is to
// be promoted by itself.
func (c *Controller) tellDemotion(ctx context.Context, v plan.View, because string) error {
	err := bounded(ctx, ledgerTimeout, func(ctx context.Context) error {
		return c.needs.Marks.Mark(ctx, MarkDown(c.cfg.Resource), "demoted by the operator, by force")
	})
	if err == nil {
		err = c.changeRecord(ctx, v, plan.LedgerDemote, because)
	}
	if err == nil {
		c.owe(false)
		return nil
	}
	if p := c.record().Primary; p != c.cfg.Self && p != "" { // the peer was faster: the mark would be of its tenure
		err = errors.Join(err, bounded(ctx, ledgerTimeout, func(ctx context.Context) error { return c.needs.Marks.Unmark(ctx, MarkDown(c.cfg.Resource)) }))
	}
	return fmt.Errorf("tell of the demotion: %w", err)
}

func (c *Controller) askLapsed(ctx context.Context, v plan.View) error {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	ledger := c.ledger()
	lapsed, err := c.needs.Leases.Lapsed(ctx, c.cfg.Resource)
	if err != nil {
		return fmt.Errorf("ask a majority about the lease of %s: %w", v.Ledger.Record.Primary, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.discards != ledger {
		return fmt.Errorf("%w: the ledger was discarded", ErrOvertaken)
	}
	now, was := c.cfg.Clock(), c.mu.lapse
	next := lapse{tenure: v.Ledger.Record.Tenure, asked: now, lapsed: lapsed, since: now}
	if was.lapsed && was.tenure == next.tenure {
		next.since = was.since
	}
	c.mu.lapse = next
	return nil
}

func (c *Controller) releaseLease(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	if err := c.needs.Leases.Release(ctx, c.cfg.Resource); err != nil {
		return fmt.Errorf("hand the lease back: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.asked = false
	return nil
}

// hintPeer tells or asks the peer. A hand-over that cannot be told is no
// failure: the record says the same, the peer only waits a moment longer.
func (c *Controller) hintPeer(ctx context.Context, h Hint) error {
	ctx, cancel := context.WithTimeout(ctx, hintTimeout)
	defer cancel()
	c.mu.Lock()
	h.Resource, h.From, h.Token = c.cfg.Resource, c.cfg.Self, c.mu.record.Token
	now := c.cfg.Clock()
	if f := c.mu.failures.Worst(now); f.Count > 0 {
		h.Failures, h.FailureLimit, h.FailedAgo, h.FailedFor = f.Count, f.Limit, now-f.At, f.Until-now
	}
	h.Operator = c.mu.request != nil && !c.mu.leaving && !c.mu.request.wish.Auto
	c.mu.hinted = true
	c.mu.Unlock()
	err := c.needs.Peers.Hint(ctx, c.cfg.Peer, h)
	if err != nil && h.Kind == Take {
		c.log.Warn("the hand-over could not be told", zap.String("peer", c.cfg.Peer), zap.Error(err))
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask %s to hand over: %w", c.cfg.Peer, err)
	}
	return nil
}

func (c *Controller) promoteMirror(ctx context.Context, v plan.View, force bool) error {
	ctx, cancel := context.WithTimeout(ctx, mirrorTimeout)
	defer cancel()
	devices, err := c.needs.Mirror.Promote(ctx, c.cfg.Resource, v.Ledger.Record.Tenure, force)
	if err != nil {
		return fmt.Errorf("open the devices under token %d: %w", v.Ledger.Record.Tenure, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.devices = devices
	return nil
}

// demoteMirror flushes and closes. By force it aborts what somebody holds
// open, or what does not answer.
func (c *Controller) demoteMirror(ctx context.Context, force bool) error {
	err := bounded(ctx, mirrorTimeout, func(ctx context.Context) error { return c.needs.Mirror.Demote(ctx, c.cfg.Resource) })
	if err == nil || !force {
		return err
	}
	c.log.Warn("the devices are aborted", zap.Error(err))
	if aborted := c.needs.Mirror.Abort(ctx, c.cfg.Resource); aborted != nil {
		return errors.Join(err, aborted)
	}
	return nil
}

func (c *Controller) startServices(ctx context.Context, again bool) error {
	c.mu.Lock()
	devices := c.mu.devices
	c.mu.Unlock()
	start := c.needs.Services.Start
	if again {
		start = c.needs.Services.Restart
	}
	if err := start(ctx, devices); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.services, c.mu.stopFailed = plan.Started, false
	return nil
}

func (c *Controller) stopServices(ctx context.Context, force bool) error {
	stop := c.needs.Services.Stop
	if force {
		stop = c.needs.Services.StopForced
	}
	if err := stop(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.stopFailed = false
	return nil
}

// abort takes everything down without waiting for anybody's leave. Addresses
// and services go first; when they do not go at once, because a process hangs
// in I/O that is frozen, the front end is aborted below them, which lets the
// processes die.
func (c *Controller) abort(ctx context.Context) error {
	stopped := make(chan error, 1)
	if c.needs.Services == nil {
		stopped <- nil
	} else {
		c.stepping.Go(func() { stopped <- c.needs.Services.StopForced(ctx) })
	}
	patience := c.cfg.Timer(abortPatience)
	defer patience.Stop()
	var services error
	waiting := false
	select {
	case services = <-stopped:
	case <-patience.C():
		waiting = true
	}
	mirror := c.abortMirror(ctx)
	if waiting {
		services = <-stopped
	}
	c.mu.Lock()
	c.mu.devices, c.mu.stopFailed = nil, services != nil
	c.mu.Unlock()
	return errors.Join(services, mirror)
}

// abortMirror takes the role away, if there is one: with it goes the session, and what
// a Secondary copies in it.
func (c *Controller) abortMirror(ctx context.Context) error {
	if v := c.needs.Mirror.View(c.cfg.Resource); v.Role != state.Primary && v.Tenure == 0 {
		return nil
	}
	return c.needs.Mirror.Abort(ctx, c.cfg.Resource)
}
