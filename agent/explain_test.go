package main

import (
	"testing"

	"hapair/agent/apiv1"
	"hapair/failover/plan"
)

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
