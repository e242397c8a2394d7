package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/failover/ledger"
	"hapair/failover/plan"
)

// A witness that comes or goes while the agents run. The ledger changes the voters, a
// step at a time, once both data nodes have been told the same; here is who tells it,
// and what else has to know who there is.

// standstill is how long a change of the voters may go on without a step before the
// operator gets his answer: what it waits for. It goes on by itself all the same.
const (
	standstill = 1500 * time.Millisecond
	votersLook = 20 * time.Millisecond
)

// arbitration is the one in force, in the plan's words.
func (a *agent) arbitration() plan.Arbitration {
	switch a.ledger.Arbitration() {
	case ledger.ArbitrationWitness:
		return plan.Witness
	case ledger.ArbitrationFencing:
		return plan.Fencing
	default:
		return plan.Manual
	}
}

// memberNames are all nodes, in order: those of the configuration as last applied, and
// a witness that is none of them any more, or not yet, and a member of the ledger.
func (a *agent) memberNames() []string {
	names := a.applied.Load().Members()
	for _, w := range a.witnesses() {
		if !slices.Contains(names, w) {
			names = append(names, w)
		}
	}
	return names
}

// witnesses are those the ledger knows, or is to know.
func (a *agent) witnesses() (names []string) {
	if a.ledger == nil {
		return nil
	}
	for _, v := range a.ledger.Status().Voters {
		if v.Witness {
			names = append(names, v.Node)
		}
	}
	return names
}

// votersAs tells the ledger which witness a configuration names, if any.
func (a *agent) votersAs(next *config.Config) error {
	if a.witness() {
		return nil
	}
	name, pair := "", ledger.ArbitrationManual
	if next.Witness != nil {
		name = next.Witness.Name
	}
	if a.cfg.Arbitration == config.ArbitrateFencing {
		pair = ledger.ArbitrationFencing // its devices are here
	}
	return a.ledger.Arrange(name, pair)
}

// located are the addresses of a configuration, and of a witness that is a member yet.
func (a *agent) located(cfg *config.Config) whereabouts {
	nodes, _ := addresses(cfg)
	had := *a.where.Load()
	for _, w := range a.witnesses() {
		if at, known := had[w]; known && nodes[w] == nil {
			nodes[w] = at
		}
	}
	return nodes
}

// moveTo has everybody looked for where they are, and nobody else. applying is held.
func (a *agent) moveTo(nodes whereabouts) error {
	if err := a.net.SetNodes(onPort(nodes, a.cfg.Port)); err != nil {
		return err
	}
	if err := a.heart.SetNodes(nodes); err != nil {
		return err
	}
	for node := range nodes {
		a.record.Follow(node)
	}
	a.where.Store(&nodes)
	return nil
}

// relocate forgets where a witness was that has gone. The ledger's events come here.
func (a *agent) relocate() {
	if !a.opened.Load() {
		return // it has just begun, with what is configured
	}
	a.applying.Lock()
	defer a.applying.Unlock()
	a.forgetWitness()
}

// forgetWitness has nobody look for a witness that is neither configured nor a member.
// applying is held.
func (a *agent) forgetWitness() {
	nodes := a.located(a.applied.Load())
	if maps.EqualFunc(nodes, *a.where.Load(), maps.Equal) {
		return
	}
	if err := a.moveTo(nodes); err != nil {
		a.log.Error("a witness that has gone is looked for still", zap.Error(err))
	}
}

// rearranged waits until the voters are who was applied, as long as it goes on; why says
// what it waits for, "" when they are.
func (a *agent) rearranged(ctx context.Context) (why string) {
	since := time.Now()
	for {
		ls := a.ledger.Status()
		now := ls.Arranging
		if now == "" && asWanted(&ls) {
			return ""
		}
		if now != why {
			why, since = now, time.Now()
		}
		if time.Since(since) > standstill || ctx.Err() != nil {
			return why
		}
		select {
		case <-time.After(votersLook):
		case <-ctx.Done():
		}
	}
}

// asWanted tells whether the ledger's witness is the configured one.
func asWanted(ls *ledger.Status) bool {
	for _, v := range ls.Voters {
		if v.Witness && (v.Node != ls.Wanted || !v.Voting) {
			return false
		}
	}
	return true
}

// arbitrationText is how the pair arbitrates, for people.
func (a *agent) arbitrationText() string {
	ls := a.ledger.Status()
	text := ls.Arbitration.String()
	for _, v := range ls.Voters {
		switch {
		case v.Witness && v.Voting:
			text += " (" + v.Node + ")"
		case v.Witness && ls.Arbitration == ledger.ArbitrationWitness:
			text += " (" + v.Node + ", without a vote yet)"
		default: // has data, or is no member
		}
	}
	return text
}

// appliedText says what an application of the configuration came to.
func appliedText(self, file string, was, now []string, before, after, why string) string {
	var parts []string
	if len(now) > 0 {
		parts = append(parts, fmt.Sprintf("addresses on %s: were %s, now %s", self, strings.Join(was, ", "), strings.Join(now, ", ")))
	}
	if before != after {
		parts = append(parts, fmt.Sprintf("arbitration: was %s, now %s", before, after))
	}
	if why != "" {
		parts = append(parts, fmt.Sprintf("arbitration is %s, and changes when this is settled: %s", after, why))
	}
	if len(parts) == 0 {
		return fmt.Sprintf("%s knows no other addresses, and no other witness, than are in use: nothing to apply", file)
	}
	return strings.Join(parts, "; ")
}

// notFencing says how arbitration comes to be by fencing.
func notFencing(next, cfg *config.Config) *apiv1.Problem {
	if next.Arbitration != config.ArbitrateFencing || cfg.Arbitration == config.ArbitrateFencing || cfg.Witness == nil {
		return nil
	}
	return &apiv1.Problem{Code: apiv1.CodeRefused,
		Text: "from a witness to fencing goes by way of manual: fence devices are looked at when an agent starts",
		Hint: "arbitration: manual, without witness and fencing, on both nodes, and hactl config apply; then arbitration: fencing, and systemctl restart hapair on each, the Secondary first"}
}
