package failover

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"hapair/failover/plan"
)

// Hinted takes in what the peer told. It refuses what it cannot follow.
func (c *Controller) Hinted(h Hint) error {
	if h.Resource != c.cfg.Resource || h.From != c.cfg.Peer {
		return refused(CodeNode, "hactl config check", "hint about %q from %q came to %s, peer %s", h.Resource, h.From, c.cfg.Resource, c.cfg.Peer)
	}
	now := c.cfg.Clock()
	c.mu.Lock()
	if h.Kind == Take && c.mu.leaving { // it would give it back at once, and so on
		c.mu.Unlock()
		return refused(CodeClosed, "systemctl start hapair", "%s: the agent of %s stops as well", c.cfg.Resource, c.cfg.Self)
	}
	if h.Failures > 0 && h.FailedAgo >= 0 {
		c.mu.peerFailed = h.failed(now, c.cfg.Settings.Failures)
	}
	if h.Kind == Take && h.Operator {
		c.mu.failures.Forget("")
	}
	if stale := h.Token != 0 && h.Token < c.mu.memory.record.Token || c.mu.memory.record.Primary == c.cfg.Self; h.Kind == Take && !stale {
		c.mu.hint = plan.Hint{Take: true, From: h.From, Until: now + c.cfg.Settings.HandOverGrace}
	}
	c.mu.Unlock()
	switch h.Kind {
	case Take:
		c.note(Entry{Kind: EntryHint, Text: h.From + " hands over to this node", Cause: h.Reason})
		c.Wake(h.From + " hands over")
		return nil
	case Give:
		c.note(Entry{Kind: EntryHint, Text: h.From + " asks for the resource", Cause: h.Reason})
		c.mended(h.From)
		_, err := c.submit(plan.Wish{Kind: plan.Switchover, Target: h.From, Force: h.Force, Reason: h.Reason}, true)
		c.Wake(h.From + " asks for it")
		return err
	case Deny:
		c.deniedBy(h)
		return nil
	case Forget:
		c.forget(h.Service)
		c.note(Entry{Kind: EntryHint, Text: h.From + ": failures are forgotten", Cause: h.Reason})
		c.Wake("cleanup on " + h.From)
		return nil
	}
	return refused(CodeNode, "hactl version on both nodes", "hint of kind %d is unknown here", h.Kind)
}

// failed is what the sender told of its failures. One of an earlier release says
// neither how many it takes nor for how long they count: both nodes have the same
// configuration.
func (h Hint) failed(now time.Duration, p plan.FailurePolicy) plan.Failures {
	f := plan.Failures{Count: h.Failures, Limit: h.FailureLimit, At: now - h.FailedAgo, Until: now + h.FailedFor}
	if h.FailureLimit == 0 {
		f.Limit, f.Until = p.Threshold, f.At+p.Forget
	}
	return f
}

// deniedBy ends the switchover to this node that the peer does not follow.
func (c *Controller) deniedBy(h Hint) {
	c.note(Entry{Kind: EntryHint, Text: h.From + " does not hand over", Cause: h.Reason})
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.mu.request; r != nil && r.wish.Kind == plan.Switchover && r.wish.Target == c.cfg.Self {
		c.mu.end(refused(h.Code, h.Help, "%s does not hand over: %s", h.From, h.Reason))
	}
}

// tellDenied tells the peer why what it asked for came to nothing.
func (c *Controller) tellDenied(ctx context.Context) {
	c.mu.Lock()
	err := c.mu.denied
	c.mu.denied = nil
	h := Hint{Kind: Deny, Resource: c.cfg.Resource, From: c.cfg.Self, Token: c.mu.record.Token, Code: CodeFailed}
	c.mu.Unlock()
	if err == nil {
		return
	}
	h.Reason = err.Error()
	var r *Refusal
	var s *StepError
	switch {
	case errors.As(err, &r):
		h.Code, h.Reason, h.Help = r.Code, r.Text, r.Hint
	case errors.As(err, &s) && (s.Step == plan.StopServices || s.Step == plan.MirrorDemote):
		h.Code, h.Help = plan.CodeHeld, "end what keeps it on "+c.cfg.Self+", or repeat with --force"
	}
	c.stepping.Go(func() {
		err := bounded(ctx, hintTimeout, func(ctx context.Context) error { return c.needs.Peers.Hint(ctx, c.cfg.Peer, h) })
		if err != nil {
			c.log.Warn("the peer could not be told why this node does not hand over", zap.String("peer", c.cfg.Peer), zap.Error(err))
		}
	})
}
