package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"hapair/agent/apiv1"
	"hapair/failover/plan"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// Both sides of a split brain are told, with the way to keep each.
func TestSidesOfASplitBrain(t *testing.T) {
	c := inLine()
	if got := c.sides(); got != nil {
		t.Errorf("a pair in line has sides: %+v", got)
	}
	c.record.Token, c.mirror.State, c.mirror.Role, c.ledgerSplit = 9, state.Connecting, state.Primary, true
	c.mirror.Volumes[0].DirtyBytes, c.mirror.Volumes[1].DirtyBytes = 4096, 8192
	demote, discard := "hactl demote pg --force", "hactl connect pg --discard-my-data"
	here := apiv1.Side{Node: "beta", Role: "Primary", Token: 9, OnlyBytes: 12288, Keep: []string{demote, discard}}
	unheard := apiv1.Side{Node: "alpha", Role: "Unknown", OnlyBytes: apiv1.UnknownBytes, Keep: []string{demote, discard}}
	if d := cmp.Diff([]apiv1.Side{here, unheard}, c.sides()); d != "" {
		t.Errorf("the ledgers are split, the peer's copy was not met:\n%s", d)
	}
	c.ledgerSplit, c.mirror.Rival = false, &engine.Rival{Role: state.Primary, Token: 7, DirtyBytes: 4096}
	heard := apiv1.Side{Node: "alpha", Role: "Primary", Token: 7, OnlyBytes: 4096, Keep: []string{demote, discard}}
	if d := cmp.Diff([]apiv1.Side{here, heard}, c.sides()); d != "" {
		t.Errorf("both are Primary:\n%s", d)
	}
	c.mirror.Role, c.mirror.SplitBrain, c.mirror.Rival.Role = state.Secondary, true, state.Secondary
	here.Role, heard.Role, here.Keep, heard.Keep = "Secondary", "Secondary", []string{discard}, []string{discard}
	if d := cmp.Diff([]apiv1.Side{here, heard}, c.sides()); d != "" {
		t.Errorf("neither is Primary:\n%s", d)
	}
}

// What only speaks against a promotion nobody asked for does not forbid one
// that somebody does.
func TestVerdictOfAnExplanation(t *testing.T) {
	for _, c := range []struct {
		reason plan.Reason
		want   string
	}{
		{plan.Reason{Code: plan.CodeDisk, OK: true}, apiv1.MayPromote},
		{plan.Reason{Code: plan.CodeMaintenance, Unasked: true}, apiv1.MayPromote},
		{plan.Reason{Code: plan.CodeHolder, Passing: true}, apiv1.MustWait},
		{plan.Reason{Code: plan.CodeSplitBrain}, apiv1.NeedsForce},
		{plan.Reason{Code: plan.CodePeerPrimary}, apiv1.CannotServe},
	} {
		e := explanation([]plan.Reason{{Code: plan.CodeNoQuorum, OK: true}, c.reason})
		if e.Verdict != c.want || len(e.Why) != 2 || e.Why[0].Rule != "quorum" {
			t.Errorf("%+v: %+v, want %s", c.reason, e, c.want)
		}
	}
}
