package netns

import (
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// small puts a node's state on a filesystem of 16 MiB of its own; the node must not
// lose its power then.
func (p *pair) small(node string) {
	p.t.Helper()
	p.must(p.Stop(node))
	p.run(node, "sh", "-ec", "mkdir /run/kept; cp -a /var/lib/hapair/. /run/kept; mount -t tmpfs -o size=16m none /var/lib/hapair; cp -a /run/kept/. /var/lib/hapair")
	p.must(p.Start(node))
	p.must(p.AwaitAPI(p.ctx, node))
}

// fillVar leaves nothing of it, not for small files either.
func (p *pair) fillVar(node string) {
	p.t.Helper()
	p.run(node, "sh", "-c", "dd if=/dev/zero of=/var/lib/hapair/full bs=4k 2>/dev/null; test $(df --output=avail /var/lib/hapair | tail -1) = 0")
}

// Every node's /var is full. The pair goes on, the Secondary takes over, and the one
// that died comes back and is filled, all with what there is; and when there is room
// again nothing shows that there was none.
func TestFullVar(t *testing.T) {
	long(t)
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	p.small(secondary)
	p.rejoined(secondary)
	p.must(p.Verb(p.ctx, secondary, apiv1.VerbSwitchover, apiv1.SwitchoverRequest{}, nil))
	primary, secondary = secondary, primary
	p.takeover(primary)
	p.small(secondary)
	p.rejoined(secondary)
	p.small("gamma")
	p.settle()
	for _, node := range p.Nodes() {
		if node != lab.Client {
			p.fillVar(node)
		}
	}
	w := p.write()
	w.progress(steady)
	for range 3 {
		p.must(p.Kill(primary))
		p.takeover(secondary)
		w.progress(steady)
		p.must(p.Start(primary))
		p.must(p.AwaitAPI(p.ctx, primary))
		p.rejoined(primary)
		primary, secondary = secondary, primary
	}
	p.must(p.Kill("gamma"))
	p.must(p.Start("gamma"))
	p.must(p.AwaitAPI(p.ctx, "gamma"))
	for _, node := range p.Data() {
		p.run(node, "rm", "/var/lib/hapair/full")
	}
	p.run("gamma", "rm", "/var/lib/hapair/full")
	p.must(p.Kill(primary))
	p.takeover(secondary)
	w.progress(steady)
	p.must(p.Start(primary))
	p.must(p.AwaitAPI(p.ctx, primary))
	p.rejoined(primary)
	w.stop()
	p.finish()
}

// The survivor's /var is full. It has the Primary fenced, and so switched off, and then
// goes on alone: nothing is off for a survivor that cannot go on. So does a Primary that
// has lost its Secondary, and the other one rejoins.
func TestFullVarFencing(t *testing.T) {
	long(t)
	p := newPair(t, true, byFencing)
	primary, secondary := p.settle()
	p.small(secondary)
	p.rejoined(secondary)
	p.fillVar(secondary)
	w := p.write()
	p.primaryDies(w, primary, secondary)
	p.secondaryDies(w, secondary, primary)
	p.run(secondary, "rm", "/var/lib/hapair/full")
	w.progress(steady)
	w.stop()
	p.finish()
}
