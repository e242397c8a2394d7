package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hapair/agent/apiv1"
	"hapair/agent/recorder"
	"hapair/agent/recorder/story"
)

// sampleStory is told by beta: alpha, whose clock is an hour fast, died; of its
// second life number 2 is missing. gamma was never heard.
func sampleStory(at time.Time) *recorder.Story {
	entry := func(node string, life, seq uint64, after time.Duration, resource string) story.Entry {
		e := story.Entry{Stamp: story.At(at.Add(time.Hour + after)), Wall: at.Add(after).UnixNano(), Node: node, Life: life, Seq: seq, Kind: "role", Resource: resource, Text: fmt.Sprint(node, seq)}
		if node == "alpha" {
			e.Skew = int64(time.Hour)
			e.Wall += e.Skew
		}
		return e
	}
	s := &recorder.Story{Disk: recorder.Disk{Loaded: true}}
	s.Entries = []story.Entry{
		entry("alpha", 1, 8, 0, "pg"), entry("alpha", 2, 1, time.Minute, ""), entry("alpha", 2, 3, 2*time.Minute, "pg"), entry("beta", 5, 1, 3*time.Minute, "web"),
	}
	s.Gaps = story.Gaps(s.Entries)
	s.Sources = []recorder.Source{
		{Node: "beta", Self: true, First: &s.Entries[3], Last: &s.Entries[3]},
		{Node: "alpha", First: &s.Entries[0], Last: &s.Entries[2], Since: at.Add(150 * time.Second), Err: errors.New("no route"), Skew: time.Hour, SkewKnown: true},
		{Node: "gamma", Older: true, Since: at},
	}
	return s
}

func TestTimelineOf(t *testing.T) {
	at := time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC)
	of := func(q apiv1.TimelineQuery) string {
		tl := timelineOf(sampleStory(at), q, at)
		var out []string
		for _, e := range tl.Entries {
			out = append(out, e.Text)
		}
		return fmt.Sprint(strings.Join(out, " "), ", gaps ", len(tl.Gaps))
	}
	for want, q := range map[string]apiv1.TimelineQuery{
		"alpha8 alpha1 alpha3 beta1, gaps 1": {},
		"alpha8 alpha1 alpha3, gaps 1":       {Resource: "pg"},
		"beta1, gaps 0":                      {Node: "beta"},
		"alpha1, gaps 0":                     {Since: at.Add(time.Minute), Until: at.Add(time.Minute)},
		"alpha3 beta1, gaps 1":               {Since: at.Add(2 * time.Minute)},
		", gaps 0":                           {Since: at.Add(time.Hour)},
	} {
		if got := of(q); got != want {
			t.Errorf("%+v: %q, want %q", q, got, want)
		}
	}
	tl := timelineOf(sampleStory(at), apiv1.TimelineQuery{}, at)
	if d := cmp.Diff([]string{
		"the record of alpha ends at 2026-11-27 04:02:00.000 by its clock; it has not been heard since 2026-11-27 03:02:30.000",
		"nothing of gamma is known: its release keeps no flight record",
		"of alpha, numbers 2 to 2 of life 00000000000002 are missing",
	}, tl.Missing); d != "" {
		t.Error(d)
	}
	if s := tl.Sources[1]; s.SkewMS != 3600_000 || s.Because != "no route" || tl.Sources[0].Since != nil {
		t.Errorf("%+v", tl.Sources)
	}
}

// What the story may lack because of this node's own disk is said.
func TestTimelineSaysItsDisk(t *testing.T) {
	at := time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC)
	s := sampleStory(at)
	s.Disk = recorder.Disk{Dropped: 3, Err: errors.New("no space left")}
	tl := timelineOf(s, apiv1.TimelineQuery{Node: "beta", Since: at}, at)
	text := strings.Join(tl.Missing, "; ")
	for _, want := range []string{"not been read yet", "no space left", "3 entries are not on this node's disk", "the record of beta begins at"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
}

// An answer is bounded by the number of its entries and by their texts; the newest
// stay.
func TestTimelineIsBounded(t *testing.T) {
	short, long := make([]apiv1.TimelineEntry, timelineMost+7), make([]apiv1.TimelineEntry, 2000)
	for i := range long {
		long[i].Text = strings.Repeat("x", 2048)
		long[i].Fields = map[string]string{"k": strings.Repeat("y", 2047)}
	}
	for _, x := range []struct {
		entries []apiv1.TimelineEntry
		want    int
	}{{nil, 0}, {short[:timelineMost], 0}, {short, 7}, {long, 2000 - timelineTextBytes/4096}} {
		if got := leftOut(x.entries); got != x.want {
			t.Errorf("of %d entries %d are left out, want %d", len(x.entries), got, x.want)
		}
	}
}
