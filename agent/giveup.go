package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hapair/agent/apiv1"
	"hapair/mirror"
	"hapair/mirror/aside"
	"hapair/mirror/state"
)

// giveUpPatience bounds what a policy has a node do: the services have to stop
// before a Primary gives up.
const giveUpPatience = 2 * time.Minute

// discard gives up what only this node has, in favour of the other side of a
// split brain. Data that both have stay as they are, where the peer's release can
// do with what the two bitmaps say.
func (r *resource) discard(ctx context.Context, withoutImage bool) error {
	c := r.copies()
	if p := c.mayDiscard(); p != nil {
		return p
	}
	if p := c.mayGiveUp(nil); p != nil {
		return p
	}
	if err := r.surrender(ctx, &c); err != nil {
		return err
	}
	if err := r.mirror.DiscardData(ctx, mirror.DiscardOptions{WithoutImage: withoutImage, Whole: !told(c.mirror.Rival)}); err != nil {
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: err.Error(), Hint: r.discardHint(err)}
	}
	r.mirror.Connect()
	return nil
}

// discardHint is the way on where a side could not give up.
func (r *resource) discardHint(err error) string {
	without := fmt.Sprintf("hactl connect %s --discard-my-data --without-image", r.name)
	switch {
	case errors.Is(err, aside.ErrNoRoom):
		return "make room in " + r.a.cfg.StateDir + ", or do without keeping it: " + without
	case errors.Is(err, mirror.ErrKept):
		return fmt.Sprintf("hactl split-brain drop %s, then again; or %s", r.name, without)
	}
	return "hactl status " + r.name + ", then again"
}

// surrender discards this node's ledger where both went on alone: the victim's is
// given up with its data. The ledger is that of all resources, so it is refused while
// this node is Primary of another one.
func (r *resource) surrender(ctx context.Context, c *copies) error {
	if !c.ledgerSplit {
		return nil
	}
	if o := r.alsoPrimary(); o != nil {
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: fmt.Sprintf("%s is Primary of %s: the ledger of this node, which is that of all resources, would be given up with %s", r.a.self, o.name, r.name),
			Hint: fmt.Sprintf("keep one side of all resources: hactl explain %s; to give up this one: hactl demote %s, then again", o.name, o.name)}
	}
	if err := r.a.ledger.Surrender(ctx, "what only this node has is given up"); err != nil {
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: err.Error(), Hint: "hactl status on both nodes"}
	}
	return nil
}

// alsoPrimary is another resource that this node is Primary of, nil where there is none.
func (r *resource) alsoPrimary() *resource {
	for _, o := range r.a.order {
		if o != r && o.mirror.View().Role == state.Primary {
			return o
		}
	}
	return nil
}

// awaitOthers waits for those that a policy gives up as well: they are demoted each in
// its turn, and the ledger of all is given up after the last.
func (r *resource) awaitOthers(ctx context.Context) {
	for o := r.alsoPrimary(); o != nil && ctx.Err() == nil; o = r.alsoPrimary() {
		o.awaitMirror(ctx, func(v *mirror.View) bool { return v.Role != state.Primary })
	}
}

// giveUpByPolicy does what an operator would who chose the other side: stop the
// services, demote, give up. Whatever is in the way leaves both sides as they are.
func (r *resource) giveUpByPolicy(why string) {
	if !r.giving.CompareAndSwap(false, true) {
		return // two Primaries meet again and again
	}
	defer r.giving.Store(false)
	ctx, cancel := context.WithTimeout(context.Background(), giveUpPatience)
	defer cancel()
	r.a.event(apiv1.EventProblem, r.name, "split brain: "+why)
	if err := r.giveUpTo(ctx); err != nil {
		text := err.Error()
		var p *apiv1.Problem
		if errors.As(err, &p) {
			text = p.Text
		}
		r.a.event(apiv1.EventProblem, r.name, fmt.Sprintf("split brain: the policy could not be carried out, both sides stay as they are: %s; hactl explain %s", text, r.name))
	}
}

func (r *resource) giveUpTo(ctx context.Context) error {
	if r.mirror.View().Role == state.Primary {
		if err := r.control.Demote(ctx, true); err != nil {
			return fmt.Errorf("demote: %w", err)
		}
		// As Secondary it meets the other once more, and knows then.
		r.awaitMirror(ctx, func(v *mirror.View) bool { return v.Diverged() })
	}
	r.awaitOthers(ctx)
	if err := r.discard(ctx, false); err != nil {
		return err
	}
	if err := r.reconnectPeer(ctx); err != nil {
		return fmt.Errorf("this node has given up, and %s could not be told (hactl connect %s there): %w", r.peer, r.name, err)
	}
	return nil
}
