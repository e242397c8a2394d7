package failover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"hapair/failover/plan"
	"hapair/mirror/state"
)

// request is what an operator asked for and still waits for. It is guarded by
// Controller.mu.
type request struct {
	wish plan.Wish
	peer bool       // the peer asked, for an operator there
	left bool       // nobody waits for it any more
	done chan error // capacity 1, sent to exactly once
}

// end answers the request under way, if any.
func (m *memory) end(err error) {
	if m.request == nil {
		return
	}
	if m.request.peer {
		m.denied = err
	}
	m.request.done <- err
	m.request = nil
}

// mended forgets the failures of a node where an operator wants the resource:
// who asks for it there knows better than a memory.
func (c *Controller) mended(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if node == c.cfg.Self {
		c.mu.failures.Forget("")
	} else {
		c.mu.peerFailed = plan.Failures{}
	}
}

// Status is what a controller last saw and decided.
type Status struct {
	View         plan.View
	Decision     plan.Decision
	Running      plan.Step // Nothing when no step is under way
	RunningSince time.Duration
}

// Status returns the state after the last look.
func (c *Controller) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.status
}

// Explain looks now and tells everything that speaks for or against this node
// as Primary, and what a forced promotion would lose.
func (c *Controller) Explain() []plan.Reason { return plan.Explain(c.View()) }

// Losses tells only what a forced promotion would lose, as of now.
func (c *Controller) Losses() []plan.Reason { return plan.Losses(c.View()) }

// View looks now.
func (c *Controller) View() plan.View {
	v := c.read()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.fill(&v)
	return v
}

// Failures tells what is remembered against this node, by service; "" stands for
// what belongs to none.
func (c *Controller) Failures() map[string]plan.Failures {
	now := c.cfg.Clock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.failures.Of(now)
}

// Cleanup forgets the failures of a service on both nodes, of all with "". What
// failed is tried again at once. It reports whether this node remembered any, and
// fails when the peer could not be told.
func (c *Controller) Cleanup(ctx context.Context, service string) (any bool, err error) {
	any = c.forget(service)
	c.note(Entry{Kind: EntryRequest, Text: "cleanup: the failures of " + cmp.Or(service, "all services") + " are forgotten"})
	c.Wake("cleanup")
	h := Hint{Kind: Forget, Resource: c.cfg.Resource, From: c.cfg.Self, Service: service, Reason: "cleanup asked for by the operator"}
	if err := bounded(ctx, hintTimeout, func(ctx context.Context) error { return c.needs.Peers.Hint(ctx, c.cfg.Peer, h) }); err != nil {
		return any, fmt.Errorf("tell %s to forget as well: %w", c.cfg.Peer, err)
	}
	return any, nil
}

// forget takes what is remembered here of either node away. What the peer told is
// of no service in particular.
func (c *Controller) forget(service string) (any bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	any = c.mu.failures.Forget(service) || c.mu.peerFailed.Count > 0
	c.mu.peerFailed = plan.Failures{}
	return any
}

// Promote makes this node Primary and starts the services. It returns when
// that is done, refused, or failed as often as is tried. force overrides the
// ledger's word that this copy is not current and a missing quorum; reason is
// then kept in the ledger and must not be empty.
func (c *Controller) Promote(ctx context.Context, force bool, reason string) (err error) {
	defer c.oweAgain(c.owe(false), &err)
	if force && reason == "" {
		return refused(CodeAlready, "give a reason: it is kept in the ledger", "a forced promotion of %s needs a reason", c.cfg.Resource)
	}
	undo, err := c.raise(ctx, force, reason)
	if err != nil {
		return err
	}
	c.mended(c.cfg.Self)
	return c.ask(ctx, plan.Wish{Kind: plan.Promote, Force: force, Reason: reason}, c.moved(undo, c.cfg.Self))
}

// moved is what follows a request to have the resource on a node.
func (c *Controller) moved(undo func(context.Context) error, to string) func(context.Context, error) error {
	return func(ctx context.Context, err error) error {
		if err = c.withUndo(ctx, undo, "", err); err == nil {
			c.stay(ctx, to)
		}
		return err
	}
}

// Demote stops the services and makes this node Secondary. The resource stays
// down on both nodes until somebody promotes it. Held-open devices are an
// error that is a Busy; force aborts them. By force it needs no quorum: the
// ledger is told when there is one, unless this agent ends before, or the peer
// has taken over.
func (c *Controller) Demote(ctx context.Context, force bool) error {
	v := c.View()
	if p := v.Ledger.Record.Primary; p == c.cfg.Peer && v.Self.Role != state.Primary && v.Services.State == plan.Stopped {
		return refused(CodeNode, fmt.Sprintf("hactl demote %s on %s", c.cfg.Resource, p), "%s is Primary, not this node", p)
	}
	undo, err := c.markDemoted(ctx, v, force)
	if err != nil {
		return err
	}
	return c.ask(ctx, plan.Wish{Kind: plan.Demote, Force: force}, func(ctx context.Context, err error) error {
		return c.withUndo(ctx, undo, c.cfg.Self, err)
	})
}

// markDemoted notes in the ledger that nobody is to be Primary by himself. What is
// asked by force does not wait for that: then it is owed, and the step that tells
// the ledger of the demotion makes the note first.
func (c *Controller) markDemoted(ctx context.Context, v plan.View, force bool) (undo func(context.Context) error, err error) {
	name := MarkDown(c.cfg.Resource)
	if v.Down && force && !v.Ledger.Quorum {
		return func(context.Context) error { return nil }, nil
	}
	wait := ledgerTimeout
	if force {
		wait = forcedTimeout // the quorum may be gone, and nobody has noticed
	}
	err = ErrStopped
	if v.Ledger.Quorum || !force {
		err = bounded(ctx, wait, func(ctx context.Context) error { return c.needs.Marks.Mark(ctx, name, "demoted by the operator") })
	}
	switch {
	case err == nil && v.Down: // as far as the replica here has come, which may be before a promotion: so it was noted again
		return func(context.Context) error { return nil }, nil
	case err == nil:
		return func(ctx context.Context) error { return c.needs.Marks.Unmark(ctx, name) }, nil
	case !force || v.Ledger.Record.Primary != c.cfg.Self:
		return nil, fmt.Errorf("demote %s: note it in the ledger: %w", c.cfg.Resource, err)
	}
	c.owe(true)
	return func(context.Context) error { c.owe(false); return nil }, nil
}

// oweAgain: a request that came to nothing does not take a demotion back.
func (c *Controller) oweAgain(was bool, err *error) {
	if was && *err != nil {
		c.owe(true)
	}
}

// owe notes, or forgets, a forced demotion that the ledger does not know of.
func (c *Controller) owe(on bool) (was bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, c.mu.owed = c.mu.owed, on
	return was
}

// Switchover moves the resource to target. It returns when target is Primary
// by the ledger (and, when that is this node, its services run). force ends
// whoever keeps the services or the devices from being stopped. In maintenance
// nothing is moved: it is refused.
func (c *Controller) Switchover(ctx context.Context, target string, force bool) (err error) {
	defer c.oweAgain(c.owe(false), &err)
	v := c.View()
	switch {
	case target != c.cfg.Self && target != c.cfg.Peer:
		return refused(CodeNode, fmt.Sprintf("hactl switchover %s --to %s, or --to %s", c.cfg.Resource, c.cfg.Self, c.cfg.Peer),
			"%q is no data node of %s", target, c.cfg.Resource)
	case v.Ledger.Record.Primary == target:
		return nil
	case v.Maintenance:
		return refused(plan.CodeMaintenance, "hactl maintenance off, then hactl switchover "+c.cfg.Resource, "maintenance is on: %s is not moved", c.cfg.Resource)
	case v.Ledger.Record.Primary == "" && target == c.cfg.Peer:
		return refused(CodeNode, fmt.Sprintf("hactl promote %s on %s", c.cfg.Resource, target), "nobody is Primary of %s: there is nothing to hand over", c.cfg.Resource)
	}
	undo, err := c.raise(ctx, false, "")
	if err != nil {
		return err
	}
	c.mended(target)
	return c.ask(ctx, plan.Wish{Kind: plan.Switchover, Target: target, Force: force}, c.moved(undo, target))
}

// Standby notes in the ledger that nothing is to run on this node, or takes
// the note away. A Primary hands over as soon as the peer can take it.
func (c *Controller) Standby(ctx context.Context, on bool) error {
	return c.mark(ctx, MarkStandby(c.cfg.Self), on, "standby")
}

// Maintenance notes in the ledger that nothing is promoted, started or handed
// over by itself, or takes the note away. Lost authority still takes a resource down,
// an operator may still promote and demote, and an agent that stops hands over. A
// promotion then starts the services, once.
func (c *Controller) Maintenance(ctx context.Context, on bool) error {
	return c.mark(ctx, MarkMaintenance, on, "maintenance")
}

func (c *Controller) mark(ctx context.Context, name string, on bool, reason string) error {
	set := func(ctx context.Context) error { return c.needs.Marks.Unmark(ctx, name) }
	if on {
		set = func(ctx context.Context) error { return c.needs.Marks.Mark(ctx, name, reason) }
	}
	if err := bounded(ctx, ledgerTimeout, set); err != nil {
		return fmt.Errorf("%s %t: %w", name, on, err)
	}
	c.note(Entry{Kind: EntryRequest, Text: fmt.Sprintf("%s: %t", name, on)})
	c.Wake("mark " + name)
	return nil
}

// raise takes the operator's earlier demotion back; undo restores it.
func (c *Controller) raise(ctx context.Context, force bool, reason string) (undo func(context.Context) error, err error) {
	name := MarkDown(c.cfg.Resource)
	if !c.needs.Marks.Marked(name) {
		return func(context.Context) error { return nil }, nil
	}
	err = bounded(ctx, ledgerTimeout, func(ctx context.Context) error { return c.needs.Marks.Unmark(ctx, name) })
	if err != nil && !force {
		return nil, fmt.Errorf("promote %s: take the demotion back in the ledger: %w", c.cfg.Resource, err)
	}
	return func(ctx context.Context) error { return c.needs.Marks.Mark(ctx, name, "still demoted") }, nil
}

// withUndo restores the mark when the request came to nothing, which is when
// the record's Primary is still the one given. Its own failure is told beside
// the request's.
func (c *Controller) withUndo(ctx context.Context, undo func(context.Context) error, still string, err error) error {
	if err == nil || c.View().Ledger.Record.Primary != still {
		return err
	}
	if failed := bounded(context.WithoutCancel(ctx), ledgerTimeout, undo); failed != nil {
		return errors.Join(err, fmt.Errorf("restore the mark of %s: %w", c.cfg.Resource, failed))
	}
	c.Wake("request ended")
	return err
}

// submit makes the wish the one under way. One that nobody waits for any more gives way.
func (c *Controller) submit(w plan.Wish, peer bool) (*request, error) {
	w.Since = c.cfg.Clock()
	r := &request{wish: w, peer: peer, done: make(chan error, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return nil, refused(CodeClosed, "systemctl start hapair", "%s: the agent stops", c.cfg.Resource)
	}
	if was := c.mu.request; was != nil && was.left {
		c.mu.end(refused(CodePending, "hactl status "+c.cfg.Resource, "%s of %s gives way to another request", was.wish.Kind, c.cfg.Resource))
	} else if was != nil {
		return nil, refused(CodePending, "wait for it, or interrupt it", "%s of %s, asked %s ago, is still under way",
			was.wish.Kind, c.cfg.Resource, (w.Since - was.wish.Since).Round(100*time.Millisecond))
	}
	c.mu.request, c.mu.hinted = r, false
	return r, nil
}

// ask submits the wish and waits for its end; then says what follows from that. When ctx
// ends first the wish is dropped, and a step under way is finished. One for which
// services are being stopped goes on, and nobody waits for it: dropped, it would have
// them started again where they were.
func (c *Controller) ask(ctx context.Context, w plan.Wish, then func(context.Context, error) error) error {
	r, err := c.submit(w, false)
	if err != nil {
		return err
	}
	c.note(Entry{Kind: EntryRequest, Text: fmt.Sprintf("%s asked for (force %t)", w.Kind, w.Force), Cause: w.Reason})
	c.Wake(w.Kind.String() + " asked for")
	select {
	case err = <-r.done:
	case <-ctx.Done():
		if c.leftAlone(r) {
			go func() {
				defer c.following.Done()
				err := <-r.done
				c.tell(w, err)
				if err = then(context.WithoutCancel(ctx), err); err != nil {
					c.log.Warn("a request that nobody waited for came to nothing", zap.String("asked", w.Kind.String()), zap.Error(err))
				}
			}()
			return errors.Join(refused(CodeTimeout, "hactl status "+c.cfg.Resource, "%s of %s takes longer, and goes on: services are being stopped", w.Kind, c.cfg.Resource), ctx.Err())
		}
		err = c.dropped(r, ctx.Err())
	}
	c.tell(w, err)
	return then(ctx, err)
}

// tell notes how a request ended.
func (c *Controller) tell(w plan.Wish, err error) {
	text := w.Kind.String() + " done"
	if err != nil {
		text = fmt.Sprintf("%s ended: %v", w.Kind, err)
	}
	c.note(Entry{Kind: EntryRequest, Text: text})
	c.log.Info("request", zap.String("asked", w.Kind.String()), zap.Bool("force", w.Force), zap.String("because", w.Reason), zap.Error(err))
}

// leftAlone notes that nobody waits for a request any more, if it goes on without; then
// somebody has to follow it.
func (c *Controller) leftAlone(r *request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.request != r || r.wish.Kind == plan.Promote {
		return false
	}
	switch c.mu.status.Running.Kind {
	case plan.StopServices, plan.MirrorDemote, plan.LedgerDemote, plan.ReleaseLease, plan.HandOver:
		r.left = true
		c.following.Add(1) // before close can wait for it
	default: // nothing is down yet, or nothing is left to take down
	}
	return r.left
}

func ended(err error) string {
	if err == nil {
		return "done"
	}
	return "ended: " + err.Error()
}

// dropped takes the wish back after the caller's time ran out, unless it was
// answered at the same moment.
func (c *Controller) dropped(r *request, cause error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.request != r {
		return <-r.done
	}
	c.mu.request = nil
	d := c.mu.status.Decision
	return errors.Join(refused(CodeTimeout, "hactl explain "+c.cfg.Resource, "%s of %s is not done: %s", r.wish.Kind, c.cfg.Resource, d.Because), cause)
}

// answer ends the request when the view or the decision says so, and reports
// whether it did.
func (c *Controller) answer(v plan.View, d plan.Decision) bool {
	err, over := c.outcome(v, d)
	if !over {
		return false
	}
	if v.Wish.Auto {
		c.note(Entry{Kind: EntryRequest, Text: "going back by itself: " + ended(err), Cause: v.Wish.Reason})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// not when the agent ends: the resource is not to stay down
	c.mu.owed = c.mu.owed || err == nil && owes(&v) && !c.mu.leaving
	if r := c.mu.request; r != nil && r.peer && err == nil { // who asked there may not have waited for it
		c.stepping.Go(func() { c.stay(context.Background(), r.wish.Target) })
	}
	c.mu.end(err)
	return true
}
