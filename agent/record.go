package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/peering"
	"hapair/agent/recorder"
	"hapair/agent/recorder/story"
)

// recordPurpose is the stream on which a node hears another one's record.
const recordPurpose = "record"

// recordPatience is how long the agent waits at its start for what earlier lives
// recorded, and at its end for what was recorded last.
const recordPatience = 2 * time.Second

func (a *agent) startRecorder(context.Context) error {
	r, err := recorder.New(recorder.Config{Self: a.self, Others: slices.DeleteFunc(a.cfg.Members(), func(n string) bool { return n == a.self }), Dir: filepath.Join(a.cfg.StateDir, "record"), Now: time.Now, Log: a.log,
		Dial: a.dialRecord, Foreign: unknownThere, Trouble: func(text string) { a.event(apiv1.EventProblem, "", text) }})
	if err != nil {
		return err
	}
	a.record = r
	a.onStop("flight recorder", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, recordPatience)
		defer cancel()
		return r.Close(ctx)
	})
	ctx, cancel := context.WithTimeout(context.Background(), recordPatience)
	defer cancel()
	if err := r.AwaitLoaded(ctx); err != nil { // its disk hangs; nothing waits for it
		a.log.Warn("the record of earlier lives is not read yet", zap.Error(err))
	}
	return nil
}

func (a *agent) dialRecord(ctx context.Context, node string) (net.Conn, error) {
	c, err := a.net.Dial(ctx, node, "", recordPurpose)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (a *agent) acceptRecord(c *peering.Conn) { a.record.Serve(c.Node, c) }

// Bounds of one answer: the newest entries are in it. Those with texts of the usual
// length, some 200 bytes, are bounded by their number.
const (
	timelineMost      = 20000
	timelineTextBytes = 4 << 20
)

// Timeline tells the story of all nodes, as far as it is known here.
func (b *backend) Timeline(_ context.Context, q apiv1.TimelineQuery) (apiv1.Timeline, error) {
	if q.Node != "" && !slices.Contains(b.a.memberNames(), q.Node) {
		return apiv1.Timeline{}, &apiv1.Problem{Code: apiv1.CodeNotFound, Text: fmt.Sprintf("there is no node %q", q.Node), Hint: "hactl status"}
	}
	if q.Resource != "" && b.a.cfg.Resource(q.Resource) == nil {
		return apiv1.Timeline{}, &apiv1.Problem{Code: apiv1.CodeNotFound, Text: fmt.Sprintf("there is no resource %q", q.Resource), Hint: "hactl status"}
	}
	s := b.a.record.Look()
	return timelineOf(&s, q, time.Now()), nil
}

// timelineOf chooses from a story what was asked for.
func timelineOf(s *recorder.Story, q apiv1.TimelineQuery, now time.Time) apiv1.Timeline {
	out := apiv1.Timeline{Node: s.Sources[0].Node, Time: now.UTC()}
	within := func(t time.Time) bool {
		return (q.Since.IsZero() || !t.Before(q.Since)) && (q.Until.IsZero() || !t.After(q.Until))
	}
	from, to := map[string]story.Stamp{}, map[string]story.Stamp{} // of each node's first and last entry within
	for i := range s.Entries {
		e := &s.Entries[i]
		if q.Node != "" && e.Node != q.Node || !within(e.Here()) {
			continue
		}
		if _, begun := from[e.Node]; !begun {
			from[e.Node] = e.Stamp
		}
		to[e.Node] = e.Stamp
		if q.Resource != "" && e.Resource != "" && e.Resource != q.Resource {
			continue
		}
		out.Entries = append(out.Entries, apiv1.TimelineEntry{HLC: e.Stamp.String(), Time: e.Time(), Node: e.Node, Life: lifeText(e.Life), Seq: e.Seq,
			Kind: e.Kind, Resource: e.Resource, Text: e.Text, Fields: e.Fields, SkewMS: e.Skew / int64(time.Millisecond)})
	}
	out.LeftOut = leftOut(out.Entries)
	out.Entries = out.Entries[out.LeftOut:]
	for _, g := range s.Gaps {
		if first, told := from[g.Node]; told && first <= g.Before && g.Before <= to[g.Node] {
			out.Gaps = append(out.Gaps, apiv1.TimelineGap{Node: g.Node, Life: lifeText(g.Life), From: g.From, To: g.To, Before: g.Before.String()})
		}
	}
	for i := range s.Sources {
		out.Sources = append(out.Sources, sourceOf(&s.Sources[i]))
	}
	out.Missing = missing(s, &out, q)
	return out
}

// leftOut is how many of the oldest entries an answer has no room for.
func leftOut(entries []apiv1.TimelineEntry) int {
	size := 0
	for i := range slices.Backward(entries) {
		e := &entries[i]
		size += len(e.Text)
		for name, value := range e.Fields {
			size += len(name) + len(value)
		}
		if len(entries)-i > timelineMost || size > timelineTextBytes {
			return i + 1
		}
	}
	return 0
}

func lifeText(l uint64) string { return fmt.Sprintf("%014x", l) }

func sourceOf(s *recorder.Source) apiv1.TimelineNode {
	out := apiv1.TimelineNode{Node: s.Node, Self: s.Self, Following: s.Following, Since: timeOf(s.Since), SkewMS: s.Skew.Milliseconds(), SkewKnown: s.SkewKnown}
	if s.First != nil {
		out.First, out.Last = timeOf(s.First.Time()), timeOf(s.Last.Time())
	}
	switch {
	case s.Following || s.Self:
	case s.Older:
		out.Because = "its release keeps no flight record"
	case s.Err != nil:
		out.Because = s.Err.Error()
	default:
		out.Because = "it was not reached yet"
	}
	return out
}

// missing says what the story may lack.
func missing(s *recorder.Story, t *apiv1.Timeline, q apiv1.TimelineQuery) (out []string) {
	for i := range t.Sources {
		n := &t.Sources[i]
		switch {
		case q.Node != "" && q.Node != n.Node:
		case n.First == nil && !n.Self:
			out = append(out, fmt.Sprintf("nothing of %s is known: %s", n.Node, n.Because))
		case n.First != nil && !n.Self && !n.Following:
			out = append(out, fmt.Sprintf("the record of %s ends at %s by its clock; it has not been heard since %s", n.Node, clockText(*n.Last), clockText(*n.Since)))
		}
		if from := s.Sources[i].First; from != nil && !q.Since.IsZero() && from.Here().After(q.Since) && (q.Node == "" || q.Node == n.Node) {
			out = append(out, fmt.Sprintf("the record of %s begins at %s", n.Node, clockText(*n.First)))
		}
	}
	for _, g := range t.Gaps {
		out = append(out, fmt.Sprintf("of %s, numbers %d to %d of life %s are missing", g.Node, g.From, g.To, g.Life))
	}
	if t.LeftOut > 0 {
		out = append(out, fmt.Sprintf("%d older entries are left out; ask for less at a time with --since and --until", t.LeftOut))
	}
	if !s.Disk.Loaded {
		out = append(out, "what was recorded here before the agent started has not been read yet")
	}
	if s.Disk.Err != nil {
		out = append(out, fmt.Sprintf("the disk of this node's record fails: %v", s.Disk.Err))
	}
	if s.Disk.Dropped > 0 {
		out = append(out, fmt.Sprintf("%d entries are not on this node's disk: a restart of its agent will forget them, where no other node has them", s.Disk.Dropped))
	}
	return out
}

func clockText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") }
