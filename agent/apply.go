package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"hapair/agent/apiv1"
	"hapair/agent/config"
)

// ConfigApply reads the configuration again and has the other members looked for where
// it says now. What else differs is refused, and nothing is changed then. Streams that
// are open go on.
func (b *backend) ConfigApply(context.Context, apiv1.ConfigApplyRequest) (apiv1.Changed, error) {
	a, began := b.a, time.Now()
	a.applying.Lock()
	defer a.applying.Unlock()
	next, err := config.Load(a.cfg.File())
	if err != nil {
		return apiv1.Changed{}, &apiv1.Problem{Code: apiv1.CodeBadRequest, Text: err.Error(), Hint: "hactl config check"}
	}
	if was, now := a.cfg.Beyond(next, a.self); was != "" {
		return apiv1.Changed{}, &apiv1.Problem{Code: apiv1.CodeRefused,
			Text: fmt.Sprintf("%s: more than addresses of other members has changed since %s started: was %q, now %q", a.cfg.File(), a.self, strings.TrimSpace(was), strings.TrimSpace(now)),
			Hint: "undo that, or systemctl restart hapair on this node in its turn (operations.md, Planned work); addresses of this node itself need a restart, too"}
	}
	nodes, _ := addresses(next)
	was, now := moves(*a.where.Load(), nodes)
	if len(now) > 0 {
		if err := errors.Join(a.net.SetNodes(onPort(nodes, a.cfg.Port)), a.heart.SetNodes(nodes)); err != nil {
			return apiv1.Changed{}, fmt.Errorf("config apply: %w", err)
		}
		a.where.Store(&nodes)
		a.event(apiv1.EventOperator, "", "addresses: were "+strings.Join(was, ", ")+", now "+strings.Join(now, ", "))
	}
	c := apiv1.Changed{Node: a.self, Was: strings.Join(was, ", "), Now: strings.Join(now, ", "), TookMS: time.Since(began).Milliseconds()}
	c.Text = fmt.Sprintf("addresses on %s: were %s, now %s", a.self, c.Was, c.Now)
	if len(now) == 0 {
		c.Text = fmt.Sprintf("%s knows no other addresses than it uses: nothing to apply", a.cfg.File())
	}
	return c, nil
}

// moves lists which addresses are others now, sorted.
func moves(old, next whereabouts) (was, now []string) {
	for node, paths := range next {
		for path, ip := range paths {
			if had := old[node][path]; had != ip {
				was = append(was, fmt.Sprintf("%s %s %s", node, path, had))
				now = append(now, fmt.Sprintf("%s %s %s", node, path, ip))
			}
		}
	}
	slices.Sort(was)
	slices.Sort(now)
	return was, now
}
