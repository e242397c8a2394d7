package commands

import (
	"strings"
	"testing"
	"time"

	"hapair/agent/apiv1"
)

// What an operator reads before he chooses.
func TestExplanationOfASplitBrain(t *testing.T) {
	since := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	e := apiv1.Explanation{Resource: "pg", Node: "alpha", Role: "Primary", Verdict: apiv1.NeedsForce, Text: "so it is", Policy: "one_primary is disconnect: an operator decides", Sides: []apiv1.Side{
		{Node: "alpha", Role: "Primary", WasPrimary: true, Token: 9, OnlyBytes: 3 << 20, Since: &since, Keep: []string{"hactl connect pg --discard-my-data"}, KeepOn: "beta",
			Volumes: []apiv1.SideVolume{{DirtyBlocks: 768, DirtyBytes: 3 << 20, Since: &since, Generation: "A1", Base: "A0"}}, Loses: "at most 4096 bytes that only beta has"},
		{Node: "beta", Role: "Unknown", OnlyBytes: apiv1.UnknownBytes, Keep: []string{"hactl demote pg --force", "hactl connect pg --discard-my-data"}, KeepOn: "alpha", Loses: "at most 3145728 bytes that only alpha has"},
	}}
	want := `pg on alpha: Primary in a split brain. so it is
  alpha  Primary, Primary when the two parted, token 9: has at most 3 MiB that beta may lack, since 2026-03-01 10:00:00 UTC by its clock
    volume 0: 768 blocks, 3 MiB, since 2026-03-01 10:00:00 UTC; generation A1 from A0; more may differ
    to keep that, run on beta, which gives up its own: hactl connect pg --discard-my-data
    that loses at most 4096 bytes that only beta has
  beta  Unknown, token 0: it was not heard what it has
    to keep that, run on alpha, which gives up its own: hactl demote pg --force, then hactl connect pg --discard-my-data
    that loses at most 3145728 bytes that only alpha has
  after_split_brain: one_primary is disconnect: an operator decides
`
	if got := renderExplanation(&e, style{}); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestKeptImages(t *testing.T) {
	r := &apiv1.Resource{Name: "pg"}
	for state, want := range map[string]string{"keeping": "complete", "undoing": "being put back", "undone": "put back", "incomplete": "incomplete (no room)"} {
		r.Kept = []apiv1.KeptImage{{State: state, Why: "no room", Peer: "beta", UsedBytes: 1 << 20, KeptBlocks: 256, Generation: "A1"}}
		var b strings.Builder
		if renderKept(&b, r, style{}); !strings.Contains(b.String(), "1 MiB in 256 blocks, "+want+";") || !strings.Contains(b.String(), "hactl split-brain mount pg") {
			t.Errorf("%s: %s", state, b.String())
		}
	}
}
