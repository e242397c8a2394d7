package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"hapair/agent/apiv1"
	"hapair/agent/peering"
	"hapair/failover"
	"hapair/failover/lease"
	"hapair/failover/ledger"
	"hapair/failover/plan"
	"hapair/mirror"
	"hapair/mirror/engine"
	"hapair/mirror/front"
	"hapair/mirror/link"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// toWire translates the ledger's record for the mirror.
func toWire(r ledger.Record) wire.Record {
	return wire.Record{Token: uint64(r.Token), Tenure: uint64(r.Tenure), Primary: r.Primary, InSync: r.InSync}
}

// mirrorLedger is what the mirror needs of the ledger.
type mirrorLedger struct{ a *agent }

func (m mirrorLedger) Exclude(ctx context.Context, resource, node string, token uint64) (wire.Record, error) {
	r, err := m.a.ledger.Exclude(ctx, resource, node, lease.Token(token))
	return m.decided(resource, r, err)
}

func (m mirrorLedger) GiveUp(ctx context.Context, resource, node string, token uint64) (wire.Record, error) {
	r, err := m.a.ledger.GiveUp(ctx, resource, node, lease.Token(token))
	return m.decided(resource, r, err)
}

func (m mirrorLedger) Include(ctx context.Context, resource, node string, token uint64) (wire.Record, error) {
	r, err := m.a.ledger.Include(ctx, resource, node, lease.Token(token))
	return m.decided(resource, r, err)
}

// decided sorts refusals, which are final and come with the present record,
// from everything else, after which the mirror asks again.
func (m mirrorLedger) decided(resource string, r ledger.Record, err error) (wire.Record, error) {
	if err == nil {
		return toWire(r), nil
	}
	for _, refusal := range []error{ledger.ErrStale, ledger.ErrNotInSync, ledger.ErrLastCopy, ledger.ErrNotPrimary, ledger.ErrInvalid} {
		if errors.Is(err, refusal) {
			if have, ok := m.a.ledger.Record(resource); ok && have.Token > r.Token {
				r = have
			}
			return toWire(r), fmt.Errorf("%w: %w", mirror.ErrStale, err)
		}
	}
	return wire.Record{}, err
}

// dialer is what the mirror needs of peering.
type dialer struct {
	a    *agent
	peer string
}

func (d dialer) Dial(ctx context.Context, path, purpose string) (net.Conn, string, error) {
	c, err := d.a.net.Dial(ctx, d.peer, path, purpose)
	if err != nil {
		return nil, "", err
	}
	return pathConn{c}, c.Path, nil
}

// pathConn tells the link over which path a stream came.
type pathConn struct{ *peering.Conn }

// The link asks the socket below a stream whether its flow is dead, in both modes of peering.
var _ interface{ Below() syscall.Conn } = pathConn{}

// OnPath names the path.
func (p pathConn) OnPath() string { return p.Conn.Path }

func (a *agent) acceptMirror(c *peering.Conn) {
	name, ok := link.ResourceOf(c.Purpose)
	r := a.res[name]
	if !ok || r == nil || c.Node != r.peer {
		a.log.Warn("a stream for no resource of ours: " + c.Node + " " + c.Purpose)
		closeQuietly(c)
		return
	}
	r.mirror.Accept(pathConn{c}, c.Purpose)
}

// closeQuietly is for streams that nobody wants: that their end fails changes
// nothing.
func closeQuietly(c net.Conn) { _ = c.Close() }

// observer brings what the mirror says to the controller and to the events.
type observer struct{ r *resource }

func (o observer) Changed(string) {
	o.r.wake("mirror")
	select {
	case o.r.look <- struct{}{}:
	default: // it is about to look
	}
}

// Linked is evidence for the heartbeat, which is told at once.
func (o observer) Linked(_, _ string, up bool) {
	o.r.linked(up)
	if w := o.r.a.words; w != nil {
		w.say()
	}
	o.r.wake("link")
}

// Moved is told because an operator would wonder why the path is another.
func (o observer) Moved(name, from, to string, because error) {
	if from != to {
		o.r.a.event(apiv1.EventConnection, name, fmt.Sprintf("the mirror goes on over %s, was over %s: %v", to, from, because))
	}
	o.Changed(name)
}

var eventKinds = map[engine.Topic]string{engine.OnConnection: apiv1.EventConnection, engine.OnDisk: apiv1.EventDisk, engine.OnResync: apiv1.EventResync, engine.OnVerify: apiv1.EventVerify}

func (o observer) Happened(name string, topic engine.Topic, text string) {
	o.r.a.event(eventKinds[topic], name, text)
}

// Proven notes that a region was found equal. The size of a volume does not
// change while it is compared.
func (o observer) Proven(_ string, volume uint16, offset, _ int64) {
	for _, v := range o.r.mirror.View().Volumes {
		if v.Number == volume {
			o.r.verify.proven(volume, v.SizeBytes, offset)
		}
	}
}

func (o observer) Trouble(name, text string) { o.r.a.event(apiv1.EventProblem, name, text) }

// SplitVictim has this node give up, as an operator would; the mirror waits for
// nobody here.
func (o observer) SplitVictim(_, why string) { go o.r.giveUpByPolicy(why) }

func (o observer) Deposed(name string, why error) {
	o.r.a.event(apiv1.EventProblem, name, fmt.Sprintf("authority is gone: %v", why))
	o.r.wake("deposed")
}

// mirrorHands is what failover needs of the mirror.
type mirrorHands struct{ r *resource }

func (m mirrorHands) Promote(ctx context.Context, _ string, tenure lease.Token, force bool) ([]string, error) {
	devices, err := m.r.mirror.Promote(ctx, uint64(tenure), force)
	if l := m.r.a.ledger.Lease(m.r.name); err == nil && l.Tenure == tenure {
		m.r.mirror.SetLease(uint64(l.Tenure), l.Until)
	}
	return devices, err
}

func (m mirrorHands) Demote(ctx context.Context, _ string) error {
	err := m.r.mirror.Demote(ctx)
	var busy *front.BusyError
	if errors.As(err, &busy) {
		return busyDevice{err, busy}
	}
	return err
}

// busyDevice is a failover.Busy.
type busyDevice struct {
	error
	busy *front.BusyError
}

func (b busyDevice) Holders() []string {
	var out []string
	for _, h := range b.busy.Holders {
		out = append(out, h.String())
	}
	return out
}

func (b busyDevice) Unwrap() error { return b.error }

func (m mirrorHands) Abort(ctx context.Context, _ string) error {
	return m.r.mirror.Abort(ctx, engine.ErrStaleToken)
}

func (m mirrorHands) Disconnect(context.Context, string) error {
	m.r.mirror.DropSession(errors.New("the controller asks for a new session"))
	return nil
}

func (m mirrorHands) View(string) failover.MirrorView {
	v := m.r.mirror.View()
	m.r.roleSince(v.Role)
	out := failover.MirrorView{Role: v.Role, Disk: worst(v.Volumes, func(x engine.VolumeView) state.Disk { return x.Disk }), Suspect: v.Suspect,
		Tenure: lease.Token(v.Tenure), State: plan.Mirror{Connection: v.State, Replication: v.Replication, Forwards: v.Forwards, SplitBrain: v.Diverged()}}
	out.State.Unopened = v.Unopened()
	out.AssumeClean = len(v.Volumes) > 0
	for _, x := range v.Volumes {
		out.State.DirtyBytes += uint64(x.DirtyBytes)
		out.State.MissingBytes += uint64(x.PeerDirty)
		out.AssumeClean = out.AssumeClean && x.Assume
	}
	if r := v.Rival; r != nil {
		out.State.Rival, out.State.OnlyThere, out.State.Uncounted = r.Role, uint64(r.DirtyBytes), !r.Counted()
	}
	if v.Connected {
		out.PeerTold, out.PeerRole, out.PeerSuspect = true, v.PeerRole, v.PeerSuspect
		out.PeerDisk = worst(v.Volumes, func(x engine.VolumeView) state.Disk { return x.PeerDisk })
		out.PeerAssumeClean = true
		for _, x := range v.Volumes {
			out.PeerAssumeClean = out.PeerAssumeClean && x.PeerAssume
		}
	}
	return out
}

// worst is the disk state that speaks for all volumes: the least usable one.
func worst(vs []engine.VolumeView, of func(engine.VolumeView) state.Disk) state.Disk {
	rank := map[state.Disk]int{state.UpToDate: 7, state.Consistent: 6, state.Outdated: 5, state.Inconsistent: 4, state.Attaching: 3, state.Failed: 2, state.Diskless: 1, state.DUnknown: 0}
	out := state.UpToDate
	if len(vs) == 0 {
		return state.DUnknown
	}
	for _, v := range vs {
		if d := of(v); rank[d] < rank[out] {
			out = d
		}
	}
	return out
}
