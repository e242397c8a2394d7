package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/agent/peering"
	"hapair/failover"
	"hapair/failover/lease"
	"hapair/failover/ledger"
	"hapair/failover/plan"
	"hapair/failover/service"
	"hapair/failover/vip"
	"hapair/failover/vip/deadman"
	"hapair/failover/vip/frame"
)

// ledgerHands is what failover needs of the ledger: Ledger, Leases, Group, Marks.
type ledgerHands struct{ l *ledger.Ledger }

func toPlan(r ledger.Record) plan.Record {
	return plan.Record{Token: r.Token, Tenure: r.Tenure, Primary: r.Primary, InSync: r.InSync}
}

func (h ledgerHands) Record(resource string) (plan.Record, bool) {
	if !h.l.CaughtUp() {
		return toPlan(h.l.OwnWord(resource)), false
	}
	r, _ := h.l.Record(resource) // zero: it says nothing yet
	return toPlan(r), true
}

func (h ledgerHands) Promote(ctx context.Context, resource, node string, expect lease.Token) (plan.Record, error) {
	r, err := h.l.Promote(ctx, resource, node, expect)
	return toPlan(r), overtaken(err)
}

func (h ledgerHands) Demote(ctx context.Context, resource, node string, expect lease.Token) (plan.Record, error) {
	r, err := h.l.Demote(ctx, resource, node, expect)
	return toPlan(r), overtaken(err)
}

func (h ledgerHands) Declare(ctx context.Context, resource string, nodes []string, expect lease.Token) (plan.Record, error) {
	r, err := h.l.Declare(ctx, resource, nodes, expect)
	return toPlan(r), overtaken(err)
}

func (h ledgerHands) Force(ctx context.Context, resource, node, reason string, expect lease.Token) (plan.Record, error) {
	r, err := h.l.Force(ctx, resource, node, reason, expect)
	return toPlan(r), overtaken(err)
}

// overtaken says in failover's words that the record had changed.
func overtaken(err error) error {
	if errors.Is(err, ledger.ErrStale) {
		return fmt.Errorf("%w: %w", failover.ErrOvertaken, err)
	}
	return err
}

func (h ledgerHands) Hold(resource string, tenure lease.Token) { h.l.Hold(resource, tenure) }

func (h ledgerHands) Release(ctx context.Context, resource string) error {
	return h.l.Release(ctx, resource)
}
func (h ledgerHands) Lease(resource string) lease.Lease  { return h.l.Lease(resource) }
func (h ledgerHands) PromiseLapsed(resource string) bool { return h.l.PromiseLapsed(resource) }

func (h ledgerHands) Lapsed(ctx context.Context, resource string) (bool, error) {
	return h.l.Lapsed(ctx, resource)
}

func (h ledgerHands) Quorum() bool            { return h.l.CanChange() }
func (h ledgerHands) Answers() bool           { return h.l.Answers() }
func (h ledgerHands) Alone() bool             { return h.l.Alone() }
func (h ledgerHands) Split() bool             { return h.l.SplitFrom() != "" }
func (h ledgerHands) Marked(name string) bool { return h.l.Marked(name) }

func (h ledgerHands) GoAlone(ctx context.Context, reason string) error {
	return h.l.GoAlone(ctx, reason)
}

func (h ledgerHands) ForceAlone(ctx context.Context, reason string) error {
	return h.l.ForceAlone(ctx, reason)
}

func (h ledgerHands) Mark(ctx context.Context, name, reason string) error {
	return h.l.SetMaintenance(ctx, name, reason)
}

func (h ledgerHands) Unmark(ctx context.Context, name string) error {
	return h.l.ClearMaintenance(ctx, name)
}

// hints carries hints between the controllers, one stream each.
type hints struct{ a *agent }

const hintPurpose = "hint"

func (h hints) Hint(ctx context.Context, node string, hint failover.Hint) error {
	var answer struct{ Refused string }
	if err := h.a.exchange(ctx, node, hintPurpose, hint, &answer); err != nil {
		return err
	}
	if answer.Refused != "" {
		return fmt.Errorf("hint to %s: refused: %s", node, answer.Refused)
	}
	return nil
}

func (a *agent) acceptHint(c *peering.Conn) {
	defer closeQuietly(c)
	var hint failover.Hint
	var answer struct{ Refused string }
	err := take(c, exchangeTimeout, &hint)
	if err == nil && hint.From != c.Node {
		err = fmt.Errorf("a hint of %s says it is from %s", c.Node, hint.From)
	}
	if r := a.res[hint.Resource]; err == nil && r == nil {
		err = fmt.Errorf("no resource %q", hint.Resource)
	} else if err == nil {
		err = r.control.Hinted(hint)
	}
	if err != nil {
		answer.Refused = err.Error()
		a.log.Warn("hint not followed", zap.String("peer", c.Node), zap.Error(err))
	}
	a.give(c, answer)
}

// services is what failover needs of the group of services.
type services struct {
	g *service.Group
	// busy counts the calls under way: until they return, what fails is being
	// tried again or stopped, and nothing is settled.
	busy *atomic.Int32
}

func (s services) during(fn func() error) error {
	s.busy.Add(1)
	defer s.busy.Add(-1)
	return fn()
}

func (s services) Start(ctx context.Context, _ []string) error {
	return s.during(func() error { return s.g.Start(ctx) })
}

func (s services) Restart(ctx context.Context, _ []string) error {
	err := s.during(func() error { return s.g.Restart(ctx) })
	var stop *service.StopError
	if errors.As(err, &stop) {
		return fmt.Errorf("%w: %w", failover.ErrNotStopped, err)
	}
	return err
}

func (s services) Stop(ctx context.Context) error {
	return s.during(func() error { return s.g.Stop(ctx) })
}

func (s services) StopForced(ctx context.Context) error {
	return s.during(func() error { return s.g.StopForced(ctx) })
}

func (s services) State() (_ plan.ServiceState, name, what string) {
	if s.busy.Load() > 0 {
		return plan.Partial, "", ""
	}
	var running, stopped, other int
	var failed []string
	for _, st := range s.g.Status() {
		switch {
		case st.Up: // though the last check may not have been able to tell
			running++
		case st.State == service.Stopped:
			stopped++
		case st.State == service.Failed:
			name = cmp.Or(name, st.Name)
			failed = append(failed, fmt.Sprintf("%s: %v", st.Name, st.Error))
		default: // what is not known to be stopped may run
			other++
		}
	}
	switch {
	case len(failed) > 0:
		return plan.Broken, name, strings.Join(failed, "; ")
	case other == 0 && stopped == 0:
		return plan.Started, "", ""
	case other == 0 && running == 0:
		return plan.Stopped, "", ""
	}
	return plan.Partial, "", ""
}

// newGroup makes the services of a resource.
func (r *resource) newGroup(rc *config.Resource) (*service.Group, error) {
	gc := service.GroupConfig{Resource: rc.Name, Logger: r.a.log, Progress: r.progress, Frozen: r.frozenNow}
	deps := service.Deps{Resource: rc.Name, Node: r.a.self, Logger: r.a.log, Device: r.device, Guard: guard{r}}
	for i := range rc.Services {
		spec := rc.Services[i].Spec()
		if spec.Address != nil {
			spec.Address.MAC, spec.Address.Owner = r.a.cfg.VirtualMAC(rc, rc.Services[i].Address), r.a.cfg.Cluster+"/"+rc.Name
			spec.Address.MayTake, spec.Address.MayHold = r.mayTake, r.mayHold
			spec.Address.Event = func(e vip.Event) { r.addressEvent(spec.Address.Prefix, e) }
		}
		m, err := service.New(spec, deps)
		if err != nil {
			return nil, fmt.Errorf("service %d of %s: %w", i+1, rc.Name, err)
		}
		gc.Services = append(gc.Services, service.Item{Movable: m, Label: rc.Services[i].Name, Limits: rc.Services[i].Limits(), Parallel: rc.Services[i].Parallel})
	}
	return service.NewGroup(gc)
}

// addressEvent tells what befell an address that is held.
func (r *resource) addressEvent(prefix netip.Prefix, e vip.Event) {
	text, fields := fmt.Sprintf("address %s: %s", prefix, e.What), map[string]string{"service": prefix.String(), "now": string(e.What)}
	if e.MAC != (frame.MAC{}) {
		text, fields["mac"] = text+" by "+e.MAC.String(), e.MAC.String()
	}
	if e.Err != nil {
		text, fields["because"] = text+": "+e.Err.Error(), e.Err.Error()
	}
	kind := apiv1.EventService
	if e.What == vip.Contested || e.What == vip.NotBack {
		kind = apiv1.EventProblem
	}
	r.a.publish(kind, r.name, text, fields)
}

// guard is the deadman, for one resource.
type guard struct{ r *resource }

func (g guard) Hold(s vip.Site) error {
	return g.r.a.deadman.Hold(deadman.Held{Resource: g.r.name, Site: s})
}

func (g guard) Release(s vip.Site) error {
	return g.r.a.deadman.Release(deadman.Held{Resource: g.r.name, Site: s})
}

// mayHold reports whether this node may have the addresses of the resource now.
func (r *resource) mayHold() bool {
	return deadman.MayHold(r.a.ledger.Lease(r.name), r.a.clock())
}

// device finds the path of a volume for a service.
func (r *resource) device(volume int) (string, error) {
	if r.mirror == nil {
		return "", fmt.Errorf("%s is not attached on this node", r.name)
	}
	view := r.mirror.View()
	for i, v := range view.Volumes {
		if int(v.Number) == volume {
			if path := view.Devices[i]; path != "" {
				return path, nil
			}
			return "", fmt.Errorf("volume %d of %s is not offered on this node", volume, r.name)
		}
	}
	return "", fmt.Errorf("%s has no volume %d", r.name, volume)
}

func (r *resource) progress(p service.Progress) {
	text := fmt.Sprintf("%s: was %s, now %s", p.Service, p.Was, p.Now)
	fields := map[string]string{"service": p.Service, "was": string(p.Was), "now": string(p.Now)}
	if p.Took > 0 {
		text += fmt.Sprintf(", took %v", p.Took.Round(time.Millisecond))
		fields["took"] = p.Took.String()
	}
	if p.Err != nil {
		text += ", because " + p.Err.Error()
		fields["because"] = p.Err.Error()
	}
	r.a.publish(apiv1.EventService, r.name, text, fields)
	r.wake("service " + p.Service)
}

// entry brings the controller's journal to the events.
func (r *resource) entry(e failover.Entry) {
	kind := apiv1.EventRole
	switch {
	case e.Kind == failover.EntryRequest, e.Kind == failover.EntryFailed && e.Answered:
		kind = apiv1.EventOperator
	case e.Kind == failover.EntryFailed, e.Kind == failover.EntryLost:
		kind = apiv1.EventProblem
	case e.Kind == failover.EntryPeer:
		kind = apiv1.EventMember
	}
	fields := map[string]string{"entry": string(e.Kind)}
	for _, p := range e.Parts {
		fields["took_"+p.Name] = p.Took.String()
	}
	if e.Took > 0 {
		fields["took"] = e.Took.String()
	}
	r.a.publish(kind, r.name, e.String(), fields)
}

// problem translates a refusal of failover for the API.
func problem(err error) error {
	var refusal *failover.Refusal
	if errors.As(err, &refusal) {
		return &apiv1.Problem{Code: codeOf(refusal.Code), Text: refusal.Text, Hint: refusal.Hint}
	}
	var mount *service.BusyError
	if errors.As(err, &mount) {
		return &apiv1.Problem{Code: apiv1.CodeInUse, Text: err.Error(), Hint: "end what uses it, or repeat with --force"}
	}
	var busy failover.Busy
	if errors.As(err, &busy) {
		return &apiv1.Problem{Code: apiv1.CodeInUse, Text: err.Error(), Hint: "end " + strings.Join(busy.Holders(), ", ") + ", or repeat with --force"}
	}
	return err
}
