package netns

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// earlier is the commit whose agent stands for the release before: the last one
// without sections in its Hello, without resize, without protocols other than C.
const earlier = "060c74977699d9435b3d9b77e02c1f89e2b78771"

// earlierAgent builds the agent of that commit, from nothing but this clone and
// the modules that are here: it needs the same.
func earlierAgent(t *testing.T) string {
	t.Helper()
	const root = "../.."
	if out, err := exec.Command("git", "-C", root, "cat-file", "-e", earlier+"^{commit}").CombinedOutput(); err != nil {
		t.Skipf("the agent of an earlier release is that of commit %s, which is not in this clone (git fetch --unshallow): %v: %s", earlier, err, out)
	}
	src := filepath.Join(t.TempDir(), "earlier")
	program := filepath.Join(src, "haagent-lab")
	unpack := exec.Command("sh", "-ec", `mkdir "$2"; git -C "$0" archive "$1" >"$2.tar"; tar xf "$2.tar" -C "$2"`, root, earlier, src)
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+earlier, "-tags", "lab", "-o", program, "./agent")
	build.Dir, build.Env = src, append(os.Environ(), "GOPROXY=off", "GOWORK=off", "GOFLAGS=-mod=readonly", "CGO_ENABLED=0")
	for _, cmd := range []*exec.Cmd{unpack, build} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build the agent of %s: %v: %s", earlier, err, out)
		}
	}
	return program
}

// today is the agent that the tests are about.
func (p *pair) today() string {
	p.t.Helper()
	program, err := p.LookPath("haagent-lab")
	p.must(err)
	return program
}

// exchangeAgent stops the agent of a node and starts another one on what it left,
// as an upgrade does, and a downgrade.
func (p *pair) exchangeAgent(node, program string) {
	p.t.Helper()
	p.must(p.Stop(node))
	p.must(p.Replace(node, program))
	p.must(p.Start(node))
	p.must(p.AwaitAPI(p.ctx, node))
	p.release(node, program)
}

// release wants a node to run a program's release.
func (p *pair) release(node, program string) {
	p.t.Helper()
	s, err := p.Status(p.ctx, node)
	p.must(err)
	if old := program != p.today(); (s.Version == earlier) != old {
		p.t.Fatalf("%s runs release %s", node, s.Version)
	}
}

// exchangeSecondary does it to the Secondary, while the Primary goes on under a writer.
func (p *pair) exchangeSecondary(w *writer, node, program string) {
	p.t.Helper()
	primary := p.other(node)
	p.exchangeAgent(node, program)
	p.rejoined(node)
	w.progress(steady)
	p.unmoved(primary)
}

// switchTo hands over in order, under a writer.
func (p *pair) switchTo(w *writer, node string) {
	p.t.Helper()
	p.must(p.Verb(p.ctx, p.other(node), apiv1.VerbSwitchover, apiv1.SwitchoverRequest{To: node}, nil))
	p.takeover(node)
	w.progress(steady)
	p.rejoined(p.other(node))
}

// knowsItsLimits: what the peer's release does not know is not done, and said.
func (p *pair) knowsItsLimits(newer string) {
	p.t.Helper()
	older, res := p.other(newer), p.Resource()
	p.refused(newer, "the release of "+older, "resize", res)
	p.run(newer, "hactl", "set", res, "protocol=B")
	p.resource(newer, "answers by C, for its peer's sake", func(r *apiv1.Resource) bool {
		return r.Protocol == "C" && strings.Contains(r.ProtocolWhy, older+" runs a release that knows only protocol C")
	})
	p.run(newer, "hactl", "set", res, "protocol=C")
}

// each has every agent of the pair be a program of its own.
func each(program string, more ...func(*lab.Options)) func(*lab.Options) {
	return func(o *lab.Options) {
		for _, change := range more {
			change(o)
		}
		o.Programs = map[string]string{"alpha": program, "beta": program}
		if o.Witness != "-" {
			o.Programs["gamma"] = program
		}
	}
}

// A pair is upgraded one node after the other under a writer, with switchovers and
// power cuts of both while the two are of two releases; and one node goes back to
// the release before. Nothing is lost, and nobody is asked for what it cannot do.
func TestMixedReleases(t *testing.T) {
	long(t)
	old := earlierAgent(t)
	p := newPair(t, true, each(old))
	older, newer := p.settle()
	p.release(older, old)
	w := p.write()
	w.progress(steady)
	p.exchangeSecondary(w, newer, p.today())
	p.knowsItsLimits(newer)
	p.switchTo(w, newer)
	p.knowsItsLimits(newer)
	for _, victim := range []string{newer, older} {
		p.must(p.PowerOff(victim))
		p.takeover(p.other(victim))
		w.progress(steady)
		p.must(p.PowerOn(victim))
		p.rejoined(victim)
	}
	p.exchangeAgent("gamma", p.today())
	p.member(newer, "gamma", apiv1.MemberAlive)
	w.progress(steady)
	p.exchangeSecondary(w, older, p.today())
	for _, node := range p.Data() {
		p.run(node, "hactl", "set", p.Resource(), "protocol=B")
	}
	p.speaks(newer, "B")
	w.progress(steady)
	p.exchangeSecondary(w, older, old) // and back
	p.speaks(newer, "C")
	p.switchTo(w, older)
	w.stop()
	p.finish()
}

// Both went on without the other, and are of two releases. The newer one does not
// know since when the older did, and says so; the way out is the same.
func TestMixedReleasesInASplitBrain(t *testing.T) {
	long(t)
	old := earlierAgent(t)
	p := newPair(t, true, each(old, withoutWitness))
	older, newer := p.settle()
	p.exchangeAgent(newer, p.today())
	p.rejoined(newer)
	p.voters(older, 1) // else only the newer one goes on under a higher incarnation, and that release does not listen to it
	p.part(older, newer)
	p.join(newer)
	p.eventually(newer+" tells what it knows", func() error {
		out, err := p.Run(p.ctx, newer, "hactl", "explain", p.Resource())
		if err != nil || !strings.Contains(out, "--discard-my-data") || !strings.Contains(out, "that "+newer+" may lack\n") || !strings.Contains(out, "since when is not known") {
			return errors.Join(err, errors.New(out))
		}
		return nil
	})
	p.must(p.Verb(p.ctx, newer, apiv1.VerbDemote, apiv1.DemoteRequest{Force: true}, nil))
	p.must(p.Verb(p.ctx, newer, apiv1.VerbConnect, apiv1.ConnectRequest{DiscardMyData: true}, nil))
	p.must(p.Verb(p.ctx, older, apiv1.VerbConnect, apiv1.ConnectRequest{}, nil))
	p.rejoined(newer)
	p.holds(older, older)
	p.identical(older)
}
