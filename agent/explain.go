package main

import (
	"context"
	"slices"

	"hapair/agent/apiv1"
	"hapair/failover/ledger"
	"hapair/failover/plan"
	"hapair/mirror"
	"hapair/mirror/state"
)

// Explain tells what speaks for and against this node as Primary and, in a
// split brain, what each node has.
func (b *backend) Explain(_ context.Context, name string) (apiv1.Explanation, error) {
	r, err := b.find(name)
	if err != nil {
		return apiv1.Explanation{}, err
	}
	c := r.copies()
	e := explanation(r.control.Explain())
	e.Resource, e.Node, e.Role = name, b.a.self, c.mirror.Role.String()
	e.Text = r.control.Status().Decision.Because
	if c.mirror.Role == state.Primary {
		e.Text = "this node is Primary: " + e.Text
	}
	if text := c.wouldLose(); text != "" {
		e.WouldLose = append(e.WouldLose, text)
	}
	e.Sides, e.Policy = c.sides(), c.policy()
	if text := r.unequal(&c.mirror); text != "" {
		e.Why = append(e.Why, apiv1.Reason{Rule: "verified", Holds: false, Evidence: text})
		e.Help = append(e.Help, "hactl verify "+name+" --repair on the Primary")
	}
	return e, nil
}

// explanation sorts the reasons, and judges by them.
func explanation(reasons []plan.Reason) apiv1.Explanation {
	e := apiv1.Explanation{Verdict: apiv1.MayPromote}
	for i := range reasons {
		r := &reasons[i]
		if r.Loss {
			e.WouldLose = append(e.WouldLose, r.Text)
			continue
		}
		e.Why = append(e.Why, apiv1.Reason{Rule: ruleOf(r.Code), Holds: r.OK, Evidence: r.Text})
		if r.OK {
			continue
		}
		if r.Hint != "" && r.Code != plan.CodeSplitBrain && !slices.Contains(e.Help, r.Hint) { // in a split brain the sides say it, with names
			e.Help = append(e.Help, r.Hint)
		}
		if !r.Unasked {
			e.Verdict = lesser(e.Verdict, verdictOf(r))
		}
	}
	return e
}

// ruleOf names the rule that a code is about, whether it holds or not.
func ruleOf(c plan.Code) string {
	switch c {
	case plan.CodeNoRecord, plan.CodeUndeclared:
		return "record"
	case plan.CodeNoQuorum:
		return "quorum"
	case plan.CodeHolder:
		return "lease"
	case plan.CodeNotInSync:
		return "in-sync"
	case plan.CodePeerPrimary:
		return "peer"
	case plan.CodeFenceDevice:
		return "fence"
	case plan.CodeNotAsked:
		return "auto-promote"
	default: // the code is the rule's name
		return string(c)
	}
}

// forcible are the rules an operator may overrule.
var forcible = map[plan.Code]bool{plan.CodeNotInSync: true, plan.CodeNoQuorum: true, plan.CodeDisk: true, plan.CodeSuspect: true,
	plan.CodeUndeclared: true, plan.CodeManual: true, plan.CodeSplitBrain: true, plan.CodeNoRecord: true,
	plan.CodeFence: true}

func verdictOf(r *plan.Reason) string {
	switch {
	case r.Passing:
		return apiv1.MustWait
	case forcible[r.Code]:
		return apiv1.NeedsForce
	}
	return apiv1.CannotServe
}

func lesser(a, b string) string {
	rank := map[string]int{apiv1.MayPromote: 3, apiv1.MustWait: 2, apiv1.NeedsForce: 1, apiv1.CannotServe: 0}
	if rank[b] < rank[a] {
		return b
	}
	return a
}

// copies is what is known of both copies of a resource.
type copies struct {
	resource, self, peer string
	record               ledger.Record
	mirror               mirror.View
	ledgerSplit          bool // both nodes run a ledger of their own
}

func (r *resource) copies() copies {
	rec, _ := r.a.ledger.Record(r.name)
	return copies{resource: r.name, self: r.a.self, peer: r.peer, record: rec, mirror: r.mirror.View(), ledgerSplit: r.a.ledger.SplitFrom() != ""}
}

// split reports whether both nodes went on without the other.
func (c *copies) split() bool { return c.ledgerSplit || c.mirror.Diverged() }
