package failover

import (
	"context"

	"go.uber.org/zap"

	"hapair/failover/plan"
)

// goBack begins the switchover to the preferred node, as an operator would.
func (c *Controller) goBack(v plan.View, because string) error {
	if _, err := c.submit(plan.Wish{Kind: plan.Switchover, Target: c.cfg.Peer, Reason: because, Auto: true}, false); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.failback = failback{tries: v.Failback.Tries + 1, at: v.Now}
	return nil
}

// stay notes in the ledger that an operator moved the resource to node: away from
// the preferred one it stays until somebody moves it back. One that cannot be noted
// is no reason to fail what was done.
func (c *Controller) stay(ctx context.Context, node string) {
	s, name := c.cfg.Settings, MarkStay(c.cfg.Resource)
	if s.FailbackAfter == 0 || (node != s.Preferred) == c.needs.Marks.Marked(name) {
		return
	}
	set := func(ctx context.Context) error { return c.needs.Marks.Unmark(ctx, name) }
	if node != s.Preferred {
		set = func(ctx context.Context) error {
			return c.needs.Marks.Mark(ctx, name, "moved to "+node+" by the operator")
		}
	}
	if err := bounded(ctx, ledgerTimeout, set); err != nil {
		c.log.Warn("that it was moved by an operator could not be noted", zap.String("to", node), zap.Error(err))
	}
}

// arrived takes the note of an operator's move away when the preferred node is
// Primary again, however it came to be. It belongs to Run.
func (c *Controller) arrived(v plan.View, d plan.Decision) {
	if d.Code != plan.CodeSettled || !v.Failback.Stay || c.cfg.Self != c.cfg.Settings.Preferred || v.Now < c.unstayed+ledgerTimeout {
		return
	}
	c.unstayed = v.Now
	c.stepping.Go(func() { c.stay(context.Background(), c.cfg.Self) })
}
