package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"hapair/agent/apiv1"
	"hapair/agent/config"
)

// Bounds of a drill.
const (
	drillSeconds    = 10 // a path is closed for, unless asked otherwise
	drillSecondsMin = 3  // less than a heartbeat needs to notice would rehearse nothing
	drillSecondsMax = 120
	drillPatience   = 2 * time.Minute       // until all is as before
	probeEvery      = 20 * time.Millisecond // and no sooner than the last is answered
	drillLook       = 50 * time.Millisecond
)

// notDrilled are kinds that are described, and not built.
var notDrilled = []string{apiv1.DrillPause, apiv1.DrillPower, apiv1.DrillDisk}

// Drill rehearses a failure, or says what that would do.
func (b *backend) Drill(ctx context.Context, name string, q apiv1.DrillRequest) (apiv1.DrillReport, error) {
	r, err := b.find(name)
	if err != nil {
		return apiv1.DrillReport{}, err
	}
	d, p := r.planDrill(q)
	if p != nil {
		return apiv1.DrillReport{}, p
	}
	if p := d.sight().obstacle(); p != nil {
		return apiv1.DrillReport{}, p
	}
	if !q.Yes {
		return apiv1.DrillReport{Resource: name, Kind: d.kind, Node: b.a.self, Victim: d.victim, Plan: d.plan()}, nil
	}
	if !r.a.drilling.CompareAndSwap(false, true) {
		return apiv1.DrillReport{}, &apiv1.Problem{Code: apiv1.CodeBusy, Text: "a drill is under way on " + b.a.self, Hint: "hactl timeline " + name + " --since 1m"}
	}
	// It goes on, ends and is told among the events whoever asked for it is gone.
	done := make(chan apiv1.DrillReport, 1)
	failed := make(chan error, 1)
	go func() {
		defer r.a.drilling.Store(false)
		rep, err := d.run()
		if err != nil {
			b.a.event(apiv1.EventOperator, name, fmt.Sprintf("drill %s did not take place: %v", d.kind, err))
			failed <- err
			return
		}
		b.a.publish(apiv1.EventOperator, name, rep.Text, map[string]string{"drill": d.kind})
		done <- rep
	}()
	select {
	case rep := <-done:
		return rep, nil
	case err := <-failed:
		return apiv1.DrillReport{}, err
	case <-ctx.Done():
		return apiv1.DrillReport{}, &apiv1.Problem{Code: apiv1.CodeTimeout, Text: "the drill goes on, and ends by itself; its report is among the events", Hint: "hactl timeline " + name + " --since 5m"}
	}
}

// drill is one rehearsal, led by this node.
type drill struct {
	r      *resource
	kind   string
	path   string        // that is closed; "" for a kind that closes none
	lasts  time.Duration // then
	victim string        // whose agent ends; "" for none
}

// planDrill reads what is asked for.
func (r *resource) planDrill(q apiv1.DrillRequest) (*drill, *apiv1.Problem) {
	_, paths := addresses(r.a.cfg)
	bad := func(format string, args ...any) (*drill, *apiv1.Problem) {
		return nil, &apiv1.Problem{Code: apiv1.CodeBadRequest, Text: fmt.Sprintf(format, args...), Hint: "hactl drill " + strings.Join(append(paths, apiv1.DrillAgent), "|") + " " + r.name}
	}
	if q.Seconds == 0 {
		q.Seconds = drillSeconds
	}
	switch {
	case slices.Contains(notDrilled, q.Kind):
		return nil, &apiv1.Problem{Code: apiv1.CodeNotImplemented, Text: "drill " + q.Kind + ": not implemented", Hint: "hactl drill agent " + r.name + " rehearses the loss of the Primary"}
	case q.Seconds < drillSecondsMin || q.Seconds > drillSecondsMax:
		return bad("seconds is %d; %d to %d", q.Seconds, drillSecondsMin, drillSecondsMax)
	case q.Kind == apiv1.DrillAgent:
		return &drill{r: r, kind: q.Kind, victim: r.peer}, nil
	case slices.Contains(paths, q.Kind):
		return &drill{r: r, kind: q.Kind, path: q.Kind, lasts: time.Duration(q.Seconds) * time.Second}, nil
	}
	return bad("there is no drill %q", q.Kind)
}

// plan says what will happen.
func (d *drill) plan() []string {
	back := "it ends by itself, also if hactl or this node's agent does; then it is waited until both copies are current"
	probe := fmt.Sprintf("meanwhile an empty flush goes through the device's own way every %v: it waits for what writes wait for, and touches no data", probeEvery)
	if d.victim != "" {
		out := []string{
			fmt.Sprintf("the agent of %s, the Primary, ends as by SIGKILL; its supervisor starts it again", d.victim),
			fmt.Sprintf("%s takes over when the lease has run out, as it would if %s had died: applications there lose their device, services are started on %s", d.r.a.self, d.victim, d.r.a.self),
			fmt.Sprintf("what was answered stays; %s comes back as Secondary and gets what it lacks. Nothing fails back: hactl switchover %s does", d.victim, d.r.name),
		}
		return append(out, probe, back)
	}
	return []string{
		fmt.Sprintf("path %s between %s and %s is closed at both ends for %v: streams over it end at once, as when its carrier goes, and heartbeats over it are not heard", d.path, d.r.a.self, d.r.peer, d.lasts),
		"the interface itself stays as it is: other traffic on it, and other nodes, are not touched",
		"the mirror goes on over another path; the Primary stays where it is", probe, back,
	}
}

// promotesItself reports whether a survivor takes over without an operator.
func promotesItself(a config.Arbitration) bool { return a == config.ArbitrateWitness }
