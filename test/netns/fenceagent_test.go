package netns

import (
	"fmt"
	"os/exec"
	"testing"

	"hapair/agent/apiv1"
)

// fenceFrom has a node switch another off by the lab's fence agent, as its own
// agent would, and proves it.
func (p *pair) fenceFrom(node, other string) {
	p.t.Helper()
	ask := func(action string) (int, string) {
		out, err := p.Run(p.ctx, node, "sh", "-c", fmt.Sprintf("printf 'action=%s\\nplug=%s\\ndir=%s\\n' | %s; echo ended $?", action, other, p.Dir(), p.FenceProgram()))
		p.must(err)
		var said string
		var code int
		if _, err := fmt.Sscanf(out, "Status: %s\nended %d", &said, &code); err != nil {
			if _, err := fmt.Sscanf(out, "ended %d", &code); err != nil {
				p.t.Fatalf("%s: %q", action, out)
			}
		}
		return code, said
	}
	if code, said := ask("status"); code != 0 || said != "ON" {
		p.t.Fatalf("before: %s, exit code %d", said, code)
	}
	if code, _ := ask("off"); code != 0 {
		p.t.Fatalf("off: exit code %d", code)
	}
	if code, said := ask("status"); code != 2 || said != "OFF" {
		p.t.Fatalf("after: %s, exit code %d", said, code)
	}
}

// The Secondary switches the Primary off by a fence agent while it writes: that is
// a power cut. The pair takes over, and whoever was fenced comes back in sync.
func TestFenceAgent(t *testing.T) {
	long(t)
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.fenceFrom(secondary, primary)
	if err := p.Enter(primary, exec.Command("/bin/true")); err == nil {
		t.Error("a command runs on a node that is off")
	}
	p.takeover(secondary)
	p.member(secondary, primary, apiv1.MemberDead)
	w.progress(steady)
	p.must(p.PowerOn(primary))
	p.rejoined(primary)
	w.progress(steady)
	w.stop()
	p.finish()
}
