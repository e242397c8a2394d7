package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"hapair/agent/api"
	"hapair/agent/apiv1"
	"hapair/failover"
	"hapair/failover/ledger"
	"hapair/failover/plan"
	"hapair/failover/service"
)

// backend is what the control socket offers.
type backend struct{ a *agent }

func (b *backend) find(name string) (*resource, error) {
	if r := b.a.res[name]; r != nil {
		return r, nil
	}
	for _, x := range b.a.broken {
		if x.name == name {
			return nil, &apiv1.Problem{Code: apiv1.CodeUnavailable, Text: fmt.Sprintf("%s is not attached on this node: %v", name, x.err),
				Hint: "mend it (for a new disk: systemctl stop hapair, hactl create-metadata " + name + "), then systemctl restart hapair"}
		}
	}
	if b.a.witness() && b.a.cfg.Resource(name) != nil {
		return nil, &apiv1.Problem{Code: apiv1.CodeRefused, Text: fmt.Sprintf("%s is the witness: it has no copy of %s", b.a.self, name),
			Hint: "run it on " + strings.Join(b.a.cfg.NodeNames(), " or ") + "; hactl status tells what the witness knows"}
	}
	var names []string
	for _, r := range b.a.order {
		names = append(names, r.name)
	}
	return nil, &apiv1.Problem{Code: apiv1.CodeNotFound, Text: fmt.Sprintf("there is no resource %q on this node; there are %q", name, names), Hint: "hactl status"}
}

// Subscribe streams events.
func (b *backend) Subscribe(since uint64) *api.Subscription { return b.a.hub.Subscribe(since) }

// change runs one change of a resource and describes it.
func (b *backend) change(ctx context.Context, name, asked string, fn func(r *resource) error) (apiv1.Changed, error) {
	r, err := b.find(name)
	if err != nil {
		return apiv1.Changed{}, err
	}
	began, was := time.Now(), r.describe()
	b.a.event(apiv1.EventOperator, name, "asked: "+asked)
	if err := fn(r); err != nil {
		return apiv1.Changed{}, problem(err)
	}
	now := r.describe()
	rec, _ := b.a.ledger.Record(name)
	return apiv1.Changed{Resource: name, Node: b.a.self, Was: was, Now: now, Token: uint64(rec.Token),
		TookMS: time.Since(began).Milliseconds(), Text: fmt.Sprintf("%s: was %s, asked %s, now %s", name, was, asked, now)}, nil
}

// describe is role, connection and Primary in three words.
func (r *resource) describe() string {
	v := r.mirror.View()
	rec, _ := r.a.ledger.Record(r.name)
	primary := rec.Primary
	if primary == "" {
		primary = "nobody"
	}
	return fmt.Sprintf("%s, %s, Primary is %s", v.Role, v.State, primary)
}

// Promote makes this node Primary.
func (b *backend) Promote(ctx context.Context, name string, q apiv1.PromoteRequest) (apiv1.Changed, error) {
	ctx, cancel := waiting(ctx, q.WaitMS)
	defer cancel()
	return b.change(ctx, name, "promote", func(r *resource) error {
		reason := q.Reason
		if q.Force && reason == "" {
			reason = "forced by an operator through hactl"
		}
		return r.control.Promote(ctx, q.Force, reason)
	})
}

// Demote makes this node Secondary and keeps the resource down.
func (b *backend) Demote(ctx context.Context, name string, q apiv1.DemoteRequest) (apiv1.Changed, error) {
	ctx, cancel := b.stopping(ctx, name, q.WaitMS)
	defer cancel()
	return b.change(ctx, name, "demote", func(r *resource) error { return r.control.Demote(ctx, q.Force) })
}

// stopping bounds a request for which services are stopped: as long as it says, or as
// they may take, but no less than any other change.
func (b *backend) stopping(ctx context.Context, name string, waitMS int64) (context.Context, context.CancelFunc) {
	if r, err := b.find(name); err == nil && waitMS == 0 {
		return context.WithTimeout(ctx, max(api.DefaultWait, r.leavesWithin()))
	}
	return waiting(ctx, waitMS)
}

// Switchover moves the resource.
func (b *backend) Switchover(ctx context.Context, name string, q apiv1.SwitchoverRequest) (apiv1.Changed, error) {
	ctx, cancel := b.stopping(ctx, name, q.WaitMS)
	defer cancel()
	return b.change(ctx, name, "switchover", func(r *resource) error {
		target := q.To
		if target == "" {
			target = r.peer
			if rec, _ := b.a.ledger.Record(name); rec.Primary == r.peer {
				target = b.a.self
			}
		}
		return r.control.Switchover(ctx, target, q.Force)
	})
}

// Cleanup forgets what failed, on both nodes, and has it tried again.
func (b *backend) Cleanup(ctx context.Context, name string, q apiv1.CleanupRequest) (apiv1.Changed, error) {
	told := ""
	c, err := b.change(ctx, name, "cleanup", func(r *resource) error {
		if q.Service != "" && !r.hasService(q.Service) {
			return &apiv1.Problem{Code: apiv1.CodeNotFound, Text: fmt.Sprintf("%s has no service %q", name, q.Service), Hint: "hactl status " + name + " -o json names them"}
		}
		found, err := r.control.Cleanup(ctx, q.Service)
		told = map[bool]string{true: "forgotten", false: "there were none here"}[found]
		if err != nil {
			told += "; " + r.peer + " could not be told: run it there as well when it is back (" + err.Error() + ")"
		} else {
			told += "; " + r.peer + " was told"
		}
		return nil
	})
	c.Text = fmt.Sprintf("failures of %s on %s: %s", cmp.Or(q.Service, name), b.a.self, told)
	return c, err
}

func (r *resource) hasService(name string) bool {
	return r.group != nil && slices.ContainsFunc(r.group.Status(), func(s service.Status) bool { return s.Name == name })
}

// waiting bounds a change by what the caller asked for.
func waiting(ctx context.Context, ms int64) (context.Context, context.CancelFunc) {
	if ms <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
}

// Disconnect ends the session with the peer and keeps it so.
func (b *backend) Disconnect(ctx context.Context, name string, q apiv1.DisconnectRequest) (apiv1.Changed, error) {
	return b.change(ctx, name, "disconnect", func(r *resource) error { return r.disconnect(ctx, q.Force) })
}

// pause holds the resync of this node back, or lets it go on.
func (r *resource) pause(ctx context.Context, on bool) error {
	if err := r.mirror.PauseSync(ctx, on); err != nil {
		return &apiv1.Problem{Code: apiv1.CodeRefused, Text: err.Error(), Hint: "run it on " + r.peer}
	}
	return nil
}

// PauseSync holds the resync back.
func (b *backend) PauseSync(ctx context.Context, name string, _ apiv1.SyncRequest) (apiv1.Changed, error) {
	return b.change(ctx, name, "pause-sync", func(r *resource) error { return r.pause(ctx, true) })
}

// ResumeSync lets it go on.
func (b *backend) ResumeSync(ctx context.Context, name string, _ apiv1.SyncRequest) (apiv1.Changed, error) {
	return b.change(ctx, name, "resume-sync", func(r *resource) error { return r.pause(ctx, false) })
}

// Maintenance switches all automatic actions off or on.
func (b *backend) Maintenance(ctx context.Context, q apiv1.MaintenanceRequest) (apiv1.Changed, error) {
	return b.mark(ctx, failover.MarkMaintenance, "maintenance", q.On, q.Reason)
}

// Standby keeps a node from being promoted.
func (b *backend) Standby(ctx context.Context, q apiv1.StandbyRequest) (apiv1.Changed, error) {
	node := q.Node
	if node == "" {
		node = b.a.self
	}
	if b.a.cfg.Node(node) == nil {
		return apiv1.Changed{}, &apiv1.Problem{Code: apiv1.CodeNotFound, Text: fmt.Sprintf("there is no data node %q; there are %q", node, b.a.cfg.NodeNames())}
	}
	c, err := b.mark(ctx, failover.MarkStandby(node), "standby of "+node, q.On, q.Reason)
	if err == nil && q.On && (ledgerHands{b.a.ledger}).Marked(failover.MarkMaintenance) {
		c.Text += "; maintenance is on: what it is Primary of it hands over when that ends"
	}
	return c, err
}

// ledgerPatience bounds a change that is one word in the ledger: without a majority
// more time brings nothing.
const ledgerPatience = 10 * time.Second

func (b *backend) mark(ctx context.Context, name, what string, on bool, reason string) (apiv1.Changed, error) {
	ctx, cancel := context.WithTimeout(ctx, ledgerPatience)
	defer cancel()
	began, word := time.Now(), map[bool]string{true: "on", false: "off"}
	hands := ledgerHands{b.a.ledger}
	was := hands.Marked(name)
	var err error
	if on {
		err = hands.Mark(ctx, name, reason)
	} else {
		err = hands.Unmark(ctx, name)
	}
	if err != nil {
		return apiv1.Changed{}, markProblem(fmt.Errorf("%s: %w", what, err))
	}
	b.a.event(apiv1.EventOperator, "", what+" "+word[on])
	b.a.wakeAll("mark")
	return apiv1.Changed{Node: b.a.self, Was: word[was], Now: word[on], TookMS: time.Since(began).Milliseconds(), Text: fmt.Sprintf("%s: was %s, now %s", what, word[was], word[on])}, nil
}

// markProblem tells a mark that was certainly not set, for want of a majority, from one
// that may be: both end by a deadline.
func markProblem(err error) error {
	if errors.Is(err, ledger.ErrNoQuorum) {
		return &apiv1.Problem{Code: apiv1.CodeNoQuorum, Text: err.Error(), Hint: "hactl status says who is missing"}
	}
	return problem(err)
}

// CreateMetadata is for disks that are not attached; those of this agent are.
func (b *backend) CreateMetadata(_ context.Context, name string, _ apiv1.CreateMetadataRequest) (apiv1.CreatedMetadata, error) {
	if _, err := b.find(name); err != nil {
		return apiv1.CreatedMetadata{}, err
	}
	return apiv1.CreatedMetadata{}, &apiv1.Problem{Code: apiv1.CodeInUse, Text: fmt.Sprintf("the disks of %s are attached to the running agent", name),
		Hint: "stop haagent, then run hactl create-metadata " + name}
}

// codeOf translates failover's codes.
func codeOf(c plan.Code) string {
	switch c {
	case plan.CodeNoQuorum, plan.CodeNoRecord:
		return apiv1.CodeNoQuorum
	case plan.CodeNotInSync, plan.CodeDisk, plan.CodeResync, plan.CodeSuspect, plan.CodeUndeclared:
		return apiv1.CodeNotUpToDate
	case plan.CodeSplitBrain:
		return apiv1.CodeSplitBrain
	case plan.CodeHeld:
		return apiv1.CodeInUse
	case plan.CodeLoss:
		return apiv1.CodeWouldLose
	case plan.CodeHolder, plan.CodePeerPrimary:
		return apiv1.CodePeerConnected
	case failover.CodePending:
		return apiv1.CodeBusy
	case failover.CodeTimeout:
		return apiv1.CodeTimeout
	case failover.CodeClosed:
		return apiv1.CodeUnavailable
	default: // a rule forbids it, and the text says which
		return apiv1.CodeRefused
	}
}
