package netns

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// failing is a pair whose second service, beside the records, can be made to fail.
// alpha is preferred, and gets the resource back by itself.
func failing(t *testing.T) *pair {
	return newPair(t, true, func(o *lab.Options) {
		flaky := "{name: flaky, exec: {start: [/usr/bin/touch, /run/flaky], stop: [/usr/bin/rm, -f, /run/flaky], status: 'test ! -e /run/sick || exit 22; test -e /run/flaky'}, " +
			"parallel: true, monitor_interval: 200ms, failures: {threshold: 2, within: 1m, forget: 1h}}"
		o.Services = slices.Insert(recordServices(t), 2, flaky)
		o.Settings = []string{"preferred_node: alpha", "auto_failback: true", "failback_after: 10s"}
	})
}

// flaky waits until the service that fails is so, and was found failed so often.
func (p *pair) flaky(node, state string, failures int) {
	p.t.Helper()
	p.resource(node, fmt.Sprintf("has a flaky service %s, %d failures", state, failures), func(r *apiv1.Resource) bool {
		i := slices.IndexFunc(r.Services, func(s apiv1.Service) bool { return s.Name == "exec:flaky" })
		return i >= 0 && r.Services[i].State == state && r.Services[i].Failures == failures && r.Services[i].FailureLimit == 2
	})
}

// A service fails: it is restarted where it is, without what it does not depend on.
// It fails again: the peer takes the resource. The failures are forgotten by the
// operator, and it goes back by itself.
func TestFailuresMoveTheResource(t *testing.T) {
	p := failing(t)
	primary, survivor := p.settle()
	if primary != "alpha" {
		t.Fatalf("alpha is preferred, and %s is Primary", primary)
	}
	w := p.write()
	w.progress(steady)
	pid := p.server(primary)
	p.run(primary, "rm", "/run/flaky")
	p.flaky(primary, apiv1.ServiceRunning, 1)
	if now := p.server(primary); now != pid {
		t.Errorf("the records ran as %s and run as %s", pid, now)
	}
	p.run(primary, "rm", "/run/flaky")
	p.takeover(survivor)
	p.flaky(primary, apiv1.ServiceStopped, 2)
	w.progress(steady)
	var e apiv1.Explanation
	p.must(p.Call(p.ctx, survivor, "GET", apiv1.PathResources+p.Resource()+"/explain", nil, &e))
	if !slices.ContainsFunc(e.Why, func(r apiv1.Reason) bool {
		return r.Rule == "failback" && !r.Holds && strings.Contains(r.Evidence, "failed on "+primary)
	}) {
		t.Errorf("%s does not say why it does not give back: %+v", survivor, e.Why)
	}
	p.must(p.Verb(p.ctx, survivor, apiv1.VerbCleanup, apiv1.CleanupRequest{}, nil))
	p.flaky(primary, apiv1.ServiceStopped, 0)
	w.stop()
	p.finish()
}

// A service runs and does not work, as its status says with an exit code of its own. It
// is restarted where it is; that does not help, and the peer takes the resource.
func TestBrokenServiceMovesTheResource(t *testing.T) {
	long(t)
	p := failing(t)
	primary, survivor := p.settle()
	w := p.write()
	w.progress(steady)
	p.run(primary, "touch", "/run/sick")
	p.takeover(survivor)
	p.flaky(primary, apiv1.ServiceStopped, 2)
	w.progress(steady)
	w.stop()
	p.finish()
}

// An agent is killed and leaves a service that nobody can ask whether it runs. The one
// that is started afterwards, beside a new Primary, stops it.
func TestKilledAgentLeavesAServiceWithoutStatus(t *testing.T) {
	long(t)
	p := newPair(t, true, func(o *lab.Options) {
		// alone: whatever else is left makes the agent stop all
		o.Services = []string{"{name: plain, exec: {start: [/usr/bin/touch, /run/plain], stop: [/usr/bin/rm, -f, /run/plain]}}"}
	})
	primary, survivor := p.settle()
	p.must(p.Kill(primary))
	p.takeover(survivor)
	p.run(primary, "test", "-e", "/run/plain")
	p.must(p.Start(primary))
	p.rejoined(primary)
	p.run(primary, "test", "!", "-e", "/run/plain")
	p.run(survivor, "test", "-e", "/run/plain")
}

// The preferred node dies and comes back: the resource goes back to it by itself.
// Where an operator moves it, it stays.
func TestGoesBackToThePreferredNode(t *testing.T) {
	long(t)
	p := failing(t)
	primary, survivor := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(primary))
	p.takeover(survivor)
	w.progress(steady)
	p.must(p.PowerOn(primary))
	p.takeover(primary)
	p.rejoined(survivor)
	w.progress(steady)
	p.must(p.Verb(p.ctx, primary, apiv1.VerbSwitchover, apiv1.SwitchoverRequest{To: survivor}, nil))
	p.resource(survivor, "stays where the operator moved it", func(r *apiv1.Resource) bool {
		return serving(r) && strings.Contains(r.Because, "but an operator moved "+p.Resource()+" away from it")
	})
	w.progress(steady)
	w.stop()
	p.finish()
}

// Maintenance: a service that fails is seen, and left alone; afterwards it is
// restarted.
func TestMaintenanceTouchesNothing(t *testing.T) {
	long(t)
	p := failing(t)
	primary, _ := p.settle()
	p.must(p.Call(p.ctx, primary, "POST", apiv1.PathMaintenance, apiv1.MaintenanceRequest{On: true}, nil))
	p.run(primary, "rm", "/run/flaky")
	p.flaky(primary, apiv1.ServiceFailed, 0) // it is held against nobody
	pid := p.server(primary)
	p.resource(primary, "leaves its services alone", func(r *apiv1.Resource) bool {
		return strings.Contains(r.Because, "maintenance is on: its services (broken) are left alone")
	})
	p.run(primary, "touch", "/run/flaky") // the administrator, by hand
	p.flaky(primary, apiv1.ServiceRunning, 0)
	p.run(primary, "rm", "/run/flaky")
	p.flaky(primary, apiv1.ServiceFailed, 0)
	p.must(p.Call(p.ctx, primary, "POST", apiv1.PathMaintenance, apiv1.MaintenanceRequest{On: false}, nil))
	p.flaky(primary, apiv1.ServiceRunning, 0)
	if now := p.server(primary); now != pid {
		t.Errorf("the records ran as %s and run as %s", pid, now)
	}
	p.unmoved(primary)
	p.finish()
}

// In maintenance a switchover is refused. An agent that stops hands over as ever, and
// the services go along. A node on standby hands over when maintenance ends.
func TestStopInMaintenance(t *testing.T) {
	long(t)
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.Call(p.ctx, primary, "POST", apiv1.PathMaintenance, apiv1.MaintenanceRequest{On: true}, nil))
	for _, node := range []string{primary, secondary} {
		p.status(node, "is in maintenance", func(s *apiv1.Status) bool { return s.Maintenance })
		p.refused(node, "maintenance is on: "+p.Resource()+" is not moved", "switchover", p.Resource())
	}
	p.unmoved(primary)
	w.progress(steady)
	p.must(p.Stop(primary))
	p.takeover(secondary)
	w.progress(steady)
	p.must(p.Start(primary))
	p.rejoined(primary)
	var told apiv1.Changed
	p.must(p.Call(p.ctx, secondary, "POST", apiv1.PathStandby, apiv1.StandbyRequest{Node: secondary, On: true}, &told))
	if !strings.Contains(told.Text, "it hands over when that ends") {
		t.Errorf("told: %s", told.Text)
	}
	p.resource(secondary, "stays where it is", func(r *apiv1.Resource) bool {
		return serving(r) && strings.Contains(r.Because, "it is on standby, and hands over when maintenance ends")
	})
	w.progress(steady)
	p.must(p.Call(p.ctx, primary, "POST", apiv1.PathMaintenance, apiv1.MaintenanceRequest{On: false}, nil))
	p.takeover(primary)
	p.must(p.Call(p.ctx, primary, "POST", apiv1.PathStandby, apiv1.StandbyRequest{Node: secondary, On: false}, nil))
	w.progress(steady)
	w.stop()
	p.finish()
}
