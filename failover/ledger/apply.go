package ledger

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"hapair/failover/lease"
	"hapair/failover/ledger/record"
)

const (
	retryEvery   = 10 * time.Millisecond
	defaultLimit = 10 * time.Second // of a command whose context has no deadline
)

// Promote makes node, which must be in sync, the Primary, whoever is now: its
// lease will not be granted before every earlier one has run out.
func (l *Ledger) Promote(ctx context.Context, resource, node string, expect lease.Token) (Record, error) {
	return l.do(ctx, record.Command{Kind: record.Promote, Resource: resource, Node: node, Expect: expect})
}

// Demote makes node, which must be the Primary, a Secondary. It is refused while
// a fence that this node asked for is undecided.
func (l *Ledger) Demote(ctx context.Context, resource, node string, expect lease.Token) (Record, error) {
	if err := l.undecided(); err != nil {
		return Record{}, fmt.Errorf("demote %s: %w", resource, err)
	}
	return l.do(ctx, record.Command{Kind: record.Demote, Resource: resource, Node: node, Expect: expect})
}

// Exclude takes node out of the in-sync set; never the last one.
func (l *Ledger) Exclude(ctx context.Context, resource, node string, expect lease.Token) (Record, error) {
	return l.do(ctx, record.Command{Kind: record.Exclude, Resource: resource, Node: node, Expect: expect})
}

// GiveUp takes the copy of node, which must be the Primary and say so itself, out
// of the in-sync set; never the last one. It stays Primary. It is refused while a
// fence that this node asked for is undecided: the only current copy would be that of
// a node which it may still strike.
func (l *Ledger) GiveUp(ctx context.Context, resource, node string, expect lease.Token) (Record, error) {
	if err := l.undecided(); err != nil {
		return Record{}, fmt.Errorf("give up the copy of %s: %w", resource, err)
	}
	return l.do(ctx, record.Command{Kind: record.GiveUp, Resource: resource, Node: node, Expect: expect})
}

// Include puts node into the in-sync set.
func (l *Ledger) Include(ctx context.Context, resource, node string, expect lease.Token) (Record, error) {
	return l.do(ctx, record.Command{Kind: record.Include, Resource: resource, Node: node, Expect: expect})
}

// Declare names the first in-sync set of a resource.
func (l *Ledger) Declare(ctx context.Context, resource string, nodes []string, expect lease.Token) (Record, error) {
	return l.do(ctx, record.Command{Kind: record.Declare, Resource: resource, Nodes: nodes, Expect: expect})
}

// Force makes node's copy the only good one, for an operator's stated reason.
func (l *Ledger) Force(ctx context.Context, resource, node, reason string, expect lease.Token) (Record, error) {
	return l.do(ctx, record.Command{Kind: record.Force, Resource: resource, Node: node, Reason: reason, Expect: expect})
}

// SetMaintenance marks a node or resource; ClearMaintenance takes it back.
func (l *Ledger) SetMaintenance(ctx context.Context, subject, reason string) error {
	_, err := l.do(ctx, record.Command{Kind: record.Mark, Resource: subject, Reason: reason})
	return err
}

// ClearMaintenance takes a mark away; none is fine too.
func (l *Ledger) ClearMaintenance(ctx context.Context, subject string) error {
	_, err := l.do(ctx, record.Command{Kind: record.Unmark, Resource: subject})
	return err
}

// do has a command applied: by the leader, wherever that is, as often as it
// takes until ctx ends; its id makes sure it is applied once.
func (l *Ledger) do(ctx context.Context, c record.Command) (Record, error) {
	c.ID = fmt.Sprintf("%s-%s-%d", l.cfg.Self, l.session, l.seq.Add(1))
	c.At = time.Now().UnixNano()
	data, err := c.Encode()
	if err != nil {
		return Record{}, err
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultLimit)
		defer cancel()
	}
	why := &attempts{about: fmt.Sprintf("%s %s", c.Kind, c.Resource)}
	for {
		if err := l.usable(); err != nil {
			return Record{}, why.end(err)
		}
		if g := l.group(); g != nil {
			inc := l.view.inc()
			r := l.askLeader(ctx, g, call{Kind: callApply, Incarnation: inc, Data: data})
			if r.Status == statusOK {
				l.learn(g, c.Resource, r.Answer.Record, inc)
				l.awaitMark(ctx, g, c.Kind, r.Index)
				return r.Answer.Record, r.Answer.Err(c)
			}
			why.note(r)
		}
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
			return Record{}, why.end(ctx.Err())
		case <-l.ctx.Done():
			return Record{}, why.end(ErrClosed)
		}
	}
}

// attempts remembers whether any of them may have succeeded.
type attempts struct {
	about   string
	unknown bool
	detail  string
}

func (a *attempts) note(r callReply) {
	a.unknown = a.unknown || r.Status == statusUnknown
	a.detail = r.Detail
}

func (a *attempts) end(cause error) error {
	kind := ErrNoQuorum
	if a.unknown {
		kind = ErrUnknownOutcome
	}
	if errors.Is(cause, ErrClosed) && !a.unknown {
		return fmt.Errorf("%s: %w", a.about, cause)
	}
	return fmt.Errorf("%s: %w: %w (last: %s)", a.about, kind, cause, a.detail)
}

func (l *Ledger) usable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.left {
		return ErrClosed
	}
	return l.diskErr
}

// askLeader carries out a call at the leader: here, or over the wire.
func (l *Ledger) askLeader(ctx context.Context, g *group, c call) callReply {
	c.Budget = 3 * l.cfg.Timing.Heartbeat
	if g.raft.State() == raft.Leader {
		ctx, cancel := context.WithTimeout(ctx, c.Budget)
		defer cancel()
		return l.lead(ctx, g, l.cfg.Self, c)
	}
	_, id := g.raft.LeaderWithID()
	p := l.peer(string(id))
	if p == nil {
		return callReply{Status: statusNotLeader, Detail: "no leader"}
	}
	r, sent, err := p.call(ctx, c)
	if err != nil && sent {
		return callReply{Status: statusUnknown, Detail: err.Error()}
	}
	if err != nil {
		return callReply{Status: statusNotLeader, Detail: err.Error()}
	}
	return r
}

// lead carries out a call only the leader can.
func (l *Ledger) lead(ctx context.Context, g *group, node string, c call) callReply {
	switch c.Kind {
	case callApply:
		return g.apply(ctx, c.Data)
	case callBarrier:
		r := g.barrier(ctx, enqueueTimeout)
		r.Index = g.raft.AppliedIndex()
		return r
	case callJoin:
		return l.admit(ctx, g, node)
	case callRemove:
		servers, at, err := l.storedMembership()
		if err != nil || !l.pairOf(servers) {
			return callReply{Status: statusRefused, Detail: errors.Join(ErrNotPair, err).Error()}
		}
		return g.remove(ctx, node, at)
	default: // of a newer version; callLapsed, callReady and callArrange are for any voter, see answer
		return callReply{Status: statusRefused, Detail: "unknown call " + string(c.Kind)}
	}
}

// awaitMark waits until a mark shows here: who has maintenance begin expects that from
// then on this node starts nothing. It has no record of its own that could be learnt. A
// node that is behind does not hold the answer up for long. That one is taken away is not
// waited for: what is done next, as a promotion, would come after what others do.
func (l *Ledger) awaitMark(ctx context.Context, g *group, kind record.Kind, index uint64) {
	if kind != record.Mark {
		return
	}
	late := time.After(3 * l.cfg.Timing.Heartbeat)
	for g.fsm.at.Load() < index {
		select {
		case <-time.After(time.Millisecond):
		case <-late:
			return
		case <-ctx.Done():
			return
		case <-g.gone:
			return
		}
	}
}

// waitApplied waits until this node has applied index.
func (l *Ledger) waitApplied(ctx context.Context, g *group, index uint64) bool {
	for wait := time.Millisecond; ; wait = min(2*wait, retryEvery) {
		if g.raft.AppliedIndex() >= index {
			return true
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false
		case <-g.gone:
			return false
		}
	}
}

// serveCalls answers calls on one stream until it ends.
func (l *Ledger) serveCalls(node string, c net.Conn) {
	for {
		var ask call
		if err := readMessage(c, &ask); err != nil {
			l.streamEnded(node, PurposeCall, err)
			return
		}
		l.heard(ask.Stamp)
		l.contactWith(node)
		l.heardSeat(node)
		budget := min(max(ask.Budget, 0), defaultLimit)
		ctx, cancel := context.WithTimeout(l.ctx, budget)
		reply := l.answer(ctx, node, ask)
		cancel()
		reply.Stamp = l.stamp()
		err := c.SetWriteDeadline(time.Now().Add(2 * l.cfg.Timing.Heartbeat))
		if err == nil {
			err = writeMessage(c, reply)
		}
		if err != nil {
			l.streamEnded(node, PurposeCall, err)
			return
		}
	}
}

func (l *Ledger) answer(ctx context.Context, node string, c call) callReply {
	if inc := l.view.inc(); c.Incarnation != inc {
		return callReply{Status: statusNotLeader, Detail: fmt.Sprintf("incarnation %d, here %d", c.Incarnation, inc)}
	}
	switch c.Kind {
	case callLapsed:
		lapsed, known := l.voter.lapsed(c.Resource, node, c)
		return callReply{Status: statusOK, Lapsed: lapsed, Known: known}
	case callReady:
		r := callReply{Status: statusOK}
		if g := l.group(); g != nil {
			r.Index, r.Ready = g.raft.AppliedIndex(), l.voter.ready() && !g.nameless
		}
		return r
	case callArrange:
		if len(c.Data) > record.MaxName {
			return callReply{Status: statusRefused, Detail: fmt.Sprintf("a witness's name of %d bytes", len(c.Data))}
		}
		l.wantsNow(node, string(c.Data))
		return callReply{Status: statusOK, Arranged: l.arrangedHere(node)}
	default: // for the leader
	}
	g := l.group()
	if g == nil || g.raft.State() != raft.Leader {
		return callReply{Status: statusNotLeader, Detail: l.cfg.Self + " does not lead"}
	}
	return l.lead(ctx, g, node, c)
}
