package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"hapair/failover/ledger/logstore"
)

const (
	joinEvery  = 50 * time.Millisecond
	joinSeldom = 500 * time.Millisecond
)

// manage replaces this node's ledger when a peer goes on without it, and keeps
// asking until it is a voter again.
func (l *Ledger) manage() {
	again := joinEvery
	for {
		wait := time.Hour
		if l.id().Joining {
			wait = again
			l.join()
			again = min(2*again, joinSeldom) // a group that waits for another voter may wait for long
		}
		select {
		case you := <-l.rejoinCh:
			again = joinEvery
			if err := l.discard(you); err != nil {
				l.log.Error("cannot discard the ledger to rejoin", zap.String("peer", you.Node), zap.Error(err))
				if !l.rest() {
					return
				}
			}
		case <-time.After(wait):
		case <-l.ctx.Done():
			return
		}
	}
}

// rest keeps from trying again at once what stops raft each time, and is false when the
// ledger is closed.
func (l *Ledger) rest() bool {
	select {
	case <-time.After(time.Second):
		return true
	case <-l.ctx.Done():
		return false
	}
}

// discard throws this node's ledger away in favour of the peer's.
func (l *Ledger) discard(you hello) error {
	l.admin.Lock()
	defer l.admin.Unlock()
	// Judge again: what was seen may be settled since.
	if l.usable() != nil || judge(l.greeting(), you) != behind && !l.abandoned(you) {
		return nil
	}
	return l.adopt(you, "the peer goes on without this node")
}

// adopt discards this ledger for the peer's. It fails with ErrNoRoom where this one goes
// on, since there is no room to begin another; else the disk has failed. admin is held.
func (l *Ledger) adopt(you hello, because string) error {
	was := l.view.inc()
	l.stopGroup()
	l.voter.setCaught(false)
	l.hands.suspend("the ledger it rests on is discarded")
	if err := l.wipe(identity{Incarnation: you.Incarnation, Lineage: you.Lineage, Joining: true, Wiping: true, Floor: floorOf(you), Machine: l.Machine(), Forked: you.Forked || len(you.Voters)+len(you.Learners) > 2}); err != nil {
		return l.notWiped(err)
	}
	l.voter.forget()
	l.hands.drop("the ledger it rests on was discarded")
	gone := l.view.all()
	l.view.reset(l.id())
	for name := range gone {
		l.tellRecord(name, Record{})
	}
	l.log.Warn("ledger discarded", zap.String("peer", you.Node), zap.Uint64("was", was), zap.Uint64("now", you.Incarnation),
		zap.String("because", because))
	l.event(Event{Kind: EventRejoining, Node: you.Node, Because: because})
	l.resetPeers()
	err := l.startGroup()
	if err != nil {
		l.diskFailed(err)
	}
	l.kickCatchUp()
	return err
}

// notWiped goes on with the old ledger if that is whole, which it is when there was no room
// for a new one. admin is held.
func (l *Ledger) notWiped(err error) error {
	if errors.Is(err, logstore.ErrNoRoom) && !l.id().Wiping {
		restart := l.startGroup()
		l.kickCatchUp()
		if restart == nil {
			return err
		}
		err = errors.Join(err, restart)
	}
	l.diskFailed(err)
	return err
}

// wipe makes the store empty under an identity. A crash on the way is taken up
// again by finishWipe when the ledger is opened.
func (l *Ledger) wipe(id identity) error {
	b, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("ledger identity: %w", err)
	}
	longest, err := l.store.Get([]byte(keyLongest))
	if err != nil {
		return err
	}
	asked, err := l.store.Get([]byte(keyFence))
	if err != nil {
		return err
	}
	seats, err := l.store.Get([]byte(keySeats))
	if err != nil {
		return err
	}
	if err := l.store.Reset(map[string][]byte{keyIdentity: b, keyLongest: longest, keyFence: asked, keySeats: seats}); err != nil {
		return err
	}
	l.mu.Lock()
	l.ident, l.own = id, nil
	l.mu.Unlock()
	return l.finishWipe()
}

func (l *Ledger) finishWipe() error {
	if err := l.snaps.Remove(); err != nil {
		return err
	}
	id := l.id()
	id.Wiping = false
	return l.saveIdentity(id)
}

// poke wakes manage.
func (l *Ledger) poke() {
	select {
	case l.rejoinCh <- l.greeting():
	default:
	}
}

// join asks the peer to make this node a voter again.
func (l *Ledger) join() {
	ctx, cancel := context.WithTimeout(l.ctx, 2*time.Second)
	defer cancel()
	if l.isVoter() {
		l.joined()
		return
	}
	if l.isWitness(l.cfg.Self) && !l.id().Forked {
		return // the leader comes by itself, see arrange.go
	}
	for _, p := range l.others() {
		r, _, err := p.call(ctx, call{Kind: callJoin, Incarnation: l.view.inc(), Budget: time.Second})
		if err != nil || r.Status != statusOK {
			l.log.Debug("not a voter yet", zap.String("peer", p.node), zap.String("because", r.Detail), zap.Error(err))
		}
	}
}

func (l *Ledger) isVoter() bool {
	names, ok := l.voters()
	return ok && slices.Contains(names, l.cfg.Self)
}

func (l *Ledger) joined() {
	l.admin.Lock()
	defer l.admin.Unlock()
	id := l.id()
	if !id.Joining || !l.isVoter() {
		return
	}
	id.Joining = false
	if err := l.saveIdentity(id); errors.Is(err, logstore.ErrNoRoom) {
		return // manage tries again
	} else if err != nil {
		l.diskFailed(err)
		return
	}
	l.log.Info("ledger rejoined", zap.Uint64("now", id.Incarnation))
	l.event(Event{Kind: EventRejoined, Node: l.cfg.Self})
}

// admit makes a returned node a voter: first without a vote, until it has
// caught up, would promise, and has granted what is held. Then counting its
// vote interrupts neither commits nor leases.
func (l *Ledger) admit(ctx context.Context, g *group, node string) callReply {
	p := l.peer(node)
	if p == nil {
		return callReply{Status: statusRefused, Detail: "not a node of this pair"}
	}
	if !l.joinMu.TryLock() {
		return callReply{Status: statusRefused, Detail: "already under way"}
	}
	defer l.joinMu.Unlock()
	if slices.Contains(voterNames(g.raft), node) {
		return callReply{Status: statusOK}
	}
	if forked := l.id().Forked; !forked && (l.isWitness(node) || !l.pair()) {
		return callReply{Status: statusRefused, Detail: "the group is of three, or is to be: see arrange"}
	}
	if r := l.makeRoom(ctx, g, node); r.Status != statusOK {
		return r
	}
	if !slices.ContainsFunc(configuration(g.raft), func(s raft.Server) bool { return string(s.ID) == node }) {
		if r := g.addLearner(ctx, node, 0); r.Status != statusOK {
			return r
		}
	}
	if !l.awaitReady(ctx, g, p) {
		return callReply{Status: statusRefused, Detail: "not caught up yet"}
	}
	with, back := l.returnsWith(ctx, g, node)
	if with != nil && !back {
		return callReply{Status: statusRefused, Detail: with.node + " is not back yet: of two voters neither could be lost"}
	}
	r := l.giveVote(ctx, g, node)
	if r.Status == statusOK && with != nil { // at once: until then neither of the two could be lost
		l.giveVote(ctx, g, with.node)
	}
	return r
}

// giveVote counts the vote of a member from now on.
func (l *Ledger) giveVote(ctx context.Context, g *group, node string) callReply {
	r := g.addVoter(ctx, node, 0)
	if r.Status == statusOK {
		l.log.Info("ledger voter returned", zap.String("peer", node))
		l.event(Event{Kind: EventRejoined, Node: node})
	}
	return r
}

// makeRoom refuses a witness that is not wanted any more by a group that was forced, and
// lets one go that came back to it, and has had no vote in it, for another that is.
func (l *Ledger) makeRoom(ctx context.Context, g *group, node string) callReply {
	servers, at, err := l.storedMembership()
	third, found := l.third(servers)
	switch {
	case err != nil:
		return callReply{Status: statusRefused, Detail: err.Error()}
	case !l.isWitness(node):
		return callReply{Status: statusOK}
	case node != l.wanted():
		return callReply{Status: statusRefused, Detail: "it is not the witness that is wanted"}
	case !found || string(third.ID) == node:
		return callReply{Status: statusOK}
	case third.Suffrage == raft.Voter:
		return callReply{Status: statusRefused, Detail: string(third.ID) + " is the witness, and has its vote"}
	}
	return g.remove(ctx, string(third.ID), at)
}

// returnsWith is the other voter of three that is to count again together with node, nil
// where there is none, and whether it is back as node is: a lone voter serves on when
// its only other one is lost, one of two does not (R27).
func (l *Ledger) returnsWith(ctx context.Context, g *group, node string) (with *peer, back bool) {
	if !l.id().Forked {
		return nil, false
	}
	for _, other := range append(l.cfg.data(), l.wanted()) {
		p := l.peer(other)
		if p == nil || other == node || slices.Contains(voterNames(g.raft), other) {
			continue
		}
		return p, l.isReady(ctx, p, g.raft.AppliedIndex())
	}
	return nil, false
}

func (l *Ledger) awaitReady(ctx context.Context, g *group, p *peer) bool {
	want := g.raft.AppliedIndex()
	for {
		if l.isReady(ctx, p, want) {
			return true
		}
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
			return false
		}
	}
}

// isReady tells whether a member has applied an entry, would promise, and has granted what
// is held.
func (l *Ledger) isReady(ctx context.Context, p *peer, index uint64) bool {
	r, _, err := p.call(ctx, call{Kind: callReady, Incarnation: l.view.inc(), Budget: l.cfg.Timing.silence()})
	return err == nil && r.Status == statusOK && r.Ready && r.Index >= index && l.hands.fresh(p.node)
}
