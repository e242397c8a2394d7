package bubble

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"hapair/failover"
	"hapair/failover/lease"
	"hapair/failover/ledger"
	"hapair/failover/plan"
	"hapair/heartbeat/detect"
	"hapair/mirror"
	"hapair/mirror/engine"
	"hapair/mirror/wire"
)

// The hands are those of package agent, without faces: the ledger for failover
// and for the mirror, the mirror and the heartbeat for failover, hints.

type ledgerHands struct{ *ledger.Ledger }

func toPlan(r ledger.Record) plan.Record {
	return plan.Record{Token: r.Token, Tenure: r.Tenure, Primary: r.Primary, InSync: r.InSync}
}

func toWire(r ledger.Record) wire.Record {
	return wire.Record{Token: uint64(r.Token), Tenure: uint64(r.Tenure), Primary: r.Primary, InSync: r.InSync}
}

func (h ledgerHands) Record(resource string) (plan.Record, bool) {
	if !h.CaughtUp() {
		return toPlan(h.OwnWord(resource)), false
	}
	r, _ := h.Ledger.Record(resource)
	return toPlan(r), true
}

func (h ledgerHands) Promote(ctx context.Context, resource, node string, expect lease.Token) (plan.Record, error) {
	r, err := h.Ledger.Promote(ctx, resource, node, expect)
	return toPlan(r), err
}

func (h ledgerHands) Demote(ctx context.Context, resource, node string, expect lease.Token) (plan.Record, error) {
	r, err := h.Ledger.Demote(ctx, resource, node, expect)
	return toPlan(r), err
}

func (h ledgerHands) Declare(ctx context.Context, resource string, nodes []string, expect lease.Token) (plan.Record, error) {
	r, err := h.Ledger.Declare(ctx, resource, nodes, expect)
	return toPlan(r), err
}

func (h ledgerHands) Force(ctx context.Context, resource, node, reason string, expect lease.Token) (plan.Record, error) {
	r, err := h.Ledger.Force(ctx, resource, node, reason, expect)
	return toPlan(r), err
}

func (h ledgerHands) Quorum() bool { return h.CanChange() }
func (h ledgerHands) Split() bool  { return h.SplitFrom() != "" }

func (h ledgerHands) Mark(ctx context.Context, name, reason string) error {
	return h.SetMaintenance(ctx, name, reason)
}

func (h ledgerHands) Unmark(ctx context.Context, name string) error {
	return h.ClearMaintenance(ctx, name)
}

// mirrorLedger is what the mirror needs of the ledger.
type mirrorLedger struct{ b *boot }

func (m mirrorLedger) Exclude(ctx context.Context, resource, node string, token uint64) (wire.Record, error) {
	m.b.w.excludes(m.b.node)
	r, err := m.b.ledger.Exclude(ctx, resource, node, lease.Token(token))
	return m.decided(resource, r, err)
}

func (m mirrorLedger) GiveUp(ctx context.Context, resource, node string, token uint64) (wire.Record, error) {
	r, err := m.b.ledger.GiveUp(ctx, resource, node, lease.Token(token))
	return m.decided(resource, r, err)
}

func (m mirrorLedger) Include(ctx context.Context, resource, node string, token uint64) (wire.Record, error) {
	r, err := m.b.ledger.Include(ctx, resource, node, lease.Token(token))
	return m.decided(resource, r, err)
}

func (m mirrorLedger) decided(resource string, r ledger.Record, err error) (wire.Record, error) {
	if err == nil {
		m.b.w.learn(r)
		return toWire(r), nil
	}
	for _, refusal := range []error{ledger.ErrStale, ledger.ErrNotInSync, ledger.ErrLastCopy, ledger.ErrNotPrimary, ledger.ErrInvalid} {
		if errors.Is(err, refusal) {
			if have, ok := m.b.ledger.Record(resource); ok && have.Token > r.Token {
				r = have
			}
			m.b.w.learn(r)
			return toWire(r), fmt.Errorf("%w: %w", mirror.ErrStale, err)
		}
	}
	return wire.Record{}, err
}

// dialer is what the mirror needs of the network.
type dialer struct{ b *boot }

func (d dialer) Dial(ctx context.Context, _, purpose string) (net.Conn, string, error) {
	c, err := d.b.port.Dial(ctx, d.b.peer, purpose)
	if err != nil {
		return nil, "", err
	}
	return c, path, nil
}

// observer brings what the mirror says to the controller and the heartbeat.
type observer struct{ b *boot }

func (o observer) Changed(string) { o.b.wake("mirror") }

func (o observer) Linked(_, _ string, up bool) {
	kind := detect.LinkSilent
	if up {
		kind = detect.LinkAlive
	}
	if err := o.b.heart.Observe(detect.Evidence{Kind: kind, Node: o.b.peer}); err != nil {
		o.b.w.failf("%s: evidence of the link: %v", o.b.node, err)
	}
	o.b.wake("link")
}

func (o observer) Moved(_, _, _ string, because error) {
	o.b.log.Info(fmt.Sprintf("mirror: goes on after %v", because))
}

func (o observer) Happened(_ string, _ engine.Topic, text string) { o.b.log.Info("mirror: " + text) }

func (o observer) Trouble(_, text string) { o.b.log.Warn("mirror: " + text) }

func (o observer) Proven(string, uint16, int64, int64) {}

func (o observer) SplitVictim(string, string) {}

func (o observer) Deposed(string, error) { o.b.wake("deposed") }

// mirrorHands is what failover needs of the mirror.
type mirrorHands struct{ b *boot }

func (m mirrorHands) Promote(ctx context.Context, _ string, tenure lease.Token, force bool) ([]string, error) {
	m.b.door.promoted(uint64(tenure))
	devices, err := m.b.mirror.Promote(ctx, uint64(tenure), force)
	if l := m.b.ledger.Lease(resource); err == nil && l.Tenure == tenure {
		m.b.mirror.SetLease(uint64(l.Tenure), l.Until)
	}
	return devices, err
}

func (m mirrorHands) Demote(ctx context.Context, _ string) error { return m.b.mirror.Demote(ctx) }

func (m mirrorHands) Abort(ctx context.Context, _ string) error {
	return m.b.mirror.Abort(ctx, engine.ErrStaleToken)
}

func (m mirrorHands) Disconnect(context.Context, string) error {
	m.b.mirror.DropSession(errors.New("the controller asks for a new session"))
	return nil
}

func (m mirrorHands) View(string) failover.MirrorView {
	v := m.b.mirror.View()
	x := v.Volumes[0]
	out := failover.MirrorView{Role: v.Role, Disk: x.Disk, Suspect: v.Suspect, Tenure: lease.Token(v.Tenure), AssumeClean: x.Assume,
		State: plan.Mirror{Connection: v.State, Replication: v.Replication, SplitBrain: v.Diverged(),
			DirtyBytes: uint64(x.DirtyBytes), MissingBytes: uint64(x.PeerDirty)}}
	if r := v.Rival; r != nil {
		out.State.Rival, out.State.OnlyThere = r.Role, uint64(r.DirtyBytes)
	}
	if v.Connected {
		out.PeerTold, out.PeerRole, out.PeerSuspect = true, v.PeerRole, v.PeerSuspect
		out.PeerDisk, out.PeerAssumeClean = x.PeerDisk, x.PeerAssume
	}
	return out
}

// heartHands is what failover needs of the heartbeat.
type heartHands struct{ b *boot }

func (h heartHands) Peer(node string) (plan.Verdict, []string, time.Duration) {
	n, ok := h.b.heart.Snapshot().Nodes[node]
	if !ok {
		return plan.Unheard, nil, 0
	}
	var reasons []string
	for _, r := range n.Reasons {
		reasons = append(reasons, r.Text)
	}
	v := map[detect.State]plan.Verdict{detect.Alive: plan.Alive, detect.Suspect: plan.Suspected, detect.Dead: plan.Dead}[n.State]
	return v, reasons, n.Since
}

const hint = "hint" // purpose of a hint's stream

// hints carries hints between the controllers, one stream each.
type hints struct{ b *boot }

func (h hints) Hint(ctx context.Context, node string, hinted failover.Hint) error {
	c, err := h.b.port.Dial(ctx, node, hint)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // the answer is there, or why not
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if err := json.NewEncoder(c).Encode(hinted); err != nil {
		return err
	}
	var refused string
	if err := json.NewDecoder(c).Decode(&refused); err != nil {
		return err
	}
	if refused != "" {
		return fmt.Errorf("hint to %s: refused: %s", node, refused)
	}
	return nil
}

func (b *boot) acceptHint(_ string, c net.Conn) {
	defer c.Close() //nolint:errcheck // nothing follows the answer
	var h failover.Hint
	refused := ""
	err := c.SetDeadline(time.Now().Add(2 * time.Second))
	if err == nil {
		err = json.NewDecoder(c).Decode(&h)
	}
	if err == nil {
		err = b.control.Hinted(h)
	}
	if err != nil {
		refused = err.Error()
	}
	_ = json.NewEncoder(c).Encode(refused) // the peer may be gone
}
