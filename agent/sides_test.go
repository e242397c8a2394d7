package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hapair/agent/apiv1"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// parted is two volumes, of which a side has 1 and 2 blocks that the other lacks.
func parted(since *time.Time, counted bool, generation, base string) []apiv1.SideVolume {
	return []apiv1.SideVolume{
		{Number: 0, DirtyBlocks: 1, DirtyBytes: 4096, Counted: counted, Since: since, Generation: generation, Base: base},
		{Number: 1, DirtyBlocks: 2, DirtyBytes: 8192, Counted: counted, Generation: "0000000000000000", Base: "0000000000000000"},
	}
}

// Both sides of a split brain are told, with the way to keep each and what it costs.
func TestSidesOfASplitBrain(t *testing.T) {
	c := inLine()
	if got := c.sides(); got != nil {
		t.Errorf("a pair in line has sides: %+v", got)
	}
	c.record.Token, c.mirror.State, c.mirror.Role, c.ledgerSplit = 9, state.Connecting, state.Primary, true
	v := c.mirror.Volumes
	v[0].DirtyBytes, v[0].Since, v[0].Elder, v[0].Generation, v[0].Base, v[1].DirtyBytes = 4096, 1700000000, true, 0x21, 0x11, 8192
	demote, discard := "hactl demote pg --force", "hactl connect pg --discard-my-data"
	since := time.Unix(1700000000, 0).UTC()
	here := apiv1.Side{Node: "beta", Role: "Primary", Token: 9, OnlyBytes: 12288, WasPrimary: true, Since: &since, Keep: []string{demote, discard}, KeepOn: "alpha",
		Loses: "everything that only alpha has; how much is not known", Volumes: parted(&since, true, "0000000000000021", "0000000000000011")}
	unheard := apiv1.Side{Node: "alpha", Role: "Unknown", OnlyBytes: apiv1.UnknownBytes, Keep: []string{demote, discard}, KeepOn: "beta",
		Loses: "at most 12288 bytes that only beta has, written since 2023-11-14T22:13:20Z"}
	if d := cmp.Diff([]apiv1.Side{here, unheard}, c.sides()); d != "" {
		t.Errorf("the ledgers are split, the peer's copy was not met:\n%s", d)
	}
	rival := []engine.RivalVolume{{Number: 0, DirtyBytes: 4096, Since: 1700000000, Current: 0x31, Base: 0x11, Counted: true}, {Number: 1, DirtyBytes: 8192, Counted: true}}
	c.ledgerSplit, c.mirror.Rival = false, &engine.Rival{Role: state.Primary, Token: 7, DirtyBytes: 12288, Volumes: rival, Because: "so it is"}
	heard := apiv1.Side{Node: "alpha", Role: "Primary", Token: 7, OnlyBytes: 12288, Since: &since, Keep: []string{demote, discard}, KeepOn: "beta",
		Loses: unheard.Loses, Volumes: parted(&since, true, "0000000000000031", "0000000000000011")}
	here.Loses = "at most 12288 bytes that only alpha has, written since 2023-11-14T22:13:20Z"
	if d := cmp.Diff([]apiv1.Side{here, heard}, c.sides()); d != "" || c.policy() != "so it is" {
		t.Errorf("both are Primary, %q:\n%s", c.policy(), d)
	}
	c.mirror.Role, c.mirror.SplitBrain, c.mirror.Rival.Role = state.Secondary, true, state.Secondary
	here.Role, heard.Role, here.Keep, heard.Keep = "Secondary", "Secondary", []string{discard}, []string{discard}
	rival[0].Counted, rival[1].Counted = false, false
	here.Volumes, heard.Volumes = parted(&since, false, "0000000000000021", "0000000000000011"), parted(&since, false, "0000000000000031", "0000000000000011")
	here.OnlyBytes, here.Loses = apiv1.UnknownBytes, "everything that only alpha has; how much is not known"
	heard.OnlyBytes, heard.Loses = apiv1.UnknownBytes, "everything that only beta has; how much is not known"
	if d := cmp.Diff([]apiv1.Side{here, heard}, c.sides()); d != "" {
		t.Errorf("neither is Primary:\n%s", d)
	}
}
