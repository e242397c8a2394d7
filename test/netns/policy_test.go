package netns

import (
	"errors"
	"strings"
	"testing"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// policies are a bare pair's with after_split_brain.
func policies(text string) func(*lab.Options) {
	return func(o *lab.Options) {
		withoutWitness(o)
		o.Settings = []string{"after_split_brain: {" + text + "}"}
	}
}

// part cuts gives off, has an operator force it, and has both write.
func (p *pair) part(keeps, gives string) {
	p.t.Helper()
	p.isolate(gives)
	p.resource(keeps, "is alone in sync", func(r *apiv1.Resource) bool { return serving(r) && len(r.InSync) == 1 })
	p.must(p.Verb(p.ctx, gives, apiv1.VerbPromote, apiv1.PromoteRequest{Force: true, Reason: "the other box burns"}, nil))
	p.takeover(gives)
	for _, node := range []string{keeps, gives} {
		_, err := p.Run(p.ctx, node, "sh", "-c", "echo "+node+" >/srv/pg/whose; sync")
		p.must(err)
	}
}

// holds wants what a node wrote to be in the file that both wrote.
func (p *pair) holds(node, wrote string) {
	p.t.Helper()
	if out, err := p.Run(p.ctx, node, "cat", "/srv/pg/whose"); err != nil || strings.TrimSpace(out) != wrote {
		p.t.Errorf("what %s wrote is gone: %q, %v", wrote, out, err)
	}
}

// Both are Primary when they meet: the one that was promoted later stops its services
// and gives up, and nobody has to do anything.
func TestPolicyOfTwoPrimaries(t *testing.T) {
	p := newPair(t, true, policies("no_primary: discard-younger-primary, two_primaries: call-pri-lost-after-sb"))
	keeps, gives := p.settle()
	p.part(keeps, gives)
	p.join(gives)
	p.rejoined(gives)
	p.holds(keeps, keeps)
	p.identical(keeps)
	events, err := p.Events(p.ctx, gives, 0)
	p.must(err)
	said := false
	for _, e := range events {
		said = said || strings.Contains(e.Text, "two_primaries is call-pri-lost-after-sb")
	}
	if !said {
		t.Errorf("%s gave up, and did not say why", gives)
	}
}

// The side to give up was demoted before they met: it is Secondary, and gives up.
func TestPolicyOfOnePrimary(t *testing.T) {
	long(t)
	p := newPair(t, true, policies("one_primary: discard-secondary"))
	keeps, gives := p.settle()
	p.part(keeps, gives)
	p.must(p.Verb(p.ctx, gives, apiv1.VerbDemote, apiv1.DemoteRequest{Force: true}, nil))
	p.bare(gives)
	p.join(gives)
	p.rejoined(gives)
	p.holds(keeps, keeps)
	p.identical(keeps)
}

// A policy that does not decide this case leaves both as they are, and says so.
func TestPolicyThatDoesNotDecide(t *testing.T) {
	p := newPair(t, true, policies("no_primary: discard-least-changes, one_primary: consensus"))
	keeps, gives := p.settle()
	p.part(keeps, gives)
	p.join(gives)
	for _, node := range []string{keeps, gives} {
		p.eventually(node+" leaves it to an operator", func() error {
			out, err := p.Run(p.ctx, node, "hactl", "explain", p.Resource())
			if err != nil || !strings.Contains(out, "two_primaries is disconnect: an operator decides") || !strings.Contains(out, "--discard-my-data") {
				return errors.New(out)
			}
			return nil
		})
		p.takeover(node)
		p.holds(node, node)
	}
}
