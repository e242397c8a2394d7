package ledger

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"hapair/failover/ledger/record"
)

// verdict is what two nodes are to each other.
type verdict uint8

const (
	same   verdict = iota // one group, one history
	behind                // the other goes on without me: I must rejoin
	ahead                 // I go on without the other: it must rejoin
	split                 // both went alone
)

func (l *Ledger) greeting() hello {
	seats := l.tellSeats() // before the log is looked at: see give
	id := l.id()
	h := hello{Magic: helloMagic, Version: helloVersion, Node: l.cfg.Self, Joining: id.Joining, Blank: id.Blank, Arbitration: l.Arbitration().String(),
		Forked: id.Forked, Machine: id.Machine, Claims: l.claims(), Seats: l.worthTelling(seats), Life: l.cfg.Life}
	l.view.mu.Lock()
	h.Incarnation, h.Lineage = l.view.incarnation, l.view.lineage
	l.view.mu.Unlock()
	l.mu.Lock()
	h.Left, h.Surrendering = l.left || l.closed, l.surrendering.Load()
	l.mu.Unlock()
	h.Voters, h.Learners = l.tellMembers()
	h.LastIndex, h.LastTerm = l.lastLog()
	if slices.Contains(h.Voters, l.cfg.Self) && id.Floor.reached(h.LastTerm, h.LastIndex) {
		h.Joining = false // it has just become a voter: what was decided with its vote is its history
	}
	if t, err := l.store.GetUint64([]byte(keyTerm)); err == nil {
		h.Term = t // what raft has is never higher: it saves first
	}
	return h
}

// tellMembers is what a greeting says of the group.
func (l *Ledger) tellMembers() (voters, learners []string) {
	g := l.group()
	if g == nil {
		return nil, nil
	}
	for _, s := range configuration(g.raft) {
		if s.Suffrage == raft.Voter {
			voters = append(voters, string(s.ID))
		} else {
			learners = append(learners, string(s.ID))
		}
	}
	return voters, learners
}

// judge compares two greetings, mine first. It is pure.
func judge(me, you hello) verdict {
	switch {
	case me.Blank || you.Blank: // who remembers nothing has no history
		return same
	case me.Incarnation == you.Incarnation:
		mine, _ := record.FounderOf(me.Lineage, me.Incarnation)
		yours, _ := record.FounderOf(you.Lineage, you.Incarnation)
		if mine != yours {
			return split
		}
		return judgeMembers(me, you)
	case me.Incarnation < you.Incarnation:
		if !descends(you, me) || wentOn(you, me) {
			return split
		}
		return behind
	default:
		if !descends(me, you) || wentOn(me, you) {
			return split
		}
		return ahead
	}
}

// judgeMembers settles, within one history, who has been removed from whose
// group: a node that left and returns.
func judgeMembers(me, you hello) verdict {
	alone := func(a, b hello) bool { // a runs without b, and knows all b does
		return lone(a.Voters, a.Node) && !a.Joining &&
			(a.LastTerm > b.LastTerm || a.LastTerm == b.LastTerm && a.LastIndex >= b.LastIndex)
	}
	switch {
	case me.Joining || you.Joining:
		return same
	case alone(you, me) && !slices.Contains(you.Voters, me.Node) && !alone(me, you):
		return behind
	case alone(me, you) && !slices.Contains(me.Voters, you.Node) && !alone(you, me):
		return ahead
	}
	return same
}

// descends tells whether high's history contains the incarnation low is in, and
// went on from there as one that low's group cannot do without. A node that is
// joining has no history of its own to lose. One that is the only voter of its
// incarnation needed nobody: whoever went on from there had left it before.
func descends(high, low hello) bool {
	if low.Joining {
		return true
	}
	if lone(low.Voters, low.Node) {
		return false
	}
	if next, _ := record.Founding(high.Lineage, low.Incarnation+1); next.Apart {
		return false
	}
	was, known := record.FounderOf(high.Lineage, low.Incarnation)
	mine, _ := record.FounderOf(low.Lineage, low.Incarnation)
	return known && was == mine
}

// wentOn tells whether low's group did anything after high's history left it. Two of
// three voters may, while the third is forced (R27).
func wentOn(high, low hello) bool {
	if low.Joining {
		return false
	}
	left, known := record.Founding(high.Lineage, low.Incarnation+1)
	return known && left.Term != 0 &&
		(low.LastTerm > left.Term || low.LastTerm == left.Term && low.LastIndex > left.Index)
}

// meet acts on a peer's greeting: nil when the two may talk.
func (l *Ledger) meet(you hello) error {
	if err := l.seated(&you); err != nil {
		return err
	}
	me := l.greeting()
	if me.Left {
		return fmt.Errorf("%s: %w", l.cfg.Self, ErrClosed)
	}
	if err := knowsTheThird(&me, &you); err != nil {
		return err
	}
	l.noteMet(you)
	v := judge(me, you)
	if !l.foreign(you.Node) {
		l.noteSplit(v, you)
	}
	l.toldLife(you.Node, you.Life)
	l.contactWith(you.Node)
	switch v {
	case same:
		l.metIn(&you)
		return nil
	case split:
		if l.abandoned(you) {
			l.askRejoin(you)
		}
		return fmt.Errorf("%w: %s is at incarnation %d, %s at %d", ErrSplitBrain, me.Node, me.Incarnation, you.Node, you.Incarnation)
	case behind:
		if !slices.Contains(you.Voters, me.Node) || len(you.Voters) < 3 { // else it would vote at once, with nothing
			l.askRejoin(you)
		}
		return &SupersededError{Node: you.Node, Incarnation: you.Incarnation}
	default: // ahead: it rejoins when it reads our greeting
		return fmt.Errorf("%s is behind: incarnation %d, here %d", you.Node, you.Incarnation, me.Incarnation)
	}
}

// askRejoin has manage discard this node's ledger for the peer's.
func (l *Ledger) askRejoin(you hello) {
	select {
	case l.rejoinCh <- you:
	default: // it is asked already
	}
}

// foundingOf is the group of a greeting: its incarnation, and who founded it.
func foundingOf(h hello) record.Founder {
	node, _ := record.FounderOf(h.Lineage, h.Incarnation)
	return record.Founder{Incarnation: h.Incarnation, Node: node}
}

// abandoned tells whether every data node is of one other group: a witness left
// behind by both has nothing that anybody wants. To an older group it goes only when
// both are settled there, because it forgets its votes.
func (l *Ledger) abandoned(you hello) bool {
	if !l.isWitness(l.cfg.Self) || you.Joining && you.Incarnation < l.view.inc() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, node := range l.cfg.data() {
		if theirs, met := l.apart[node]; !met || theirs != foundingOf(you) {
			return false
		}
	}
	return true
}

// knowsTheThird refuses a data node that remembers nothing and is configured without
// the witness that is there: it would begin as a voter of two, and help the other one
// to decide without what it had decided with the witness. It is pure.
func knowsTheThird(me, you *hello) error {
	if !me.Blank && !me.Joining && len(me.Voters)+len(me.Learners) > 2 && you.newcomer() && !you.Blank && !you.Joining && len(you.Voters) == 2 {
		return fmt.Errorf("%s remembers nothing, and is configured without a witness, while the members are %q: put the same configuration there, empty its state_dir, start it: %w", you.Node, append(slices.Clone(me.Voters), me.Learners...), ErrVoters)
	}
	return nil
}

// noteSplit remembers and reports a split brain once, and forgets it when the
// same node has become one of us again.
func (l *Ledger) noteSplit(v verdict, you hello) {
	l.mu.Lock()
	was := l.split
	delete(l.apart, you.Node)
	switch {
	case v == split:
		l.split, l.apart[you.Node] = you.Node, foundingOf(you)
	case was == you.Node:
		l.split = ""
	}
	now := l.split
	l.mu.Unlock()
	if was == now {
		return
	}
	l.log.Error("ledger split brain", zap.String("peer", you.Node), zap.String("was", was), zap.String("now", now),
		zap.Uint64("incarnation", you.Incarnation), zap.String("because", "both nodes went on alone"))
	if now != "" {
		l.event(Event{Kind: EventSplitBrain, Node: you.Node, Because: "both nodes went on alone", Err: ErrSplitBrain})
	}
}

// dial opens a stream and exchanges greetings.
func (l *Ledger) dial(ctx context.Context, node, purpose string) (net.Conn, error) {
	c, err := l.cfg.Streams.Dial(ctx, node, purpose)
	if err != nil {
		return nil, fmt.Errorf("dial %s for %s: %w", node, purpose, err)
	}
	c = l.dialed.add(node, c)
	limit := 2 * l.cfg.Timing.Heartbeat
	if at, ok := ctx.Deadline(); ok {
		limit = time.Until(at)
	}
	var you hello
	stop := context.AfterFunc(ctx, func() { c.Close() }) //nolint:errcheck // breaks off whoever waits
	defer stop()
	if err = exchange(c, limit, l.greeting(), &you); err == nil {
		err = you.check()
	}
	if err == nil && you.Node != node {
		err = fmt.Errorf("%w: dialed %s, %s answered", ErrWire, node, you.Node)
	}
	if err == nil {
		err = l.meet(you)
	}
	if err == nil && you.Refused != "" {
		err = fmt.Errorf("%s refused: %s", node, you.Refused)
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		c.Close() //nolint:errcheck // the error at hand says more
		return nil, err
	}
	return c, nil
}

// greet answers the greeting of a stream that was dialed to us.
func (l *Ledger) greet(node string, c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(2 * l.cfg.Timing.Heartbeat)); err != nil {
		return err
	}
	var you hello
	if err := readMessage(c, &you); err != nil {
		return err
	}
	if err := you.check(); err != nil {
		return err
	}
	if you.Node != node {
		return fmt.Errorf("%w: stream of %s says it is %s", ErrWire, node, you.Node)
	}
	verdict := l.meet(you)
	answer := l.greeting()
	if verdict != nil {
		answer.Refused = verdict.Error()
	}
	return errors.Join(verdict, writeMessage(c, answer), c.SetDeadline(time.Time{}))
}

// serve registers what others dial.
func (l *Ledger) serve() {
	l.cfg.Streams.Handle(PurposeRaft, l.serving(func(node string, c net.Conn) bool {
		if g := l.group(); g != nil {
			g.layer.take(node, c)
			return true
		}
		return false
	}))
	l.cfg.Streams.Handle(PurposeCall, l.serving(func(node string, c net.Conn) bool { l.serveCalls(node, c); return false }))
	l.cfg.Streams.Handle(PurposeLease, l.serving(func(node string, c net.Conn) bool { l.serveLeases(node, c); return false }))
}

// serving wraps a server: greeting first, every stream closed with the ledger.
// fn returns true when it has given the stream away.
func (l *Ledger) serving(fn func(string, net.Conn) bool) func(string, net.Conn) {
	return func(node string, c net.Conn) {
		if !l.enter(node, c) {
			c.Close() //nolint:errcheck // nobody is here to use it
			return
		}
		defer l.wg.Done()
		err := l.greet(node, c)
		given := err == nil && fn(node, c)
		if err != nil {
			l.log.Debug("ledger stream refused", zap.String("peer", node), zap.Error(err))
		}
		l.mu.Lock()
		delete(l.conns, c)
		l.mu.Unlock()
		if !given {
			c.Close() //nolint:errcheck // done with it
		}
	}
}

func (l *Ledger) enter(node string, c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.conns[c] = node
	l.wg.Add(1)
	return true
}
