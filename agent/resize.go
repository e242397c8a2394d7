package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/peering"
	"hapair/mirror"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// The question to the Primary to give a volume another size, and how long it may take
// when nobody says.
const (
	resizePurpose = "resize"
	resizeTimeout = 2 * time.Minute
)

type resizeQuestion struct {
	Resource string              `json:"resource"`
	Request  apiv1.ResizeRequest `json:"request"`
}

// resized is the size of one volume before and after.
type resized struct {
	Volume   int   `json:"volume"`
	WasBytes int64 `json:"was_bytes"`
	NowBytes int64 `json:"now_bytes"`
}

type resizeAnswer struct {
	Sizes   []resized      `json:"sizes,omitempty"`
	Refused *apiv1.Problem `json:"refused,omitempty"`
}

// Resize gives volumes another size on both nodes. The Primary leads: it is asked
// when it is the other one.
func (b *backend) Resize(ctx context.Context, name string, q apiv1.ResizeRequest) (apiv1.Changed, error) {
	if q.SizeBytes < 0 || q.SizeBytes%4096 != 0 {
		return apiv1.Changed{}, &apiv1.Problem{Code: apiv1.CodeBadRequest, Text: fmt.Sprintf("size_bytes is %d; 0 or more, a multiple of 4096", q.SizeBytes)}
	}
	ctx, cancel := waiting(ctx, q.WaitMS)
	defer cancel()
	var sizes []resized
	c, err := b.change(ctx, name, "resize", func(r *resource) (err error) {
		if v := r.mirror.View(); v.State == state.Connected && v.PeerRole == state.Primary {
			sizes, err = r.resizeThere(ctx, q)
		} else {
			sizes, err = r.resize(ctx, q)
		}
		return err
	})
	c.Text = ""
	for _, s := range sizes {
		if c.Text != "" {
			c.Text += "; "
		}
		c.Text += fmt.Sprintf("%s/%d: was %d bytes, now %d", name, s.Volume, s.WasBytes, s.NowBytes)
		if s.WasBytes == s.NowBytes {
			c.Text += ": the disks of both nodes offer no more"
		}
	}
	return c, err
}

// resizeThere has the peer, which is Primary, lead.
func (r *resource) resizeThere(ctx context.Context, q apiv1.ResizeRequest) ([]resized, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, resizeTimeout)
		defer cancel()
	}
	if until, ok := ctx.Deadline(); ok {
		q.WaitMS = max(time.Until(until).Milliseconds(), 1)
	}
	var answer resizeAnswer
	err := r.a.exchange(ctx, r.peer, resizePurpose, resizeQuestion{r.name, q}, &answer)
	if unknownThere(err) {
		return nil, r.resizeProblem(fmt.Errorf("the release of %s, which is Primary, does not resize: %w", r.peer, engine.ErrPeerRelease))
	}
	if err != nil {
		return nil, &apiv1.Problem{Code: apiv1.CodePeerAway, Text: fmt.Sprintf("%s, which is Primary, does not answer: %v", r.peer, err),
			Hint: fmt.Sprintf("hactl status %s says whether it has grown; hactl resize %s on %s", r.name, r.name, r.peer)}
	}
	if p := answer.Refused; p != nil {
		return nil, &apiv1.Problem{Code: p.Code, Text: r.peer + ": " + p.Text, Hint: p.Hint}
	}
	return answer.Sizes, nil
}

// acceptResize leads a resize at the peer's request.
func (a *agent) acceptResize(c *peering.Conn) {
	defer closeQuietly(c)
	var q resizeQuestion
	var answer resizeAnswer
	if err := take(c, resizeTimeout, &q); err != nil {
		a.log.Warn("a question was not understood", zap.String("peer", c.Node), zap.Error(err))
		return
	}
	ctx, cancel := waiting(context.Background(), max(q.Request.WaitMS, 1))
	defer cancel()
	var err error
	if until, ok := ctx.Deadline(); ok {
		err = c.SetDeadline(until.Add(time.Second))
	}
	if err == nil {
		answer.Sizes, err = a.resizeFor(ctx, c.Node, q)
	}
	if err != nil {
		a.log.Warn("no resize", zap.String("resource", q.Resource), zap.String("peer", c.Node), zap.Error(err))
		answer.Refused = refusal(err)
	}
	a.give(c, answer)
}

func (a *agent) resizeFor(ctx context.Context, node string, q resizeQuestion) ([]resized, error) {
	r, p := a.shared(node, q.Resource)
	if p != nil {
		return nil, p
	}
	a.event(apiv1.EventOperator, q.Resource, "asked on "+node+": resize")
	return r.resize(ctx, q.Request)
}

// resize leads one, volume by volume.
func (r *resource) resize(ctx context.Context, q apiv1.ResizeRequest) (done []resized, err error) {
	c := r.copies()
	if p := c.hasVolume(q.Volume); p != nil {
		return nil, p
	}
	if q.Volume == nil && q.SizeBytes != 0 && len(r.conf.Volumes) > 1 {
		return nil, &apiv1.Problem{Code: apiv1.CodeBadRequest, Text: fmt.Sprintf("%s has %d volumes: a size is of one of them", r.name, len(r.conf.Volumes)), Hint: "name it: --volume N"}
	}
	for i, v := range c.mirror.Volumes {
		if q.Volume != nil && *q.Volume != int(v.Number) {
			continue
		}
		o := mirror.ResizeOptions{Volume: int(v.Number), Size: q.SizeBytes, AssumeClean: q.AssumeClean, AssumePeerHasSpace: q.AssumePeerHasSpace, CutData: q.CutData}
		if limit := int64(r.conf.Volumes[i].Size); o.Size == 0 {
			if limit != 0 && limit < v.SizeBytes {
				return done, &apiv1.Problem{Code: apiv1.CodeRefused, Text: fmt.Sprintf("volume %d has %d bytes, the configuration says size: %s; a volume is made smaller only when the size is named", v.Number, v.SizeBytes, r.conf.Volumes[i].Size),
					Hint: fmt.Sprintf("hactl resize %s --volume %d --size %s", r.name, v.Number, r.conf.Volumes[i].Size)}
			}
			o.Size = limit // of the configuration, or none
		} else if limit != 0 && o.Size != limit {
			return done, &apiv1.Problem{Code: apiv1.CodeRefused, Text: fmt.Sprintf("the configuration says size: %s for volume %d, %d bytes are asked for", r.conf.Volumes[i].Size, v.Number, o.Size),
				Hint: "change size in the configuration of both nodes, or leave it out, and systemctl restart hapair on each, one after the other"}
		}
		now, err := r.mirror.Resize(ctx, o)
		if err != nil {
			return done, r.resizeProblem(err)
		}
		done = append(done, resized{Volume: int(v.Number), WasBytes: v.SizeBytes, NowBytes: now})
	}
	return done, nil
}

// resizeProblem says what would help.
func (r *resource) resizeProblem(err error) error {
	p := &apiv1.Problem{Code: apiv1.CodeRefused, Text: err.Error(), Hint: "hactl status " + r.name + ", then again"}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		p.Code, p.Text, p.Hint = apiv1.CodeTimeout, fmt.Sprintf("the resize of %s goes on", r.name), "hactl status "+r.name+" shows the size when it is done; --wait waits longer"
	case errors.Is(err, engine.ErrPeerAway):
		p.Code, p.Hint = apiv1.CodePeerAway, "--assume-peer-has-space goes on without it, if its disk is large enough"
	case errors.Is(err, engine.ErrPeerRelease):
		p.Hint = fmt.Sprintf("upgrade haagent on %s, then hactl resize %s", r.peer, r.name)
	case errors.Is(err, mirror.ErrKept):
		p.Hint = fmt.Sprintf("hactl split-brain drop %s, then again", r.name)
	case errors.Is(err, engine.ErrWouldCut):
		p.Hint = "make the contents smaller first; --cut-data loses what lies behind the new size, whatever it is"
	case errors.Is(err, engine.ErrNoRoom):
		p.Hint = "enlarge the disk (lvextend), on both nodes, then again"
	}
	return p
}
