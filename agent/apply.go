package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"hapair/agent/apiv1"
	"hapair/agent/config"
)

// ConfigApply reads the configuration again, has the other members looked for where it
// says now, and the witness be the one that it names, or none. What else differs is
// refused, and nothing is changed then. Streams that are open go on.
func (b *backend) ConfigApply(ctx context.Context, _ apiv1.ConfigApplyRequest) (apiv1.Changed, error) {
	a, began := b.a, time.Now()
	before := a.arbitrationText()
	was, now, err := a.apply()
	if err != nil {
		return apiv1.Changed{}, err
	}
	why := a.rearranged(ctx)
	after := a.arbitrationText()
	c := apiv1.Changed{Node: a.self, Was: strings.Join(was, ", "), Now: strings.Join(now, ", "), TookMS: time.Since(began).Milliseconds(),
		Text: appliedText(a.self, a.cfg.File(), was, now, before, after, why)}
	if before != after || why != "" {
		c.Was, c.Now = strings.Join(append(was, before), ", "), strings.Join(append(now, after), ", ")
		a.event(apiv1.EventOperator, "", "configuration applied: "+c.Text)
	}
	return c, nil
}

// apply takes the configuration over, as far as it can be, and says which addresses are
// others now.
func (a *agent) apply() (was, now []string, err error) {
	a.applying.Lock()
	defer a.applying.Unlock()
	next, err := config.Load(a.cfg.File())
	if err != nil {
		return nil, nil, &apiv1.Problem{Code: apiv1.CodeBadRequest, Text: err.Error(), Hint: "hactl config check"}
	}
	if p := notFencing(next, a.cfg); p != nil {
		return nil, nil, p
	}
	if was, now := a.cfg.Beyond(next, a.self); was != "" {
		return nil, nil, &apiv1.Problem{Code: apiv1.CodeRefused,
			Text: fmt.Sprintf("%s: more than addresses of other members and the witness has changed since %s started: was %q, now %q", a.cfg.File(), a.self, strings.TrimSpace(was), strings.TrimSpace(now)),
			Hint: "undo that, or systemctl restart hapair on this node in its turn (operations.md, Planned work); addresses of this node itself need a restart, too"}
	}
	nodes := a.located(next)
	was, now = moves(*a.where.Load(), nodes)
	if err := a.moveTo(nodes); err != nil {
		return nil, nil, fmt.Errorf("config apply: %w", err)
	}
	if len(now) > 0 {
		a.event(apiv1.EventOperator, "", "addresses: were "+strings.Join(was, ", ")+", now "+strings.Join(now, ", "))
	}
	a.applied.Store(next)
	if err := a.votersAs(next); err != nil {
		return nil, nil, fmt.Errorf("config apply: %w", err)
	}
	a.forgetWitness() // one that was named before, and never became a member
	return was, now, nil
}

// moves lists which addresses are others now, sorted.
func moves(old, next whereabouts) (was, now []string) {
	for node, paths := range next {
		for path, ip := range paths {
			if had := old[node][path]; had.IsValid() && had != ip { // else it is new
				was = append(was, fmt.Sprintf("%s %s %s", node, path, had))
				now = append(now, fmt.Sprintf("%s %s %s", node, path, ip))
			}
		}
	}
	slices.Sort(was)
	slices.Sort(now)
	return was, now
}
