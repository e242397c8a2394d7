package commands

import (
	"strings"
	"testing"
	"time"

	"hapair/agent/api/apitest"
	"hapair/agent/apiv1"
)

func TestGoldenTimeline(t *testing.T) {
	sample := apitest.SampleTimeline()
	text := renderTimeline(&sample, style{})
	golden(t, "timeline", text)
	if plain := uncolour(renderTimeline(&sample, style{on: true})); plain != text {
		t.Error("coloured differently")
	}
	nothing := apiv1.Timeline{Node: "alpha", Entries: []apiv1.TimelineEntry{{Text: "a\x1b[2J\nb", Node: "\x07", Kind: "\r"}}}
	if out := renderTimeline(&nothing, style{}); strings.ContainsAny(strings.TrimSuffix(out, "\n"), "\x1b\x07\r") {
		t.Errorf("%q", out)
	}
}

func TestTimeFlag(t *testing.T) {
	now := time.Date(2026, 11, 27, 4, 5, 6, 0, time.FixedZone("x", 3600))
	for text, want := range map[string]string{
		"10m": "2026-11-27T03:55:06+01:00", "0s": "2026-11-27T04:05:06+01:00", "04:01": "2026-11-27T04:01:00+01:00", "23:01:02": "2026-11-27T23:01:02+01:00",
		"2026-11-26": "2026-11-26T00:00:00+01:00", "2026-11-26 01:02": "2026-11-26T01:02:00+01:00", "2026-11-26T01:02:03Z": "2026-11-26T01:02:03Z",
	} {
		if got, err := timeFlag("since", text, now); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %v, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "-5m", "25:00"} {
		if got, err := timeFlag("since", text, now); err == nil {
			t.Errorf("%s is %v", text, got)
		}
	}
}
