package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hapair/agent/apiv1"
	"hapair/mirror"
	"hapair/mirror/dirty"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// Verify compares the copies while they are in use, or ends that.
func (b *backend) Verify(ctx context.Context, name string, q apiv1.VerifyRequest) (apiv1.Changed, error) {
	if q.RateBytesPerS < 0 {
		return apiv1.Changed{}, &apiv1.Problem{Code: apiv1.CodeBadRequest, Text: fmt.Sprintf("rate_bytes_per_s is %d; 0 or more", q.RateBytesPerS)}
	}
	asked := "verify"
	switch {
	case q.Stop:
		asked = "verify --stop"
	case q.Repair:
		asked = "verify --repair"
	}
	peer := ""
	c, err := b.change(ctx, name, asked, func(r *resource) error {
		peer = r.peer
		if q.Stop {
			return r.stopVerify(ctx)
		}
		return r.beginVerify(ctx, q)
	})
	switch {
	case q.Stop:
		c.Text = name + ": the verify is stopped; hactl verify " + name + " --resume goes on where it was"
	case q.Repair:
		c.Text = fmt.Sprintf("%s: the copies are being compared, and what differs at %s is written anew from %s, the Primary; hactl status --watch shows how far", name, peer, b.a.self)
	default:
		c.Text = fmt.Sprintf("%s: the copies are being compared; hactl status --watch shows how far", name)
	}
	return c, err
}

func (r *resource) stopVerify(ctx context.Context) error {
	err := r.mirror.StopVerify(ctx)
	if errors.Is(err, engine.ErrBadState) && r.verify.forget() {
		return nil // one of an earlier life of this agent, that waited
	}
	if err != nil {
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: err.Error(), Hint: "hactl status " + r.name}
	}
	r.verify.look(r.mirror.View())
	return nil
}

// beginVerify starts one that an operator wants; it takes the place of one of
// the configuration's, and of one that waits to go on.
func (r *resource) beginVerify(ctx context.Context, q apiv1.VerifyRequest) error {
	c := r.copies()
	if p := c.mayVerify(q); p != nil {
		return p
	}
	if c.mirror.Verify.State == engine.VerifyRunning && r.verify.scheduled() {
		if err := r.mirror.StopVerify(ctx); err != nil {
			return &apiv1.Problem{Code: apiv1.CodeRefused, Text: err.Error()}
		}
		r.verify.look(r.mirror.View())
	}
	o := mirror.VerifyOptions{Volume: mirror.AllVolumes, Repair: q.Repair, Rate: q.RateBytesPerS, Resume: q.Resume}
	if q.Volume != nil {
		o.Volume = *q.Volume
	}
	if q.Resume {
		o.From = r.verify.stoppedAt()
	}
	if err := r.verify.begin(ctx, o, false); err != nil {
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: err.Error(), Hint: "hactl status " + r.name}
	}
	return nil
}

// mayVerify says why the copies cannot be compared from here, nil when they can.
func (c *copies) mayVerify(q apiv1.VerifyRequest) *apiv1.Problem {
	if p := c.hasVolume(q.Volume); p != nil {
		return p
	}
	v := &c.mirror
	switch {
	case v.State != state.Connected:
		return &apiv1.Problem{Code: apiv1.CodePeerAway, Text: fmt.Sprintf("%s is not connected (%s): there is nothing to compare with", c.peer, v.State), Hint: "hactl status " + c.resource}
	case v.PeerRole == state.Primary:
		return &apiv1.Problem{Code: apiv1.CodeNotPrimary, Text: fmt.Sprintf("%s is Primary, and a verify is led by the Primary", c.peer),
			Hint: fmt.Sprintf("hactl verify %s on %s", c.resource, c.peer)}
	case q.Repair && v.Role != state.Primary:
		return &apiv1.Problem{Code: apiv1.CodeNotPrimary, Text: "nobody is Primary: which copy is right is not proven by what an application sees",
			Hint: fmt.Sprintf("hactl promote %s, or hactl verify %s without --repair", c.resource, c.resource)}
	}
	return nil
}

// verifyStatus is the latest verify that this node led.
func (r *resource) verifyStatus(v *mirror.View) apiv1.Verify {
	w := &v.Verify
	out := apiv1.Verify{State: w.State.String(), Repair: w.Repair, Waits: w.Waits, Because: w.Because, DoneBytes: w.Done, TotalBytes: w.Total,
		RateBytesPerS: w.Rate, ETAS: -1, DifferingBytes: w.Differing * dirty.BlockBytes, UnreadableBytes: w.Unreadable * dirty.BlockBytes,
		RepairedBytes: w.Repaired * dirty.BlockBytes, FoundMore: w.Truncated}
	if w.Volume != engine.AllVolumes {
		out.Volume = &w.Volume
	}
	if w.Rate > 0 {
		out.ETAS = (w.Total - w.Done) / w.Rate
	}
	for _, d := range w.Found {
		out.Found = append(out.Found, apiv1.Range{Volume: int(d.Volume), Offset: d.Offset, Length: d.Length, Kind: d.Kind, Repaired: d.Repaired})
	}
	r.verify.fill(&out)
	return out
}

// unequal says what is known to differ though both copies are in sync, "" when
// nothing is.
func (r *resource) unequal(v *mirror.View) string {
	w := &v.Verify
	if v.Replication != state.Established {
		return ""
	}
	var here, there int64
	for _, x := range v.Volumes {
		here, there = here+x.DirtyBytes, there+x.PeerDirty
	}
	switch {
	case here > 0:
		return fmt.Sprintf("a verify found %d bytes of %s's copy that differ from this one; the next resync repairs them, or a repair now", here, r.peer)
	case there > 0:
		return fmt.Sprintf("%s says that %d bytes of this copy differ from its own", r.peer, there)
	case w.Unreadable > 0 && w.Repaired < w.Differing+w.Unreadable:
		return fmt.Sprintf("a verify found %d bytes that could not be read; hactl status --output json lists where", w.Unreadable*dirty.BlockBytes)
	}
	return ""
}

// timeOf is a time for JSON, null when there is none.
func timeOf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
