package netns

import (
	"errors"
	"strings"
	"testing"

	"hapair/agent/apiv1"
)

// refuses wants a refusal with a code and a hint that holds a command.
func (p *pair) refuses(node, verb string, request any, code, hint string) {
	p.t.Helper()
	err := p.Verb(p.ctx, node, verb, request, nil)
	var refused *apiv1.Problem
	if !errors.As(err, &refused) || refused.Code != code || !strings.Contains(refused.Hint, hint) {
		p.t.Fatalf("%s on %s: want %s and %q, got %v", verb, node, code, hint, err)
	}
	p.say("refused: %s (%s)", refused.Text, refused.Hint)
}

// Without a split brain nothing is discarded, and nothing is left behind
// without --force.
func TestConnectAndDisconnect(t *testing.T) {
	p := newPair(t, false, nil)
	primary, secondary := p.settle()
	discard := apiv1.ConnectRequest{DiscardMyData: true}
	for _, node := range []string{primary, secondary} {
		p.refuses(node, apiv1.VerbConnect, discard, apiv1.CodeRefused, "hactl invalidate "+p.Resource())
		p.refuses(node, apiv1.VerbDisconnect, apiv1.DisconnectRequest{}, apiv1.CodeWouldLose, "--force")
	}
	if r := p.look(secondary); r == nil || !inSync(r) {
		t.Fatalf("a refusal changed something: %+v", r)
	}
	var answer apiv1.Changed
	p.must(p.Verb(p.ctx, secondary, apiv1.VerbDisconnect, apiv1.DisconnectRequest{Force: true}, &answer))
	if !strings.Contains(answer.Now, "StandAlone") {
		t.Errorf("disconnected, and the answer says %q", answer.Now)
	}
	p.resource(primary, "goes on alone", func(r *apiv1.Resource) bool {
		return serving(r) && r.Peers[0].Connection != "Connected" && r.Peers[0].Reason != ""
	})
	p.must(p.Verb(p.ctx, secondary, apiv1.VerbConnect, apiv1.ConnectRequest{}, &answer))
	if !strings.Contains(answer.Now, "Connected") {
		t.Errorf("connected, and the answer says %q", answer.Now)
	}
	p.rejoined(secondary)
}

// Both sides of a bare pair wrote apart: the same way out is told everywhere,
// and it works. Afterwards the side that gave up takes over like any other.
func TestSplitBrain(t *testing.T) {
	p := newPair(t, true, withoutWitness)
	keeps, gives := p.settle()
	p.part(keeps, gives)
	p.join(gives)
	way := "hactl demote " + p.Resource() + ", then hactl connect " + p.Resource() + " --discard-my-data"
	p.eventually("both know of the split brain", func() error {
		for _, node := range []string{keeps, gives} {
			out, err := p.Run(p.ctx, node, "hactl", "explain", p.Resource())
			if err != nil || !strings.Contains(out, "--discard-my-data") {
				return errors.New(out)
			}
		}
		return nil
	})
	p.refuses(gives, apiv1.VerbConnect, apiv1.ConnectRequest{DiscardMyData: true}, apiv1.CodeSplitBrain, way)
	p.must(p.Verb(p.ctx, gives, apiv1.VerbDemote, apiv1.DemoteRequest{}, nil))
	p.must(p.Verb(p.ctx, gives, apiv1.VerbConnect, apiv1.ConnectRequest{DiscardMyData: true}, nil))
	p.resource(keeps, "may have to be told to connect", func(r *apiv1.Resource) bool { return serving(r) })
	p.must(p.Verb(p.ctx, keeps, apiv1.VerbConnect, apiv1.ConnectRequest{}, nil))
	p.rejoined(gives)
	if out, err := p.Run(p.ctx, keeps, "cat", "/srv/pg/whose"); err != nil || strings.TrimSpace(out) != keeps {
		t.Errorf("what %s wrote is gone: %q, %v", keeps, out, err)
	}
	p.identical(keeps)
	p.must(p.PowerOff(keeps))
	p.member(gives, keeps, apiv1.MemberDead)
	p.must(p.Verb(p.ctx, gives, apiv1.VerbPromote, apiv1.PromoteRequest{Force: true, Reason: "the other box burns", WaitMS: 20000}, nil))
	p.takeover(gives)
	p.holds(gives, keeps)
	p.must(p.PowerOn(keeps))
	p.rejoined(keeps)
	p.identical(gives)
}
