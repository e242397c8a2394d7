package failover

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"hapair/failover/plan"
	"hapair/mirror/state"
)

// Leave empties this node for an orderly stop of the agent: the peer takes
// the resource if it can, else the services stop and nobody is Primary. Who keeps
// them from that is ended: the devices go, whatever happens. The controller
// promotes nothing afterwards. What is being taken down because authority was lost
// is waited for.
func (c *Controller) Leave(ctx context.Context) error {
	v := c.View()
	c.mu.Lock()
	c.mu.leaving = true
	c.mu.end(fmt.Errorf("failover %s: the agent stops: %w", c.cfg.Resource, ErrStopped))
	c.mu.Unlock()
	c.Wake("the agent stops")
	if err := c.markLeft(ctx, v); err != nil {
		c.log.Warn("the peer could not be told that this node's copy is the better one", zap.Error(err))
	}
	var err error
	if v.Ledger.Record.Primary == c.cfg.Self {
		err = c.vacateSurely(ctx)
	}
	if ctx.Err() == nil && plan.Lost(c.View()) {
		err = errors.Join(err, c.ask(ctx, plan.Wish{Kind: plan.Demote}, asItEnded)) // it is over when nothing runs here any more
	}
	return err
}

// vacateSurely repeats by force what does not go in order.
func (c *Controller) vacateSurely(ctx context.Context) error {
	err := c.vacate(ctx, false)
	for range forcedLeaves {
		if err == nil || ctx.Err() != nil {
			break
		}
		c.log.Warn("does not leave in order, and leaves by force", zap.Error(err))
		err = c.vacate(ctx, true)
	}
	return err
}

// forcedLeaves is how often force is asked for: the services, or the devices, may take
// more than one attempt.
const forcedLeaves = 3

// asItEnded is for a request from which nothing follows.
func asItEnded(_ context.Context, err error) error { return err }

// vacate hands over, or stops here what nobody takes. In maintenance nobody will take
// it by himself.
func (c *Controller) vacate(ctx context.Context, force bool) error {
	err := c.ask(ctx, plan.Wish{Kind: plan.Switchover, Target: c.cfg.Peer, Force: force}, asItEnded)
	var r *Refusal
	if errors.As(err, &r) && ctx.Err() == nil {
		why := r.Text
		err = c.ask(ctx, plan.Wish{Kind: plan.Demote, Force: force}, asItEnded)
		if err == nil && c.View().Maintenance {
			c.note(Entry{Kind: EntryFailed, Text: fmt.Sprintf("left in maintenance: it is down on both nodes until hactl maintenance off, or hactl promote %s", c.cfg.Resource), Cause: why})
		}
	}
	return err
}

// markLeft notes in the ledger that this node leaves with a copy that is in
// line while its peer, still counted as in sync, crashed or is away.
func (c *Controller) markLeft(ctx context.Context, v plan.View) error {
	name := MarkLeft(c.cfg.Resource, c.cfg.Self)
	r := v.Ledger.Record
	if v.Self.Suspect || !r.Has(c.cfg.Self) || !r.Has(c.cfg.Peer) || v.Mirror.Replication == state.Established || c.needs.Marks.Marked(name) {
		return nil
	}
	return bounded(ctx, ledgerTimeout, func(ctx context.Context) error {
		return c.needs.Marks.Mark(ctx, name, "stopped in order while "+c.cfg.Peer+" was not connected")
	})
}

// Returned takes the note of an orderly stop away, until ctx ends.
func (c *Controller) Returned(ctx context.Context) error {
	name := MarkLeft(c.cfg.Resource, c.cfg.Self)
	if !c.needs.Marks.Marked(name) {
		return nil
	}
	return bounded(ctx, ledgerTimeout, func(ctx context.Context) error { return c.needs.Marks.Unmark(ctx, name) })
}
