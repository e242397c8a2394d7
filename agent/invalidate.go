package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/peering"
	"hapair/mirror"
	"hapair/mirror/meta"
	"hapair/mirror/state"
)

// The question whether the peer gives up its copy, and how long it may take.
const (
	invalidatePurpose = "invalidate"
	invalidateTimeout = 30 * time.Second
)

type invalidateQuestion struct {
	Resource string `json:"resource"`
	Volume   *int   `json:"volume,omitempty"` // nil: all
}

type invalidateAnswer struct {
	Refused *apiv1.Problem `json:"refused,omitempty"`
}

// Invalidate makes a copy worthless: this node's, or the peer's.
func (b *backend) Invalidate(ctx context.Context, name string, q apiv1.InvalidateRequest) (apiv1.Changed, error) {
	given, kept := b.a.self, ""
	c, err := b.change(ctx, name, "invalidate", func(r *resource) error {
		if kept = r.peer; !q.Peer {
			return r.invalidate(ctx, q.Volume)
		}
		given, kept = kept, given
		return r.invalidatePeer(ctx, q.Volume)
	})
	what := "copy"
	if q.Volume != nil {
		what = fmt.Sprintf("volume %d", *q.Volume)
	}
	c.Text = fmt.Sprintf("%s: the %s of %s is given up, that of %s is copied to it; hactl status --watch shows how far", name, what, given, kept)
	return c, err
}

// Attach takes disks of this node into use again that have failed.
func (b *backend) Attach(ctx context.Context, name string, q apiv1.AttachRequest) (apiv1.Changed, error) {
	c, err := b.change(ctx, name, "attach", func(r *resource) error {
		err := r.mirror.Attach(ctx, mirror.AttachOptions{Create: q.CreateMetadata, Force: q.Force})
		var no *apiv1.Problem
		if err == nil || errors.As(err, &no) {
			return err
		}
		p := &apiv1.Problem{Code: apiv1.CodeRefused, Text: err.Error(), Hint: "hactl status " + name}
		switch {
		case errors.Is(err, meta.ErrNone) && !q.CreateMetadata:
			p.Hint = fmt.Sprintf("hactl attach %s --create-metadata, if the disk is another one", name)
		case errors.Is(err, meta.ErrExists), errors.Is(err, meta.ErrWouldCut):
			p.Hint = fmt.Sprintf("hactl attach %s --create-metadata --force overwrites what is there", name)
		}
		return p
	})
	c.Text = fmt.Sprintf("%s: the disk of %s is attached, and is filled from the other copy; hactl status --watch shows how far", name, b.a.self)
	return c, err
}

// mayGiveUp says why this node's copy must not be given up, nil when it may.
func (c *copies) mayGiveUp(volume *int) *apiv1.Problem {
	refuse := func(code, hint, format string, args ...any) *apiv1.Problem {
		return &apiv1.Problem{Code: code, Text: fmt.Sprintf(format, args...), Hint: hint}
	}
	if p := c.hasVolume(volume); p != nil {
		return p
	}
	v := &c.mirror
	switch {
	case v.Role == state.Primary && c.split():
		return refuse(apiv1.CodeRefused, fmt.Sprintf("hactl demote %s --force, then hactl connect %s --discard-my-data", c.resource, c.resource),
			"%s is Primary: its copy of %s is in use", c.self, c.resource)
	case v.Role == state.Primary:
		return refuse(apiv1.CodeRefused, fmt.Sprintf("hactl switchover %s, then again on %s", c.resource, c.self), "%s is Primary: its copy of %s is in use", c.self, c.resource)
	case c.record.Has(c.self) && !c.record.Has(c.peer) && !c.ledgerSplit:
		return refuse(apiv1.CodeNotUpToDate, "hactl status --watch, until "+c.peer+" is in sync too",
			"the copy of %s is the only good one: the ledger does not call that of %s current", c.self, c.peer)
	case c.split():
		return nil // the other side holds data of its own: the operator says that they count
	case v.State != state.Connected:
		return refuse(apiv1.CodePeerAway, "hactl status "+c.resource,
			"%s is not connected (%s): whether its copy is good is not known, and that of %s may be the only one", c.peer, v.State, c.self)
	}
	for _, x := range v.Volumes {
		if !x.PeerDisk.CanServe() {
			return refuse(apiv1.CodeNotUpToDate, "hactl status --watch", "the copy of %s is the only good one: volume %d of %s is %s", c.self, x.Number, c.peer, x.PeerDisk)
		}
	}
	return nil
}

func (c *copies) hasVolume(volume *int) *apiv1.Problem {
	var have []uint16
	for _, v := range c.mirror.Volumes {
		have = append(have, v.Number)
	}
	if volume == nil || slices.ContainsFunc(have, func(n uint16) bool { return int(n) == *volume }) {
		return nil
	}
	return &apiv1.Problem{Code: apiv1.CodeNotFound, Text: fmt.Sprintf("%s has no volume %d; it has %v", c.resource, *volume, have), Hint: "hactl status " + c.resource}
}

// mayReplace says why the peer's copy must not be replaced by this node's, nil
// when it may. The peer has a word to say as well.
func (c *copies) mayReplace(volume *int) *apiv1.Problem {
	if p := c.hasVolume(volume); p != nil {
		return p
	}
	for _, x := range c.mirror.Volumes {
		if x.Disk != state.UpToDate {
			return &apiv1.Problem{Code: apiv1.CodeNotUpToDate, Hint: "hactl explain " + c.resource,
				Text: fmt.Sprintf("volume %d of %s is %s: nothing good would be left if %s gave its copy up", x.Number, c.self, x.Disk, c.peer)}
		}
	}
	if !c.record.Has(c.self) && !c.ledgerSplit {
		return &apiv1.Problem{Code: apiv1.CodeNotUpToDate, Hint: "hactl explain " + c.resource,
			Text: fmt.Sprintf("the ledger does not call the copy of %s current: that of %s must not be given up for it", c.self, c.peer)}
	}
	return nil
}

// invalidate gives up this node's copy, once the ledger has taken it out of the
// in-sync set.
func (r *resource) invalidate(ctx context.Context, volume *int) error {
	c := r.copies()
	if p := c.mayGiveUp(volume); p != nil {
		return p
	}
	if err := r.surrender(ctx, &c); err != nil {
		return err
	}
	return r.declareWorthless(ctx, volume)
}

// declareWorthless has this node's copy replaced as a whole.
func (r *resource) declareWorthless(ctx context.Context, volume *int) error {
	which := mirror.AllVolumes
	if volume != nil {
		which = *volume
	}
	if err := r.mirror.Invalidate(ctx, which); err != nil {
		code := apiv1.CodeRefused
		if errors.Is(err, mirror.ErrUndecided) {
			code = apiv1.CodeNoQuorum
		}
		return &apiv1.Problem{Code: code, Text: err.Error(), Hint: "hactl status " + r.name + ", then again"}
	}
	return nil
}

// invalidatePeer has the peer give up its copy. It does so itself, durably,
// before this node's is sent.
func (r *resource) invalidatePeer(ctx context.Context, volume *int) error {
	c := r.copies()
	if p := c.mayReplace(volume); p != nil {
		return p
	}
	ctx, cancel := context.WithTimeout(ctx, invalidateTimeout)
	defer cancel()
	var answer invalidateAnswer
	if err := r.a.exchange(ctx, r.peer, invalidatePurpose, invalidateQuestion{r.name, volume}, &answer); err != nil {
		return &apiv1.Problem{Code: apiv1.CodePeerAway, Text: fmt.Sprintf("%s does not answer: %v", r.peer, err),
			Hint: fmt.Sprintf("hactl status %s; when %s is back, again, or hactl invalidate %s there", r.name, r.peer, r.name)}
	}
	if p := answer.Refused; p != nil {
		return &apiv1.Problem{Code: p.Code, Text: r.peer + " refuses: " + p.Text, Hint: p.Hint}
	}
	if r.mirror.View().State == state.StandAlone {
		r.mirror.Connect()
	}
	return nil
}

// acceptInvalidate gives up this node's copy at the peer's request.
func (a *agent) acceptInvalidate(c *peering.Conn) {
	defer closeQuietly(c)
	var q invalidateQuestion
	var answer invalidateAnswer
	if err := take(c, invalidateTimeout, &q); err != nil {
		a.log.Warn("a question was not understood", zap.String("peer", c.Node), zap.Error(err))
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), invalidateTimeout)
	defer cancel()
	if err := a.invalidateFor(ctx, c.Node, q); err != nil {
		a.log.Warn("the copy is kept", zap.String("resource", q.Resource), zap.String("peer", c.Node), zap.Error(err))
		answer.Refused = refusal(err)
	}
	a.give(c, answer)
}

func (a *agent) invalidateFor(ctx context.Context, node string, q invalidateQuestion) error {
	r, p := a.shared(node, q.Resource)
	if p != nil {
		return p
	}
	a.event(apiv1.EventOperator, q.Resource, "asked on "+node+": invalidate")
	return r.invalidate(ctx, q.Volume)
}
