package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"hapair/failover/ledger/record"
	"hapair/failover/plan"
)

// GoAlone makes this node the only voter, under the next incarnation, durable
// before it is used. In arbitration manual it is for the Primary whose peer is
// gone: safe because the other node never does so by itself. It is refused
// unless this node is the Primary of every resource that has one, by all it
// has in its log. In arbitration fencing it is for either node, and refused
// unless a fence of the other one is confirmed and the two have not met since;
// what was promoted there has no Primary then. It is refused when the peer answers
// that it goes on under a higher incarnation, or takes another machine for this
// node. Already alone is success. On return commands are accepted.
func (l *Ledger) GoAlone(ctx context.Context, reason string) error {
	return l.alone(ctx, reason, false)
}

// ForceAlone is GoAlone for an operator on a node that is not the Primary, and in
// arbitration witness on any data node without a majority. What the others did after
// this node lost them is given up; if they go on, too, that is split brain. So it is
// where this node had not rejoined: they went on without it before.
func (l *Ledger) ForceAlone(ctx context.Context, reason string) error {
	return l.alone(ctx, reason, true)
}

func (l *Ledger) alone(ctx context.Context, reason string, force bool) error {
	if err := l.canBeAlone(force); err != nil {
		return fmt.Errorf("go alone: arbitration is %v: %w", l.Arbitration(), err)
	}
	if len(reason) > record.MaxText {
		reason = reason[:record.MaxText]
	}
	if err := errors.Join(l.probe(ctx), l.wasReplaced()); err != nil {
		return fmt.Errorf("go alone: %w", err)
	}
	l.admin.Lock()
	defer l.admin.Unlock()
	if l.isOnlyVoter() {
		return l.usable()
	}
	if err := l.mayGoAlone(force); err != nil {
		return fmt.Errorf("go alone: %w", err)
	}
	began := time.Now()
	was := l.view.inc()
	l.stopGroup()
	// Again, now that nothing is added to the log any more.
	err := l.mayGoAlone(force)
	fenced := ""
	if err == nil {
		if !force && l.ofPair() == ArbitrationFencing {
			fenced = l.dataPeer()
		}
		err = l.recover(reason, fenced)
	}
	if err == nil && fenced != "" {
		l.afterFence(fenced)
	}
	if restart := l.startGroup(); err != nil || restart != nil {
		return fmt.Errorf("go alone: %w", errors.Join(err, restart))
	}
	l.resetPeers()
	if err := l.awaitLead(ctx); err != nil {
		return fmt.Errorf("go alone: %w", err)
	}
	l.hands.resettle()
	l.kick()
	l.log.Warn("ledger goes on alone", zap.Uint64("was", was), zap.Uint64("now", l.view.inc()),
		zap.String("because", reason), zap.Bool("forced", force), zap.Duration("took", time.Since(began)))
	l.event(Event{Kind: EventAlone, Node: l.cfg.Self, Because: reason})
	return nil
}

// canBeAlone says why this node never runs by itself as it is configured, or not now.
// A third member, though it has no vote yet, says that both data nodes go alone no more by
// themselves: the other one may be about to count its vote (R28).
func (l *Ledger) canBeAlone(force bool) error {
	switch {
	case l.pair():
		return nil
	case l.isWitness(l.cfg.Self):
		return ErrHasNoData
	case !force:
		return ErrNotPair
	case l.CanChange() && !l.isOnlyVoter():
		return ErrQuorum
	}
	return nil
}

// probe tries to reach the peer, briefly, to hear whether it went on without us.
func (l *Ledger) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timing.Heartbeat/2)
	defer cancel()
	c, err := l.dial(ctx, l.dataPeer(), PurposeCall)
	if err == nil {
		c.Close() //nolint:errcheck // it is there, and one of us
		return nil
	}
	if errors.Is(err, ErrSuperseded) || errors.Is(err, ErrSplitBrain) {
		return err
	}
	return nil
}

// mayGoAlone judges by everything in the log, committed or not: what may have
// been committed with the peer's vote must not be overlooked.
func (l *Ledger) mayGoAlone(force bool) error {
	if err := l.usable(); err != nil {
		return err
	}
	if force {
		return nil
	}
	if !l.pair() {
		return ErrNotPair
	}
	if l.id().Joining || l.unfit() {
		return ErrJoining
	}
	if l.ofPair() == ArbitrationFencing {
		if !l.fenced() {
			return ErrNotFenced
		}
		return nil
	}
	s, err := l.replayAll()
	if err != nil {
		return err
	}
	mine := 0
	for name, r := range s.Records {
		switch r.Primary {
		case "":
		case l.cfg.Self:
			mine++
		default:
			return fmt.Errorf("resource %s: the log says primary %s: %w", name, r.Primary, ErrNotPrimaryHere)
		}
	}
	if mine == 0 {
		return fmt.Errorf("nothing is promoted here: %w", ErrNotPrimaryHere)
	}
	return nil
}

// replayAll returns the state after every entry of the log.
func (l *Ledger) replayAll() (*record.State, error) {
	id := l.id()
	f := &fsm{state: record.NewState(id.Incarnation, id.Lineage)}
	metas, err := l.snaps.List()
	if err != nil {
		return nil, err
	}
	next := uint64(1)
	for _, m := range metas {
		_, r, err := l.snaps.Open(m.ID)
		if err != nil {
			return nil, err
		}
		if err := f.Restore(r); err != nil {
			return nil, err
		}
		next = m.Index + 1
	}
	err = l.entriesFrom(next, func(e *raft.Log) {
		if e.Type == raft.LogCommand {
			f.Apply(e)
		}
	})
	if err != nil {
		return nil, err
	}
	return f.state, nil
}

// entriesFrom calls do with each entry of the stored log from an index on.
func (l *Ledger) entriesFrom(next uint64, do func(*raft.Log)) error {
	last, err := l.store.LastIndex()
	if err != nil {
		return err
	}
	for ; next <= last; next++ {
		var e raft.Log
		if err := l.store.GetLog(next, &e); err != nil {
			return fmt.Errorf("log entry %d: %w", next, err)
		}
		do(&e)
	}
	return nil
}

// recover rewrites the store: the same state, this node the only voter, the
// next incarnation. The new snapshot, durable and in place at once, is the
// step; a crash before it changes nothing, one after it completes it. fenced is
// the node whose confirmed fence allows it, "" for none.
func (l *Ledger) recover(reason, fenced string) error {
	id := l.id()
	fork := !l.pair() // of three: the other two may go on
	f := &fsm{state: record.NewState(id.Incarnation, id.Lineage), alone: l.founding(reason, fenced, fork)}
	layer := newStreamLayer(l)
	trans := newTransport(l, layer)
	defer trans.Close() //nolint:errcheck // it was never used
	only := raft.Configuration{Servers: []raft.Server{server(l.cfg.Self)}}
	has, err := raft.HasExistingState(l.store, l.store, l.snaps)
	if err == nil && !has {
		// A node that was still joining has nothing: it begins anew.
		f.alone(f.state)
		f.alone = nil
		id.Incarnation, id.Lineage = f.state.Incarnation, f.state.Lineage
		if err = l.saveIdentity(id); err == nil {
			err = raft.BootstrapCluster(l.raftConfig(), l.store, l.store, l.snaps, trans, only)
		}
		l.view.take(f.state, "", l.tellRecord)
	} else if index, _ := l.lastLog(); err == nil && index == 0 {
		err = l.recoverEmpty(f, only, trans)
	} else if err == nil {
		err = raft.RecoverCluster(l.raftConfig(), f, l.store, l.store, l.snaps, trans, only)
	}
	if err != nil {
		return fmt.Errorf("recover as the only voter: %w", err)
	}
	if id.Joining || id.Blank || id.Floor != nil || fork != id.Forked {
		id.Joining, id.Blank, id.Forked, id.Floor = false, false, fork, nil
		return l.saveIdentity(id)
	}
	return nil
}

// recoverEmpty is for a voter that has begun, and has nothing in its log yet: raft would
// make a snapshot that ends with entry 0, and not take that for one the next time.
func (l *Ledger) recoverEmpty(f *fsm, only raft.Configuration, trans raft.Transport) error {
	state, err := f.Snapshot()
	if err != nil {
		return err
	}
	sink, err := l.snaps.Create(raft.SnapshotVersionMax, 1, 1, only, 1, trans)
	if err != nil {
		return err
	}
	return state.Persist(sink)
}

// founding starts the next incarnation of a state. Of three voters the other two may
// go on: then it is kept from where (R27). Nothing is added to the log any more.
func (l *Ledger) founding(reason, fenced string, fork bool) func(*record.State) {
	apart := l.id().Joining
	index, term := uint64(0), uint64(0)
	if fork {
		index, term = l.lastLog()
		term = max(term, 1)
	}
	return func(s *record.State) {
		s.Fork(l.cfg.Self, reason, apart, index, term)
		if fenced != "" {
			s.Fenced(record.Fence{Node: fenced, Outcome: plan.FenceConfirmed.String(), Reason: reason, At: time.Now().UnixNano()})
		}
	}
}

func (l *Ledger) awaitLead(ctx context.Context) error {
	g := l.group()
	for {
		if g.raft.State() == raft.Leader {
			if r := g.barrier(ctx, enqueueTimeout); r.Status == statusOK {
				return nil
			}
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNoQuorum, ctx.Err())
		case <-l.ctx.Done():
			return ErrClosed
		}
	}
}

// resetPeers has every stream greeted anew.
func (l *Ledger) resetPeers() {
	for _, p := range l.others() {
		p.reset()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.Close() //nolint:errcheck // its server ends; the other side dials again
	}
}

func (l *Ledger) lastLog() (index, term uint64) {
	if metas, err := l.snaps.List(); err == nil && len(metas) > 0 {
		index, term = metas[0].Index, metas[0].Term
	}
	last, err := l.store.LastIndex()
	if err != nil || last <= index {
		return index, term
	}
	var e raft.Log
	if err := l.store.GetLog(last, &e); err != nil {
		return index, term // cut off meanwhile
	}
	return e.Index, e.Term
}
