package apitest

import (
	"context"
	"time"

	"hapair/agent/apiv1"
)

// Drill records the request, and returns SampleDrill or its plan.
func (b *Backend) Drill(ctx context.Context, res string, r apiv1.DrillRequest) (apiv1.DrillReport, error) {
	if _, err := b.change(ctx, apiv1.VerbDrill, res, r, "", ""); err != nil {
		return apiv1.DrillReport{}, err
	}
	rep := SampleDrill()
	if !r.Yes {
		return apiv1.DrillReport{Resource: rep.Resource, Kind: rep.Kind, Node: rep.Node, Victim: rep.Victim, Plan: rep.Plan}, nil
	}
	return rep, nil
}

// SampleDrill is a failover that was rehearsed.
func SampleDrill() apiv1.DrillReport {
	at := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	return apiv1.DrillReport{
		Resource: "pg", Kind: apiv1.DrillAgent, Node: "beta", Victim: "alpha", Plan: []string{"the agent of alpha, the Primary, ends as by SIGKILL", "beta takes over"},
		Done: true, Began: at, RTOMS: 731.4, ResolutionMS: 20, Measured: "from the last word of alpha's agent to the first flush that was answered on beta",
		Parts: []apiv1.DrillPart{{Name: "detect", MS: 102}, {Name: "lease", MS: 498}, {Name: "mirror", MS: 41}}, Probes: 412,
		Lost: "not counted, for a drill writes no data: protocol C", Restored: true, RestoredMS: 4120,
		Steps: []apiv1.TimelineEntry{
			{Time: at.Add(2498 * time.Millisecond), SkewMS: 2500, Node: "alpha", Resource: "pg", Text: "drill agent, asked on beta"},
			{Time: at.Add(730 * time.Millisecond), Node: "beta", Resource: "pg", Text: "promoted pg on beta, token 12"},
		},
		Text: "drill agent of pg: nothing was answered for 731 ms; all was as before after 4.1 s",
	}
}
