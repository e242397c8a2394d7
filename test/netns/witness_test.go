package netns

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"hapair/agent/apiv1"
)

var witnessLine = regexp.MustCompile(`(?m)^witness: .*\n`)

// without has the file of a data node say that there is no witness.
func (p *pair) without(node string) {
	p.arbitrate(node, "witness", "manual", func(text string) string { return witnessLine.ReplaceAllString(text, "") })
}

// with has it say that there is gamma.
func (p *pair) with(node string) {
	text, err := os.ReadFile(filepath.Join(p.Dir(), "gamma", "etc", "hapair.yaml"))
	p.must(err)
	p.arbitrate(node, "manual", "witness", func(was string) string {
		return strings.Replace(was, "arbitration:", witnessLine.FindString(string(text))+"arbitration:", 1)
	})
}

// applies has a node's agent take its file over, and wants a word in the answer.
func (p *pair) applies(node, want string) {
	p.t.Helper()
	out := p.run(node, "hactl", "config", "apply")
	p.say("%s: %s", node, out)
	if !strings.Contains(out, want) {
		p.t.Errorf("%s says %q, not %q", node, out, want)
	}
}

// calmly is done while a writer writes: I/O does not wait for as long as a lease.
func (p *pair) calmly(what string, do func()) {
	p.t.Helper()
	w := p.write()
	w.progress(steady)
	do()
	w.progress(steady)
	if gap := w.stop(); gap > leaseMax {
		p.t.Errorf("%s: nothing was answered for %s", what, gap)
	}
}

// The witness is taken away while everything serves; the pair then does what a bare one
// does. It comes back, with an empty directory, and counts: the Primary dies, and the
// other node takes over by itself. Nobody restarts, nobody moves, I/O does not wait. A
// node that starts with the file from before says so, and serves as the ledger says.
func TestWitnessComesAndGoes(t *testing.T) {
	long(t)
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	p.calmly("the witness goes", func() {
		p.without(primary)
		p.applies(primary, primary+" is configured with no witness, "+secondary+" with the witness gamma")
		p.resource(primary, "is by witness still", func(r *apiv1.Resource) bool { return r.Arbitration == "witness" })
		p.without(secondary)
		p.applies(secondary, "arbitration: was witness (gamma), now manual")
		p.status(primary, "has two voters", func(s *apiv1.Status) bool {
			return s.Quorum.Voters == 2 && s.Arbitration == "manual" && len(s.Members) == 2
		})
	})
	p.unmoved(primary)
	p.must(p.PowerOff("gamma"))
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(secondary))
	p.resource(primary, "goes on alone", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	w.progress(steady)
	p.must(p.PowerOn(secondary))
	p.rejoined(secondary)
	p.voters(primary, 2)
	w.stop()

	p.takenAway("gamma", ".old")
	p.must(p.PowerOn("gamma"))
	p.must(p.AwaitAPI(p.ctx, "gamma"))
	p.calmly("the witness comes", func() {
		p.with(secondary)
		p.applies(secondary, "is configured with the witness gamma, "+primary+" with no witness")
		p.with(primary)
		p.applies(primary, "arbitration: was manual, now witness (gamma)")
		p.counts(secondary)
	})
	p.unmoved(primary)
	w = p.write()
	w.progress(steady)
	p.must(p.PowerOff(primary))
	p.takeover(secondary)
	w.progress(steady)
	p.without(primary) // what it had before
	p.must(p.PowerOn(primary))
	p.rejoined(primary)
	p.status(primary, "goes by the ledger, and says so", func(s *apiv1.Status) bool {
		return s.Arbitration == "witness" && s.Quorum.Voters == 3 && strings.Contains(s.Quorum.Arranging, primary+" is configured with no witness")
	})
	p.with(primary)
	p.must(p.Stop(primary))
	p.must(p.Start(primary))
	p.must(p.AwaitAPI(p.ctx, primary))
	p.rejoined(primary)
	p.counts(primary)
	w.progress(steady)
	w.stop()
	p.finish()
}
