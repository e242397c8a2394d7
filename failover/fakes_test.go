package failover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"hapair/failover/lease"
	"hapair/failover/plan"
	"hapair/mirror/state"
)

// The needs of a Controller, all on one node.

func (n *node) Record(string) (plan.Record, bool) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.known, n.read
}

var errNoQuorum = errors.New("no quorum")

func (n *node) change(ctx context.Context, expect lease.Token, f func(*plan.Record) error) (plan.Record, error) {
	select {
	case <-time.After(5 * time.Millisecond):
	case <-ctx.Done():
		return plan.Record{}, ctx.Err()
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.late > 0 {
		n.late--
		n.w.rec.Token++
	}
	switch {
	case !n.up || !n.w.quorum(n.name):
		return plan.Record{}, errNoQuorum
	case expect != n.w.rec.Token:
		return plan.Record{}, fmt.Errorf("%w: token is %d", ErrOvertaken, n.w.rec.Token)
	}
	r := n.w.rec
	if err := f(&r); err != nil {
		return plan.Record{}, err
	}
	r.Token = n.w.rec.Token + 1
	if r.Primary == n.name {
		r.Tenure = r.Token
	}
	n.w.rec, n.known = r, r
	return r, nil
}

func (n *node) Promote(ctx context.Context, _, name string, expect lease.Token) (plan.Record, error) {
	return n.change(ctx, expect, func(r *plan.Record) error {
		if !r.Has(name) {
			return errors.New("not in sync")
		}
		if p := r.Primary; p != "" && p != name && !n.majorityLapsed() {
			n.w.wrong = append(n.w.wrong, name+" asked for the promotion while "+p+" may hold its lease")
			return errors.New("lease held")
		}
		r.Primary = name
		n.w.promos = append(n.w.promos, name)
		return nil
	})
}

func (n *node) Demote(ctx context.Context, _, name string, expect lease.Token) (plan.Record, error) {
	return n.change(ctx, expect, func(r *plan.Record) error {
		if r.Primary != name {
			return errors.New("not Primary")
		}
		r.Primary = ""
		return nil
	})
}

func (n *node) Declare(ctx context.Context, _ string, nodes []string, expect lease.Token) (plan.Record, error) {
	return n.change(ctx, expect, func(r *plan.Record) error { r.InSync = slices.Sorted(slices.Values(nodes)); return nil })
}

func (n *node) Force(ctx context.Context, _, name, reason string, expect lease.Token) (plan.Record, error) {
	return n.change(ctx, expect, func(r *plan.Record) error {
		if reason == "" {
			return errors.New("no reason")
		}
		r.InSync, r.Primary = []string{name}, ""
		return nil
	})
}

func (n *node) Hold(_ string, tenure lease.Token) { n.w.in(func() { n.held = tenure }) }

func (n *node) Release(context.Context, string) error {
	n.w.in(func() {
		n.held, n.lease = 0, lease.Lease{}
		for _, v := range n.w.reach(n.name) {
			if n.w.owes[v].to == n.name {
				n.w.owes[v] = owed{}
			}
		}
	})
	return nil
}

func (n *node) Lease(string) lease.Lease {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.lease
}

func (n *node) majorityLapsed() bool {
	count := 0
	voters := n.w.reach(n.name)
	for _, v := range voters {
		if o := n.w.owes[v]; o.to != n.w.rec.Primary || n.w.now() >= o.until {
			count++
		}
	}
	return n.w.alone == n.name || 2*count > len(n.w.voters)
}

func (n *node) Lapsed(ctx context.Context, _ string) (bool, error) {
	select {
	case <-time.After(2 * time.Millisecond):
	case <-ctx.Done():
		return false, ctx.Err()
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if !n.w.quorum(n.name) {
		return false, errNoQuorum
	}
	return n.majorityLapsed(), nil
}

func (n *node) PromiseLapsed(string) bool {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	o := n.w.owes[n.name]
	return o.to != n.known.Primary || n.w.now() >= o.until
}

func (n *node) Quorum() bool  { n.w.mu.Lock(); defer n.w.mu.Unlock(); return n.w.quorum(n.name) }
func (n *node) Answers() bool { return n.Quorum() }
func (n *node) Split() bool   { return false }
func (n *node) Alone() bool   { n.w.mu.Lock(); defer n.w.mu.Unlock(); return n.w.alone == n.name }

func (n *node) GoAlone(context.Context, string) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.w.set.Arbitration == plan.Fencing {
		return n.goAloneFenced()
	}
	if n.w.rec.Primary != n.name {
		return errors.New("not the Primary")
	}
	n.w.alone = n.name
	return nil
}

func (n *node) ForceAlone(context.Context, string) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.noAlone == nil {
		n.w.alone = n.name
	}
	return n.noAlone
}

func (n *node) Marked(name string) bool {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.w.marks[name] || n.lags == name
}

func (n *node) Mark(ctx context.Context, name, _ string) error {
	if n.slowMark > 0 {
		select {
		case <-time.After(n.slowMark):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if !n.Quorum() {
		<-ctx.Done()
		return errNoQuorum
	}
	n.w.in(func() { n.w.marks[name] = true })
	return nil
}

func (n *node) Unmark(ctx context.Context, name string) error {
	if !n.Quorum() {
		<-ctx.Done()
		return errNoQuorum
	}
	n.w.in(func() { delete(n.w.marks, name) })
	return nil
}

type mirror struct{ *node }

func (m mirror) Promote(ctx context.Context, _ string, tenure lease.Token, _ bool) ([]string, error) {
	select {
	case <-time.After(20 * time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if !m.up {
		return nil, errors.New("off")
	}
	m.opens++
	if !m.lies {
		m.role, m.tenure = state.Primary, tenure
	}
	if m.unopened = m.opensFail != 0; m.unopened {
		m.opensFail--
		return nil, errors.New("volume 0: start fuse: no loop device is free")
	}
	return []string{"/dev/hapair/pg/0"}, nil
}

type heldOpen struct{ by []string }

func (h heldOpen) Error() string     { return "device is held open by " + strings.Join(h.by, ", ") }
func (h heldOpen) Holders() []string { return h.by }

func (m mirror) Demote(context.Context, string) error {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if len(m.holders) > 0 {
		return heldOpen{m.holders}
	}
	if m.disk == state.Failed {
		return errors.New("flush: input/output error")
	}
	if m.running != plan.Stopped {
		m.w.wrong = append(m.w.wrong, m.name+" was demoted below running services")
	}
	m.role, m.tenure = state.Secondary, 0
	return nil
}

func (m mirror) Abort(context.Context, string) error {
	m.w.in(func() { m.role, m.tenure, m.holders = state.Secondary, 0, nil; m.aborts++ })
	return nil
}

func (m mirror) Disconnect(context.Context, string) error { return nil }

func (m mirror) View(string) MirrorView {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	o := m.w.nodes[m.peer()]
	v := MirrorView{Role: m.role, Disk: m.disk, Suspect: m.suspect, Tenure: m.tenure}
	v.State.Connection, v.State.Unopened = state.Connecting, m.role == state.Primary && m.unopened
	if m.w.session() {
		v.State.Connection, v.State.Replication, v.PeerTold = state.Connected, state.Established, true
		v.PeerRole, v.PeerDisk, v.PeerSuspect = o.role, o.disk, o.suspect
	}
	return v
}

func (n *node) Peer(string) (plan.Verdict, []string, time.Duration) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.verdict, []string{"crossover: silent"}, n.since
}

func (n *node) Hint(_ context.Context, to string, h Hint) error {
	var c *Controller
	n.w.in(func() {
		if o := n.w.nodes[to]; o.up && !o.deaf && n.w.connected() {
			c = o.ctl
		}
	})
	if c == nil {
		return errors.New("unreachable")
	}
	return c.Hinted(h)
}

type services struct{ *node }

func (s services) Start(ctx context.Context, devices []string) error {
	s.w.mu.Lock()
	takes, ignore := s.startTakes, s.startIgnore
	s.starts++
	s.running = plan.Partial
	if s.up && (len(devices) == 0 || s.role != state.Primary || s.unopened) { // one that is being switched off may have looked before
		s.w.wrong = append(s.w.wrong, s.name+": services started without a device")
	}
	s.w.mu.Unlock()
	if ignore {
		time.Sleep(takes)
	} else {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.startFails != 0 {
		s.startFails--
		s.running, s.svcFailed = plan.Broken, "postgresql.service: exit status 1"
		return startFailed{s.svcFailed}
	}
	if s.up {
		s.running = plan.Started
	}
	return nil
}

func (s services) Stop(ctx context.Context) error {
	s.w.mu.Lock()
	takes := s.orderly
	s.w.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.stopFails > 0 {
		s.stopFails--
		return errors.New("umount: target is busy")
	}
	s.running = plan.Stopped
	return nil
}

func (s services) StopForced(context.Context) error {
	time.Sleep(s.stopTakes)
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.forcedFails {
		s.running = plan.Broken
		return errors.New("stop command: exit status 1")
	}
	s.running = plan.Stopped
	return nil
}

type startFailed struct{ text string }

func (e startFailed) Error() string       { return e.text }
func (e startFailed) ServiceName() string { return "systemd:postgresql.service" }

func (s services) Restart(ctx context.Context, devices []string) error {
	refused := false
	s.w.in(func() { s.restarts++; refused, s.notStopped = s.notStopped, false })
	if refused {
		return fmt.Errorf("%w: umount: target is busy", ErrNotStopped)
	}
	return s.Start(ctx, devices)
}

func (s services) State() (plan.ServiceState, string, string) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.running, "systemd:postgresql.service", s.svcFailed
}
