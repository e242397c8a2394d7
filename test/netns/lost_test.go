package netns

import (
	"strings"
	"testing"

	"hapair/agent/apiv1"
)

// loses has a node come back without its ledger.
func (p *pair) loses(node string) {
	p.t.Helper()
	p.must(p.Stop(node))
	p.run(node, "sh", "-c", "rm -r /var/lib/hapair/*")
	p.must(p.Start(node))
	p.must(p.AwaitAPI(p.ctx, node))
}

// The witness comes back without its ledger while one data node is away. It must not
// be half of a majority: what it agreed to is forgotten. The other one waits until
// the one that was away is back, or until the operator says that it will not be.
func TestWitnessLosesItsLedger(t *testing.T) {
	long(t)
	p := newPair(t, true, nil)
	primary, away := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(away))
	p.resource(primary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	p.loses("gamma")
	p.eventually("gamma says whom it has to meet", func() error {
		out, err := p.Run(p.ctx, "gamma", "hactl", "status")
		return wants(out, err, "it votes when it has met "+away)
	})
	p.resource(primary, "waits for a majority", func(r *apiv1.Resource) bool { return !serving(r) })
	p.refused("gamma", away+" was not met", "ledger-begin")
	p.must(p.PowerOn(away))
	p.rejoined(away)
	w.progress(steady)
	p.must(p.PowerOff(away))
	p.resource(primary, "goes on, with the witness", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	w.progress(steady)
	p.loses("gamma")
	p.resource(primary, "waits for a majority", func(r *apiv1.Resource) bool { return !serving(r) })
	p.run("gamma", "hactl", "ledger-begin", "--i-have-checked", "--reason", "a test")
	p.resource(primary, "goes on by the operator's word", serving)
	w.progress(steady)
	p.must(p.PowerOn(away))
	p.rejoined(away)
	w.stop()
	p.finish()
}

// A data node loses its ledger, and another time the ledger is damaged: it gets
// everything from the others.
func TestSecondaryLosesItsLedger(t *testing.T) {
	long(t)
	p := newPair(t, true, nil)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.loses(secondary)
	p.rejoined(secondary)
	p.must(p.Stop(secondary))
	p.run(secondary, "sh", "-c", `for f in /var/lib/hapair/ledger/log; do dd if=/dev/urandom of=$f bs=64 seek=1 count=1 conv=notrunc; done`)
	p.must(p.Start(secondary))
	p.must(p.AwaitAPI(p.ctx, secondary))
	p.rejoined(secondary)
	p.run(secondary, "test", "-d", "/var/lib/hapair/ledger.corrupt")
	w.progress(steady)
	p.unmoved(primary)
	p.must(p.PowerOff(primary))
	p.takeover(secondary)
	w.progress(steady)
	p.must(p.PowerOn(primary))
	p.rejoined(primary)
	w.stop()
	p.finish()
}

// Every ledger is lost, while one copy was behind. Nobody is promoted by itself; the
// operator says which copy is newer; the generations of the data confirm it, and the
// other copy gets what it lacks. The disks have seen higher tokens than the new ledger
// counts.
func TestAllLoseTheirLedgers(t *testing.T) {
	long(t)
	p := newPair(t, true, nil)
	primary, behind := p.settle()
	for range 2 {
		p.run(primary, "hactl", "switchover", p.Resource())
		p.takeover(behind)
		p.rejoined(primary)
		primary, behind = behind, primary
	}
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(behind))
	w.progress(steady)
	w.stop()
	p.must(p.Verb(p.ctx, primary, apiv1.VerbDemote, apiv1.DemoteRequest{}, nil))
	p.must(p.PowerOn(behind))
	for _, node := range []string{primary, behind, "gamma"} {
		if node != behind {
			p.must(p.Stop(node))
		}
	}
	p.must(p.Stop(behind))
	for _, node := range []string{primary, behind, "gamma"} {
		p.run(node, "sh", "-c", "rm -r /var/lib/hapair/*")
		p.must(p.Start(node))
		p.must(p.AwaitAPI(p.ctx, node))
	}
	for _, node := range []string{primary, behind} {
		p.stays(node)
		p.eventually(node+" says that nothing is declared", func() error {
			out, err := p.Run(p.ctx, node, "hactl", "explain", p.Resource())
			return wants(out, err, "declared")
		})
	}
	p.run(primary, "hactl", "promote", p.Resource(), "--force", "--reason", "all ledgers are lost")
	p.takeover(primary)
	p.rejoined(behind)
	w = p.write()
	w.progress(steady)
	w.stop()
	p.finish()
}

func wants(out string, err error, text string) error {
	if err == nil && !strings.Contains(out, text) {
		err = &missingText{text, out}
	}
	return err
}

// missingText says what was looked for, and where.
type missingText struct{ want, in string }

func (m *missingText) Error() string { return "no " + m.want + " in " + m.in }
