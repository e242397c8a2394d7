package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"hapair/agent/apiv1"
)

// holder is a process on a node that keeps something from being let go.
type holder struct {
	cmd  *exec.Cmd
	done chan struct{}
	pid  string // on the node
}

// hold starts a process by a line of shell that ends in an exec, and waits
// until it is that program.
func (p *pair) hold(node, line, program string) *holder {
	p.t.Helper()
	h := &holder{cmd: exec.Command("/bin/sh", "-c", line), done: make(chan struct{})}
	p.must(p.Enter(node, h.cmd))
	go func() {
		h.cmd.Wait() //nolint:errcheck // killed
		close(h.done)
	}()
	p.t.Cleanup(func() { h.cmd.Process.Kill() }) //nolint:errcheck // it may have ended
	p.eventually(program+" runs on "+node, func() error {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", h.cmd.Process.Pid))
		if err == nil && strings.TrimSpace(string(name)) != program {
			err = fmt.Errorf("it is still %q", name)
		}
		return err
	})
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.cmd.Process.Pid))
	p.must(err)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			words := strings.Fields(rest)
			h.pid = words[len(words)-1]
		}
	}
	return h
}

func (h *holder) alive() bool {
	select {
	case <-h.done:
		return false
	default:
		return true
	}
}

func (h *holder) end() {
	h.cmd.Process.Kill() //nolint:errcheck // it may have ended
	<-h.done
}

// refusedInUse checks that a demotion is refused because of the holder, that
// the refusal names it, and that nothing has changed by it.
func (p *pair) refusedInUse(node string, h *holder) {
	p.t.Helper()
	err := p.Verb(p.ctx, node, apiv1.VerbDemote, apiv1.DemoteRequest{}, nil)
	var refused *apiv1.Problem
	if !errors.As(err, &refused) || refused.Code != apiv1.CodeInUse {
		p.t.Fatalf("a demotion while %s holds the device: %v", h.cmd.Args, err)
	}
	p.say("refused: %s (%s)", refused.Text, refused.Hint)
	for _, want := range []string{h.pid, "sleep"} {
		if !strings.Contains(refused.Text, want) {
			p.t.Errorf("the refusal does not name %q: %q", want, refused.Text)
		}
	}
	out, err := p.Run(p.ctx, node, "hactl", "demote", p.Resource())
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(out, h.pid) {
		p.t.Errorf("hactl demote: %v: %s", err, out)
	}
	if !h.alive() {
		p.t.Errorf("the process that holds it was ended without --force")
	}
	p.takeover(node)
	if !h.alive() {
		p.t.Errorf("the process that holds it was ended afterwards")
	}
}

// A device that somebody holds open is not taken away: the refusal says who.
func TestDemoteHeldDevice(t *testing.T) {
	p := newPair(t, false, nil)
	primary, secondary := p.settle()
	h := p.hold(primary, "exec sleep 1000 <"+p.device(primary), "sleep")
	p.refusedInUse(primary, h)
	if err := p.Verb(p.ctx, primary, apiv1.VerbSwitchover, apiv1.SwitchoverRequest{To: secondary}, nil); err == nil {
		t.Error("a switchover took the device away")
	}
	p.takeover(primary)
	h.end()
	p.demoteAndPromote(primary, secondary)
}

// Nor is a file system that somebody uses.
func TestDemoteHeldMount(t *testing.T) {
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	h := p.hold(primary, "cd /srv/pg && exec sleep 1000", "sleep")
	p.refusedInUse(primary, h)
	w.progress(steady)
	h.end()
	w.stop()
	p.demoteAndPromote(primary, secondary)
}

// demoteAndPromote demotes by wish, which lasts, and promotes the other.
func (p *pair) demoteAndPromote(primary, secondary string) {
	p.t.Helper()
	p.must(p.Verb(p.ctx, primary, apiv1.VerbDemote, apiv1.DemoteRequest{}, nil))
	for _, node := range []string{primary, secondary} {
		p.resource(node, "nobody is Primary", func(r *apiv1.Resource) bool { return r.Primary == "" && r.Role == "Secondary" && len(r.InSync) == 2 })
	}
	p.must(p.Verb(p.ctx, secondary, apiv1.VerbPromote, apiv1.PromoteRequest{}, nil))
	p.takeover(secondary)
	p.finish()
}
