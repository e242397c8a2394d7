package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"hapair/agent/apiv1"
	"hapair/failover/lease"
	"hapair/failover/ledger"
)

// Replace has the machine of another node refused for good, and its copies counted
// as current no more, so that a new machine takes its place.
func (b *backend) Replace(ctx context.Context, q apiv1.ReplaceRequest) (apiv1.Changed, error) {
	began := time.Now()
	if p := b.mayReplace(&q); p != nil {
		return apiv1.Changed{}, p
	}
	reason := cmp.Or(q.Reason, "replaced by an operator through hactl")
	out, err := b.excludeFrom(ctx, q.Node)
	if err != nil {
		return apiv1.Changed{}, err
	}
	was := b.a.machineOf(q.Node)
	told, err := b.a.ledger.Vacate(ctx, q.Node, reason)
	switch {
	case errors.Is(err, ledger.ErrAnswers):
		return apiv1.Changed{}, answering(q.Node, err.Error())
	case err != nil:
		return apiv1.Changed{}, problem(err)
	}
	text := fmt.Sprintf("%s: the machine %s is refused from now on, by %s", q.Node, cmp.Or(was, "that it had"), strings.Join(append([]string{b.a.self}, told...), " and "))
	if late := b.untold(q.Node, told); len(late) > 0 {
		text += "; " + strings.Join(late, " and ") + " could not be told, and hears of it from the others when it is back"
	}
	if len(out) > 0 {
		text += "; its copy of " + strings.Join(out, ", ") + " is current no more"
	}
	b.a.event(apiv1.EventOperator, "", "replace: "+text+": "+reason)
	return apiv1.Changed{Node: q.Node, Was: cmp.Or(was, "unknown"), Now: "nobody", TookMS: time.Since(began).Milliseconds(),
		Text: text + ". Next: " + b.nextSteps(q.Node)}, nil
}

// nextSteps says how the new machine joins.
func (b *backend) nextSteps(node string) string {
	there := "haagent --witness started with an empty " + b.a.cfg.StateDir
	if b.a.cfg.Node(node) != nil {
		there = "hactl create-metadata of each resource, haagent started"
	}
	return fmt.Sprintf("hactl invite %s on a data node; on the new machine hactl join CODE, %s", node, there)
}

// mayReplace says why nothing is done.
func (b *backend) mayReplace(q *apiv1.ReplaceRequest) error {
	a := b.a
	if q.Node == a.self || !slices.Contains(a.memberNames(), q.Node) {
		return &apiv1.Problem{Code: apiv1.CodeNotFound, Text: fmt.Sprintf("%q is no other node of this cluster; here is %s, there are %q", q.Node, a.self, a.others()),
			Hint: "run it on a node that stays; a node of another name is put into the configuration first"}
	}
	for _, m := range a.members() {
		if m.Name == q.Node && m.State == apiv1.MemberAlive {
			return answering(q.Node, "the heartbeat hears it")
		}
	}
	for name, rec := range a.ledger.Records() {
		if rec.Primary == q.Node {
			return &apiv1.Problem{Code: apiv1.CodeRefused, Text: fmt.Sprintf("%s is Primary of %s by the ledger", q.Node, name),
				Hint: fmt.Sprintf("hactl explain %s on the other data node says what keeps it from taking over; when it has, repeat this", name)}
		}
		if slices.Equal(rec.InSync, []string{q.Node}) {
			return &apiv1.Problem{Code: apiv1.CodeWouldLose, Text: fmt.Sprintf("the only current copy of %s is that of %s", name, q.Node),
				Hint: fmt.Sprintf("start %s; if its disk is gone for good: hactl promote %s --force on the other data node, which says what is lost, then repeat this", q.Node, name)}
		}
	}
	if !q.Checked {
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: fmt.Sprintf("the machine of %s would be refused for good: its copies would count as current no more, and it could come back only with an empty state directory", q.Node),
			Hint: fmt.Sprintf("if it is off, and stays so: hactl replace %s --i-have-checked", q.Node)}
	}
	return nil
}

func answering(node, because string) *apiv1.Problem {
	return &apiv1.Problem{Code: apiv1.CodePeerConnected, Text: fmt.Sprintf("%s runs: %s", node, because),
		Hint: "a machine that runs is not replaced: stop it (hactl standby " + node + ", then systemctl stop hapair there), switch it off, and repeat this"}
}

func (a *agent) others() []string {
	return slices.DeleteFunc(a.memberNames(), func(n string) bool { return n == a.self })
}

// untold are the other nodes that do not know yet.
func (b *backend) untold(node string, told []string) []string {
	return slices.DeleteFunc(b.a.others(), func(n string) bool { return n == node || slices.Contains(told, n) })
}

// excludeFrom takes the copies of a node out of the in-sync sets, and says of which
// resources.
func (b *backend) excludeFrom(ctx context.Context, node string) (out []string, err error) {
	for name, rec := range b.a.ledger.Records() {
		if !rec.Has(node) {
			continue
		}
		if err := b.exclude(ctx, name, node, rec.Token); err != nil {
			return nil, &apiv1.Problem{Code: apiv1.CodeNoQuorum, Text: fmt.Sprintf("%s cannot be taken out of the in-sync set of %s: %v", node, name, err),
				Hint: "hactl status says who is missing; without a witness, promote this node first (hactl promote " + name + " --force)"}
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return out, nil
}

func (b *backend) exclude(ctx context.Context, name, node string, expect lease.Token) error {
	ctx, cancel := context.WithTimeout(ctx, ledgerPatience)
	defer cancel()
	_, err := b.a.ledger.Exclude(ctx, name, node, expect)
	return err
}

// machineOf is the machine that is taken for another node, "" where none is known.
func (a *agent) machineOf(node string) string {
	for _, v := range a.ledger.Status().Voters {
		if v.Node == node {
			return v.Machine
		}
	}
	return ""
}

// machines adds what the ledger knows to the members: which machine has whose name.
func machines(members []apiv1.Member, ls *ledger.Status) []apiv1.Member {
	for i := range members {
		for _, v := range ls.Voters {
			if v.Node == members[i].Name {
				members[i].Machine = v.Machine
			}
		}
	}
	return members
}
