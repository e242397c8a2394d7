package netns

import (
	"fmt"
	"strings"
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

func withoutWitness(o *lab.Options) { o.Witness = "-" }

// A pair without a witness: when the Secondary dies the Primary goes on; when
// the Primary dies the Secondary waits for an operator.
func TestManualSecondaryDies(t *testing.T) {
	long(t)
	p := newPair(t, true, withoutWitness)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(secondary))
	p.resource(primary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	w.progress(steady)
	p.must(p.PowerOn(secondary))
	p.rejoined(secondary)
	w.progress(steady)
	p.unmoved(primary)
	// And again: the group of voters is whole.
	p.must(p.PowerOff(secondary))
	p.resource(primary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	w.progress(steady)
	p.must(p.PowerOn(secondary))
	p.rejoined(secondary)
	w.stop()
	p.finish()
}

func TestManualPrimaryDies(t *testing.T) {
	p := newPair(t, true, withoutWitness)
	primary, secondary := p.settle()
	w := p.write()
	for range 2 {
		w.progress(steady)
		p.must(p.PowerOff(primary))
		p.member(secondary, primary, apiv1.MemberDead)
		p.stays(secondary)
		if err := p.Verb(p.ctx, secondary, apiv1.VerbPromote, apiv1.PromoteRequest{WaitMS: 2000}, nil); err == nil {
			t.Error("promoted without force, though nobody knows whether the other is Primary")
		}
		why, err := p.Run(p.ctx, secondary, "hactl", "explain", p.Resource())
		if err != nil || !strings.Contains(why, "would lose") || !strings.Contains(why, "--force") {
			t.Errorf("the explanation does not say what force may lose: %v: %s", err, why)
		}
		out, err := p.Run(p.ctx, secondary, "hactl", "promote", p.Resource(), "--force", "--reason", "the other box burns")
		p.must(err)
		if !strings.Contains(out, "would lose") {
			t.Errorf("promote --force does not say what may be lost: %s", out)
		}
		p.say("%s", out)
		p.takeover(secondary)
		w.progress(steady)
		p.must(p.PowerOn(primary))
		p.rejoined(primary)
		primary, secondary = secondary, primary
	}
	w.stop()
	p.finish()
}

// All links between the two are cut: the Primary goes on, the Secondary waits.
func TestManualPartition(t *testing.T) {
	long(t)
	p := newPair(t, false, withoutWitness)
	primary, secondary := p.settle()
	b := p.probe(primary)
	b.progress(steady)
	p.isolate(secondary)
	p.resource(primary, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	b.progress(steady)
	p.stays(secondary)
	p.join(secondary)
	p.rejoined(secondary)
	b.progress(steady)
	b.stop()
	p.unmoved(primary)
	p.finish()
}

// Both lose power; alone, neither knows whether the other went on.
func TestManualBothLosePower(t *testing.T) {
	long(t)
	p := newPair(t, true, withoutWitness)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.PowerOff(primary))
	p.must(p.PowerOff(secondary))
	p.must(p.PowerOn(secondary))
	p.must(p.AwaitAPI(p.ctx, secondary))
	p.stays(secondary)
	p.must(p.PowerOn(primary))
	p.settle()
	w.progress(steady)
	w.stop()
	p.finish()
}

// An agent of a bare pair is stopped in order: the one that stays serves.
func TestManualStoppedAgent(t *testing.T) {
	p := newPair(t, true, withoutWitness)
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.Stop(primary))
	p.takeover(secondary)
	w.progress(steady)
	p.must(p.Start(primary))
	p.rejoined(primary)
	w.progress(steady)
	w.stop()
	p.finish()
}

// Both nodes are Primary, after a force while no link was left: each goes on and
// tells what both have; the side that is given up is given up by one command.
func TestManualSplitBrain(t *testing.T) {
	p := newPair(t, false, withoutWitness)
	keeps, gives := p.settle()
	res := p.Resource()
	p.isolate(gives)
	p.member(gives, keeps, apiv1.MemberDead)
	p.member(keeps, gives, apiv1.MemberDead)
	p.resource(keeps, "goes on", serving)
	out, err := p.Run(p.ctx, gives, "hactl", "promote", res, "--force", "--reason", "a test")
	if err != nil || !strings.Contains(out, keeps+" may still be writing") {
		t.Fatalf("%v: %s", err, out)
	}
	for i, node := range []string{keeps, gives} {
		if out, err := p.Run(p.ctx, node, "dd", "if=/dev/urandom", "of=/dev/hapair/"+res+"/0", "bs=1M", fmt.Sprintf("count=%d", 2+i), "oflag=direct"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	p.join(gives)
	for i, node := range []string{keeps, gives} {
		p.resource(node, "knows of the split brain", func(r *apiv1.Resource) bool { return r.SplitBrain && r.Role == "Primary" })
		p.eventually(node+" tells what each side has", func() error {
			out, err := p.Run(p.ctx, node, "hactl", "explain", res)
			for _, want := range []string{"are both Primary", fmt.Sprintf("at most %d MiB that %s may lack", 2+i, p.other(node)), fmt.Sprintf("at most %d MiB that %s may lack", 3-i, node), "hactl connect " + res + " --discard-my-data"} {
				if err == nil && !strings.Contains(out, want) {
					err = fmt.Errorf("no %q in %s", want, out)
				}
			}
			return err
		})
	}
	p.refused(gives, gives+" is Primary", "connect", res, "--discard-my-data")
	for _, args := range [][]string{{"demote", res, "--force"}, {"connect", res, "--discard-my-data"}} {
		if out, err := p.Run(p.ctx, gives, append([]string{"hactl"}, args...)...); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	p.rejoined(gives)
	p.finish()
}

// A node that was stopped in order is started without any link and forced. The one
// that went on without it keeps serving, whatever the numbers of their incarnations
// are; both tell what each has, and the way out is the usual one.
func TestManualForcedAfterItLeft(t *testing.T) {
	long(t)
	p := newPair(t, true, withoutWitness)
	keeps, gives := p.settle()
	w := p.write()
	w.progress(steady)
	p.must(p.Stop(gives))
	p.isolate(gives)
	w.progress(steady)
	p.must(p.Start(gives))
	p.must(p.AwaitAPI(p.ctx, gives))
	p.run(gives, "hactl", "promote", p.Resource(), "--force", "--reason", "a test")
	p.takeover(gives)
	p.run(gives, "sh", "-c", "dd if=/dev/urandom of=/srv/pg/theirs bs=1M count=2; sync")
	w.stop() // both have the address from now on
	p.join(gives)
	p.knowApart(keeps, gives)
	p.resource(keeps, "goes on", serving)
	p.run(gives, "hactl", "demote", p.Resource(), "--force")
	p.run(gives, "hactl", "connect", p.Resource(), "--discard-my-data")
	p.rejoined(gives)
	p.finish()
}

// Both lose power, the Primary for good: the operator forces the one that comes
// back, which has not read the ledger since and cannot.
func TestManualForcedAfterAPowerCut(t *testing.T) {
	p := newPair(t, true, withoutWitness)
	p.forcedAfterAPowerCut()
}

// forcedAfterAPowerCut cuts all power and brings the Secondary back alone, by
// force; then the others.
func (p *pair) forcedAfterAPowerCut() {
	p.t.Helper()
	primary, secondary := p.settle()
	w := p.write()
	w.progress(steady)
	p.eachVoter(func(name string) { p.must(p.PowerOff(name)) })
	p.must(p.PowerOn(secondary))
	p.must(p.AwaitAPI(p.ctx, secondary))
	p.stays(secondary)
	why, err := p.Run(p.ctx, secondary, "hactl", "explain", p.Resource())
	if err != nil || !strings.Contains(why, "only by force") || !strings.Contains(why, "Primary was "+primary) {
		p.t.Errorf("the explanation does not say what this node was last told: %v: %s", err, why)
	}
	out, err := p.Run(p.ctx, secondary, "hactl", "promote", p.Resource(), "--force", "--reason", "the others burn")
	if err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	p.takeover(secondary)
	w.progress(steady)
	p.eachVoter(func(name string) {
		if name != secondary {
			p.must(p.PowerOn(name))
		}
	})
	p.rejoined(primary)
	p.voters(secondary, 2)
	w.progress(steady)
	w.stop()
	p.finish()
}

// voters waits until every member votes, in an incarnation, as a node sees it.
func (p *pair) voters(node string, incarnation uint64) {
	p.t.Helper()
	p.eventually("all voters are back", func() error {
		s, err := p.Status(p.ctx, node)
		if err == nil && (s.Quorum.Reachable != s.Quorum.Voters || s.Quorum.Voters != len(s.Members) || s.Quorum.Incarnation != incarnation) {
			err = fmt.Errorf("%+v", s.Quorum)
		}
		return err
	})
}

// eachVoter does something to every node that votes, the client not.
func (p *pair) eachVoter(do func(name string)) {
	for _, name := range p.Nodes() {
		if name != lab.Client {
			do(name)
		}
	}
}
