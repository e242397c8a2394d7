package netns

import (
	"os"
	"slices"
	"testing"

	"hapair/agent/apiv1"
	"hapair/failover/service"
	"hapair/test/lab"
)

// An agent of Debian's resource-agents is a service: it is found dead and
// started again where it is, and it moves with a failover.
func TestResourceAgent(t *testing.T) {
	if _, err := os.Stat(service.OCFRoot + "/resource.d/heartbeat/Dummy"); err != nil {
		t.Skipf("needs resource-agents: %v", err)
	}
	const state = "/srv/pg/dummy.state"
	p := newPair(t, true, func(o *lab.Options) {
		dummy := "{ocf: {agent: heartbeat:Dummy, parameters: {state: " + state + "}}, monitor_interval: 200ms}"
		o.Services = slices.Insert(recordServices(t), 1, dummy)
	})
	primary, survivor := p.settle()
	is := func(wanted string) func(*apiv1.Resource) bool {
		return func(r *apiv1.Resource) bool {
			i := slices.IndexFunc(r.Services, func(s apiv1.Service) bool { return s.Kind == "ocf" })
			return i >= 0 && r.Services[i].Name == "ocf:Dummy" && r.Services[i].State == wanted
		}
	}
	w := p.write()
	w.progress(steady)
	p.run(primary, "rm", state)
	p.eventually("the agent is started again", func() error {
		_, err := p.Run(p.ctx, primary, "test", "-e", state)
		return err
	})
	p.resource(primary, "runs the agent again", func(r *apiv1.Resource) bool { return serving(r) && is(apiv1.ServiceRunning)(r) })
	p.resource(survivor, "does not", is(apiv1.ServiceStopped))
	p.must(p.PowerOff(primary))
	p.resource(survivor, "serves and runs the agent", func(r *apiv1.Resource) bool { return serving(r) && is(apiv1.ServiceRunning)(r) })
	p.run(survivor, "test", "-e", state)
	w.progress(steady)
	p.must(p.PowerOn(primary))
	p.rejoined(primary)
	w.stop()
	p.finish()
}
