package main

import (
	"context"
	"fmt"
	"time"

	"hapair/agent/apiv1"
	"hapair/mirror"
	"hapair/mirror/state"
)

// How long an answer waits for the session with the peer to begin or to end.
const (
	connectPatience = 5 * time.Second
	connectLook     = 50 * time.Millisecond
)

// connect looks for the peer and answers with what came of it.
func (r *resource) connect(ctx context.Context) error {
	r.mirror.Connect()
	v := r.awaitMirror(ctx, func(v *mirror.View) bool { return v.State == state.Connected || v.State == state.StandAlone })
	if v.State != state.StandAlone || v.Reason == nil {
		return nil // what is still under way is said in the answer
	}
	p := &apiv1.Problem{Code: apiv1.CodeRefused, Text: v.Reason.Error(), Hint: "hactl explain " + r.name}
	if c := r.copies(); c.split() {
		p.Code, p.Hint = apiv1.CodeSplitBrain, c.giveUpHint()
	}
	return p
}

// disconnect ends the session for good. Unless forced, it is refused where that
// would leave a copy behind.
func (r *resource) disconnect(ctx context.Context, force bool) error {
	v := r.mirror.View()
	rec, _ := r.a.ledger.Record(r.name)
	if behind := leftBehind(&v, rec.Primary, r.a.self, r.peer); behind != "" && !force {
		return &apiv1.Problem{Code: apiv1.CodeWouldLose, Text: fmt.Sprintf("%s would be left behind: %s goes on writing without it, and its copy is the only current one then", behind, rec.Primary),
			Hint: "hactl disconnect " + r.name + " --force"}
	}
	r.mirror.Disconnect()
	r.awaitMirror(ctx, func(v *mirror.View) bool { return v.State == state.StandAlone })
	return nil
}

// leftBehind names the node whose copy lags once the session ends, "" if none.
func leftBehind(v *mirror.View, primary, self, peer string) string {
	switch {
	case v.State != state.Connected:
		return ""
	case primary == self:
		return peer
	case primary == peer:
		return self
	}
	return ""
}

// mayDiscard says why this side must not give up what only it has, nil when it
// may: it is the one of a split brain that does not write.
func (c *copies) mayDiscard() *apiv1.Problem {
	switch {
	case !c.split():
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: fmt.Sprintf("%s has no split brain (%s, %s): there is nothing to decide between", c.resource, c.mirror.Role, c.mirror.State),
			Hint: fmt.Sprintf("hactl connect %s; to have this copy replaced by that of %s: hactl invalidate %s", c.resource, c.peer, c.resource)}
	case c.mirror.Role == state.Primary:
		return &apiv1.Problem{Code: apiv1.CodeSplitBrain, Text: c.self + " is Primary of " + c.resource + ": it does not give up data it is writing", Hint: c.giveUpHint()}
	}
	return nil
}

// giveUpHint is how a split brain ends, on the side that gives up.
func (c *copies) giveUpHint() string {
	hint := fmt.Sprintf("hactl connect %s --discard-my-data", c.resource)
	if c.mirror.Role == state.Primary {
		hint = fmt.Sprintf("hactl demote %s, then %s", c.resource, hint)
	}
	return "on the side to give up: " + hint
}

// awaitMirror returns the view that satisfies ok, or the last one when that
// takes too long.
func (r *resource) awaitMirror(ctx context.Context, ok func(*mirror.View) bool) mirror.View {
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	look := time.NewTicker(connectLook)
	defer look.Stop()
	for {
		if v := r.mirror.View(); ok(&v) || ctx.Err() != nil {
			return v
		}
		select {
		case <-ctx.Done():
		case <-look.C:
		}
	}
}
