package apitest

import (
	"context"
	"fmt"
	"time"

	"hapair/agent/apiv1"
)

// Timeline returns SampleTimeline, and remembers what was asked.
func (b *Backend) Timeline(_ context.Context, q apiv1.TimelineQuery) (apiv1.Timeline, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.UTC().Format(time.RFC3339)
	}
	b.asked = append(b.asked, fmt.Sprintf("timeline %q %q %s %s", q.Resource, q.Node, text(q.Since), text(q.Until)))
	if q.Resource != "" {
		if err := b.known(q.Resource); err != nil {
			return apiv1.Timeline{}, err
		}
	}
	return SampleTimeline(), b.fail["timeline"]
}

// SampleTimeline is a failover as the survivor tells it, whose clock is slow.
func SampleTimeline() apiv1.Timeline {
	at := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	entry := func(ms int, node string, seq uint64, kind, resource, text string) apiv1.TimelineEntry {
		e := apiv1.TimelineEntry{HLC: fmt.Sprintf("%013d.00000", at.UnixMilli()+int64(ms)), Time: at.Add(time.Duration(ms) * time.Millisecond), Node: node,
			Life: "000000000000" + node[:1], Seq: seq, Kind: kind, Resource: resource, Text: text}
		if node == "beta" {
			e.Time = e.Time.Add(-2500 * time.Millisecond)
		} else {
			e.SkewMS = 2500
		}
		return e
	}
	last, since := at.Add(900*time.Millisecond), at.Add(-500*time.Millisecond)
	return apiv1.Timeline{
		Node: "beta", Time: at.Add(time.Minute),
		Entries: []apiv1.TimelineEntry{
			entry(0, "alpha", 7, apiv1.EventConnection, "pg", "was Connecting, now Connected"),
			entry(900, "alpha", 9, apiv1.EventFrozen, "pg", "I/O is frozen: no quorum"),
			entry(1400, "beta", 21, apiv1.EventMember, "pg", "alpha was alive, now dead"),
			entry(2300, "beta", 22, apiv1.EventProblem, "", "path lan to alpha is dead"),
			entry(3000, "beta", 23, apiv1.EventRole, "pg", "promoted pg on beta, token 12, 1.6 s"),
		},
		Gaps: []apiv1.TimelineGap{{Node: "alpha", Life: "000000000000a", From: 8, To: 8, Before: fmt.Sprintf("%013d.00000", at.UnixMilli()+900)}},
		Sources: []apiv1.TimelineNode{
			{Node: "beta", Self: true, First: &at, Last: &last},
			{Node: "alpha", First: &at, Last: &last, Since: &since, Because: "no route to host", SkewMS: 2500, SkewKnown: true},
		},
		Missing: []string{"the record of alpha ends at 2026-11-21 03:00:00.900 by its clock; it has not been heard since 2026-11-21 02:59:59.500",
			"of alpha, numbers 8 to 8 of life 000000000000a are missing"},
	}
}
