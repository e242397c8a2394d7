package netns

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"hapair/agent/apiv1"
	"hapair/mirror/state"
	"hapair/test/lab"
)

// drill asks a node for one that may take place now, in the background.
func (p *pair) drill(node string, q apiv1.DrillRequest) (rep *apiv1.DrillReport, ended chan error) {
	p.t.Helper()
	rep, ended = &apiv1.DrillReport{}, make(chan error, 1)
	q.Yes = false
	p.must(p.Verb(p.ctx, node, apiv1.VerbDrill, q, rep))
	if rep.Done || len(rep.Plan) == 0 {
		p.t.Fatalf("the plan is %+v", rep)
	}
	q.Yes = true
	go func() { ended <- p.Verb(p.ctx, node, apiv1.VerbDrill, q, rep) }()
	return rep, ended
}

// refusedDrill wants a drill to be refused, and nothing to have happened.
func (p *pair) refusedDrill(node, kind, why string) {
	p.t.Helper()
	var rep apiv1.DrillReport
	err := p.Verb(p.ctx, node, apiv1.VerbDrill, apiv1.DrillRequest{Kind: kind, Yes: true}, &rep)
	var no *apiv1.Problem
	if !errors.As(err, &no) || !strings.Contains(no.Text, why) {
		p.t.Errorf("drill %s on %s: %v, want a refusal with %q", kind, node, err, why)
	}
}

// Drills on a pair that is written to: a path is closed and opened again, the
// Primary's agent is killed. What they say is what a writer saw, nothing is lost, and all is as before.
func TestDrills(t *testing.T) {
	if os.Getenv("HAPAIR_LONG") == "" {
		t.Skip("takes long: HAPAIR_LONG=1")
	}
	p := newPair(t, true, func(o *lab.Options) { o.Env = []string{"HAPAIR_SUPERVISED_BY=this test"} })
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.refusedDrill(secondary, "crossover", "is Primary")
	p.refusedDrill(primary, apiv1.DrillAgent, "is Primary")
	p.must(p.Call(p.ctx, primary, "POST", apiv1.PathMaintenance, apiv1.MaintenanceRequest{On: true}, nil))
	p.refusedDrill(primary, "crossover", "maintenance is on")
	p.must(p.Call(p.ctx, primary, "POST", apiv1.PathMaintenance, apiv1.MaintenanceRequest{On: false}, nil))
	for _, node := range p.Data() { // each judges by its own copy of the ledger
		_, err := p.Await(p.ctx, node, patience, func(s *apiv1.Status) bool { return !s.Maintenance })
		p.must(err)
	}

	p.pathOf(primary, "crossover")
	rep, ended := p.drill(primary, apiv1.DrillRequest{Kind: "crossover", Seconds: 5})
	p.pathOf(primary, "lan")
	p.must(<-ended)
	p.say("%s", rep.Text)
	if !rep.Restored || rep.RTOMS <= 0 || rep.RTOMS > 2000 || rep.RestoredMS < 5000 || rep.Victim != "" || rep.Probes < 20 {
		t.Errorf("crossover: %+v", rep)
	}
	for _, node := range p.Data() {
		closed := func(e apiv1.TimelineEntry) bool {
			return e.Node == node && strings.Contains(e.Text, "path crossover to") && strings.Contains(e.Text, "is closed here")
		}
		if !slices.ContainsFunc(rep.Steps, closed) {
			t.Errorf("the report does not tell that %s closed the path", node)
		}
	}
	w.progress(steady)

	rep, ended = p.drill(secondary, apiv1.DrillRequest{Kind: apiv1.DrillAgent})
	p.eventually("the agent of the Primary is dead", func() error {
		if p.AgentRuns(primary) {
			return errors.New("it runs")
		}
		return nil
	})
	p.must(p.Start(primary)) // as its supervisor would
	p.must(<-ended)
	p.say("%s", rep.Text)
	if !rep.Restored || rep.RTOMS < 100 || rep.RTOMS > 10000 || rep.Victim != primary || len(rep.Parts) < 4 {
		t.Errorf("agent: %+v", rep)
	}
	if r := p.takeover(secondary); r.Primary != secondary {
		t.Errorf("the Primary is %q", r.Primary)
	}
	w.progress(steady)
	p.drillDisk(w, secondary)
	p.drillPause(primary, secondary)
	w.progress(steady)
	w.stop()
	p.finish()
}

// drillDisk has the disks of the Primary fail; a writer goes on meanwhile.
func (p *pair) drillDisk(w *writer, primary string) {
	p.t.Helper()
	rep, ended := p.drill(primary, apiv1.DrillRequest{Kind: apiv1.DrillDisk, Seconds: 4})
	_, err := p.Await(p.ctx, primary, patience, func(s *apiv1.Status) bool {
		r := &s.Resources[0]
		return r.DiskState == state.Failed.String() && r.Role == state.Primary.String()
	})
	p.must(err)
	w.progress(steady)
	p.must(<-ended)
	p.say("%s", rep.Text)
	if !rep.Restored || rep.RTOMS <= 0 || rep.RestoredMS < 4000 || rep.Victim != "" || rep.Probes < 20 {
		p.t.Errorf("disk: %+v", rep)
	}
}

// drillPause has the agent of the Primary stand still for longer than its lease.
func (p *pair) drillPause(secondary, primary string) {
	p.t.Helper()
	rep, ended := p.drill(secondary, apiv1.DrillRequest{Kind: apiv1.DrillPause, Seconds: 6})
	p.must(<-ended)
	p.say("%s", rep.Text)
	if !rep.Restored || rep.RTOMS < 100 || rep.RTOMS > 6000 || rep.RestoredMS < 6000 || rep.Victim != primary || len(rep.Parts) < 4 {
		p.t.Errorf("pause: %+v", rep)
	}
	if r := p.takeover(secondary); r.Primary != secondary {
		p.t.Errorf("the Primary is %q", r.Primary)
	}
}

// The Primary of a pair that fences is switched off by its outlet, and on again by
// somebody.
func TestDrillOfThePower(t *testing.T) {
	long(t)
	p := newPair(t, true, byFencing)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.eventually("the devices were found usable", func() error { return p.readyToFence(secondary) })
	rep, ended := p.drill(secondary, apiv1.DrillRequest{Kind: apiv1.DrillPower})
	p.eventually("the Primary is off", func() error {
		if p.AgentRuns(primary) {
			return errors.New("its agent runs")
		}
		return nil
	})
	p.takeover(secondary)
	p.must(p.PowerOn(primary))
	p.must(<-ended)
	p.say("%s", rep.Text)
	if !rep.Restored || rep.RTOMS < 100 || rep.RTOMS > 30000 || rep.Victim != primary || len(rep.Parts) < 4 {
		t.Errorf("power: %+v", rep)
	}
	w.progress(steady)
	w.stop()
	p.finish()
}

func (p *pair) readyToFence(node string) error {
	s, err := p.Status(p.ctx, node)
	if err != nil {
		return err
	}
	if len(s.Fencing) == 0 || !s.Fencing[0].Ready {
		return fmt.Errorf("%+v", s.Fencing)
	}
	return nil
}
