package main

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/peering"
)

// After a split brain the other node stands alone until somebody tells it that
// the choice is made.
const reconnectPurpose = "reconnect"

type reconnectQuestion struct {
	Resource string `json:"resource"`
}

type reconnectAnswer struct {
	Refused string `json:"refused,omitempty"`
}

// Connect looks for the peer again.
func (b *backend) Connect(ctx context.Context, name string, q apiv1.ConnectRequest) (apiv1.Changed, error) {
	var untold error
	c, err := b.change(ctx, name, "connect", func(r *resource) error {
		if !q.DiscardMyData {
			return r.connect(ctx)
		}
		if err := r.discard(ctx, q.WithoutImage); err != nil {
			return err
		}
		untold = r.reconnectPeer(ctx)
		return nil
	})
	if err == nil && q.DiscardMyData && !q.WithoutImage && b.a.keeps(name) {
		c.Text += fmt.Sprintf("; what only %s has is given up, and kept: hactl split-brain show %s", b.a.self, name)
	}
	if untold != nil {
		c.Text += fmt.Sprintf("; the other node could not be told (%v): hactl connect %s there", untold, name)
	}
	return c, err
}

// reconnectPeer tells the peer that this node gives up what only it has.
func (r *resource) reconnectPeer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	var answer reconnectAnswer
	err := r.a.exchange(ctx, r.peer, reconnectPurpose, reconnectQuestion{r.name}, &answer)
	if err == nil && answer.Refused != "" {
		err = fmt.Errorf("%s refuses: %s", r.peer, answer.Refused)
	}
	return err
}

// acceptReconnect ends this node's standing alone for a split brain; what an
// operator disconnected stays so.
func (a *agent) acceptReconnect(c *peering.Conn) {
	defer closeQuietly(c)
	var q reconnectQuestion
	var answer reconnectAnswer
	if err := take(c, exchangeTimeout, &q); err != nil {
		a.log.Warn("a question was not understood", zap.String("peer", c.Node), zap.Error(err))
		return
	}
	r, p := a.shared(c.Node, q.Resource)
	switch {
	case p != nil:
		answer.Refused = p.Text
	case r.mirror.View().SplitBrain:
		a.event(apiv1.EventOperator, q.Resource, "asked on "+c.Node+": connect; it gives up what only it has")
		r.mirror.Connect()
	}
	a.give(c, answer)
}
