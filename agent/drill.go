package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"hapair/agent/apiv1"
	"hapair/failover/ledger"
)

// Bounds of a drill.
const (
	drillSeconds    = 10 // a failure lasts that does not end at once, unless asked otherwise
	drillSecondsMin = 3  // less than a heartbeat needs to notice would rehearse nothing
	drillSecondsMax = 120
	drillPatience   = 2 * time.Minute       // until all is as before
	outletPatience  = 10 * time.Minute      // until somebody has switched a node on, and then
	probeEvery      = 20 * time.Millisecond // and no sooner than the last is answered
	drillLook       = 50 * time.Millisecond
)

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
	lasts  time.Duration // then; 0 for an agent that ends
	victim string        // whose agent ends or stands still, or who is switched off; "" for none
}

// disk: this node's disks fail.
func (d *drill) disk() bool { return d.kind == apiv1.DrillDisk }

// power: the other node is switched off by its fence devices.
func (d *drill) power() bool { return d.kind == apiv1.DrillPower }

// planDrill reads what is asked for.
func (r *resource) planDrill(q apiv1.DrillRequest) (*drill, *apiv1.Problem) {
	_, paths := addresses(r.a.cfg)
	bad := func(format string, args ...any) (*drill, *apiv1.Problem) {
		return nil, &apiv1.Problem{Code: apiv1.CodeBadRequest, Text: fmt.Sprintf(format, args...), Hint: "hactl drill " + strings.Join(append(paths, apiv1.DrillAgent, apiv1.DrillPause, apiv1.DrillDisk, apiv1.DrillPower), "|") + " " + r.name}
	}
	if q.Seconds == 0 {
		q.Seconds = drillSeconds
	}
	lasts := time.Duration(q.Seconds) * time.Second
	switch {
	case q.Seconds < drillSecondsMin || q.Seconds > drillSecondsMax:
		return bad("seconds is %d; %d to %d", q.Seconds, drillSecondsMin, drillSecondsMax)
	case q.Kind == apiv1.DrillAgent, q.Kind == apiv1.DrillPower:
		return &drill{r: r, kind: q.Kind, victim: r.peer}, nil
	case q.Kind == apiv1.DrillPause:
		return &drill{r: r, kind: q.Kind, victim: r.peer, lasts: lasts}, nil
	case q.Kind == apiv1.DrillDisk:
		return &drill{r: r, kind: q.Kind, lasts: lasts}, nil
	case slices.Contains(paths, q.Kind):
		return &drill{r: r, kind: q.Kind, path: q.Kind, lasts: lasts}, nil
	}
	return bad("there is no drill %q", q.Kind)
}

// plan says what will happen.
func (d *drill) plan() []string {
	self, peer, name := d.r.a.self, d.r.peer, d.r.name
	var out []string
	switch {
	case d.kind == apiv1.DrillAgent:
		out = []string{
			fmt.Sprintf("the agent of %s, the Primary, ends as by SIGKILL; its supervisor starts it again", d.victim),
			fmt.Sprintf("%s takes over when the lease has run out, as it would if %s had died: applications there lose their device, services are started on %s", self, d.victim, self),
			fmt.Sprintf("what was answered stays; %s comes back as Secondary and gets what it lacks. Nothing fails back: hactl switchover %s does", d.victim, name),
		}
	case d.kind == apiv1.DrillPause:
		out = []string{
			fmt.Sprintf("the agent of %s, the Primary, stands still for %v, as by SIGSTOP, and goes on then as if nothing had been; a shell that it starts before sees to both", d.victim, d.lasts),
			fmt.Sprintf("%s takes over when the lease has run out; the addresses leave %s before that, without its agent", self, d.victim),
			fmt.Sprintf("what %s had accepted and not answered when it stood still fails there when it goes on; what was answered stays. It becomes Secondary and gets what it lacks. Nothing fails back: hactl switchover %s does", d.victim, name),
		}
	case d.power():
		out = []string{
			fmt.Sprintf("%s, the Primary, is switched off by its fence devices, with everything that runs on it", d.victim),
			fmt.Sprintf("%s takes over when that is confirmed, as it would if %s had died: services are started here", self, d.victim),
			fmt.Sprintf("nothing switches %s on again but somebody who does: that is waited for, for %v. Then it comes back as Secondary and gets what it lacks. Nothing fails back: hactl switchover %s does", d.victim, outletPatience, name),
		}
	case d.disk():
		out = []string{
			fmt.Sprintf("the disks of %s here, on %s, the Primary, answer every request with an I/O error for %v, from the agent; nothing on them is touched", name, self, d.lasts),
			fmt.Sprintf("the copy of %s is given up; the Primary stays where it is and works through the disk of %s. Meanwhile that is the only current copy: if %s is lost then, the service is, until it is back", self, peer, peer),
			"then the disks are attached again, and get what they lack",
		}
	default:
		out = []string{
			fmt.Sprintf("path %s between %s and %s is closed at both ends for %v: streams over it end at once, as when its carrier goes, and heartbeats over it are not heard", d.path, self, peer, d.lasts),
			"the interface itself stays as it is: other traffic on it, and other nodes, are not touched",
			"the mirror goes on over another path; the Primary stays where it is",
		}
	}
	out = append(out, fmt.Sprintf("meanwhile an empty flush goes through the device's own way every %v: it waits for what writes wait for, and touches no data", probeEvery))
	if !d.power() {
		out = append(out, "it ends by itself, also if hactl or this node's agent does; then it is waited until both copies are current")
	}
	return out
}

// promotesItself reports whether a survivor takes over without an operator.
func promotesItself(a ledger.Arbitration) bool { return a == ledger.ArbitrationWitness }
