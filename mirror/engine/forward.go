package engine

import (
	"fmt"
	"slices"

	"hapair/mirror/block"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// A Primary whose disk fails gives its copy up and goes on through its peer, if
// that is current (rule R13). First the ledger records that its own copy is out
// of the in-sync set: a disk that works again after a restart must not count.
// Then a new session begins, in which the peer marks everything as lacking here
// and begins a generation that the copy given up never had, both durably. From
// then on every request goes to the peer alone; what was in flight goes again.

// idForward is what the ack carries by which the peer says that it is ready.
const idForward = ^uint64(0) - 1

// forward is the Primary's side.
type forward struct {
	able    bool // the peer knows how, by its last hello
	on      bool // the own copy does not serve: requests go to the peer, or wait for it
	leaving bool // the ledger is to record that the own copy is out of the set
	lost    bool // the peer's disk has failed as well
}

// canForward reports whether the peer could take over the requests of a Primary
// that has to give its copy up.
func (e *Engine) canForward() bool {
	s := &e.session
	bad := s.phase == agreed && s.theirs != nil && !countsAsCurrent(s.theirs)
	return e.role == state.Primary && !e.passOn && e.forward.able && e.inSync(e.peer) && !e.including && !e.excluding && !e.missing &&
		!e.ledger.inFlight && !bad && e.aborting == nil && !e.deposed && !e.control.busy()
}

// giveUpCopy takes all volumes out of use: the in-sync set counts copies as a
// whole. What waits for the activity log goes to the peer alone.
func (e *Engine) giveUpCopy() {
	e.forward.on, e.forward.leaving, e.forward.lost = true, true, false
	for _, v := range e.vols {
		for _, o := range v.cold {
			if o.mends {
				v.active.remove(o)
				e.forwardOp(o)
			} else {
				o.owed, o.sent = owedPeer, false
			}
		}
		v.cold = nil
	}
	e.problem(fmt.Sprintf("this copy is given up; reads and writes go on through %s", e.peer))
	e.ledgerNext()
}

// leftSet: the ledger has recorded that the own copy is out.
func (e *Engine) leftSet() {
	if !e.forward.leaving || e.inSync(e.self) {
		return
	}
	e.forward.leaving = false
	e.dropSession(errForward)
}

// forwards reports whether what cannot go to the peer now waits for it.
func (e *Engine) forwards() bool { return e.forward.on && !e.forward.lost && e.aborting == nil }

// flowing reports whether requests go to the peer at this instant.
func (e *Engine) flowing() bool {
	s := &e.session
	return s.phase == agreed && s.repl == state.Forwarding && e.role == state.Primary && !s.closing
}

// forwardOp begins an op that nothing overlaps.
func (e *Engine) forwardOp(o *op) {
	if o.req.Op == block.Read {
		o.mends = false // of a copy that is not used any more
		o.vol.reads.push(o)
	} else {
		o.vol.active.push(o)
	}
	o.owed, o.sent = owedPeer, false
	e.sendForwarded(o)
}

// forwardAgain takes over an op that was at the local disk when the copy was
// given up. What the peer did before it became the keeper it does again: only
// from then on is it known to lack here, and not before may it be answered.
func (e *Engine) forwardAgain(o *op) {
	if o.disk.Op == block.Read {
		o.owed, o.sent = owedPeer, false
		e.sendForwarded(o)
		return
	}
	switch {
	case !o.sent:
		o.owed |= owedPeer
		e.sendForwarded(o)
	case !e.flowing():
		o.owed |= owedPeer // again in the next session; in this one its data are on the wire
	}
	e.paid(o, owedLocal)
}

func (e *Engine) sendForwarded(o *op) {
	if !e.flowing() {
		return
	}
	o.sent = true
	switch o.disk.Op {
	case block.Read:
		e.send(readMessage(o, e.tenure))
	case block.Flush:
		e.send(wire.Message{Kind: wire.Flush, Volume: o.vol.num, ID: o.id, Token: e.tenure})
	default:
		e.send(writeMessage(o, e.tenure))
	}
}

func readMessage(o *op, tenure uint64) wire.Message {
	return wire.Message{Kind: wire.Read, Volume: o.vol.num, ID: o.id, Token: tenure, Offset: uint64(o.disk.Offset), Length: uint64(o.disk.Length)}
}

// keeperReady: the peer takes our requests. What waited goes first, in no
// order: nothing of it overlaps.
func (e *Engine) keeperReady() {
	s := &e.session
	if s.phase != preparing || s.plan.action != actForward || e.role != state.Primary {
		e.refuseSession(&RefusedError{Status: wire.BadState, Text: "nothing is to be forwarded from here"})
		return
	}
	s.phase, s.repl = agreed, state.Forwarding
	e.noteOn(OnDisk, fmt.Sprintf("reads and writes go to %s: the copy of this node is out of use", e.peer))
	for _, v := range e.vols {
		for _, l := range []*opList{&v.active, &v.reads} {
			for o := l.head; o != nil; o = o.next {
				e.forwardWaiting(o)
			}
		}
	}
	for _, o := range e.flushes {
		e.forwardWaiting(o)
	}
	e.established()
}

func (e *Engine) forwardWaiting(o *op) {
	if o.owed&owedPeer != 0 && !o.sent {
		e.sendForwarded(o)
	}
}

// onData is what the peer has read for us.
func (e *Engine) onData(m *wire.Message) {
	o := e.pool.find(m.ID)
	if o == nil || o.owed&owedPeer == 0 || o.kind != opApplication || o.disk.Op != block.Read {
		return
	}
	if m.Length != uint64(o.disk.Length) || m.Offset != uint64(o.disk.Offset) {
		e.refuseSession(&RefusedError{Status: wire.BadMessage, Text: fmt.Sprintf("%s answers %s", m, &o.disk)})
		return
	}
	copy(o.disk.Data, m.Data)
	if o.mends {
		e.fetched(o)
		return
	}
	e.paid(o, owedPeer)
}

// readRefused: the peer could not read it either.
func (e *Engine) readRefused(o *op) {
	err := fmt.Errorf("%s could not read it for %s: %w", e.peer, e.self, block.ErrIO)
	e.unreadable(o.vol, err)
	o.err = err
	if o.mends {
		o.owed = 0
		e.endMend(o)
		return
	}
	e.paid(o, owedPeer)
}

// unsendReads: the session is over. Where nobody is left to ask, reads fail,
// and what waits as well.
func (e *Engine) unsendReads() {
	for _, v := range e.vols {
		for o := v.reads.head; o != nil; o = o.next {
			o.sent = false
		}
	}
	if e.forward.lost {
		e.noCopyLeft()
	} else if !e.forwards() {
		e.failReads(e.aborting)
	}
}

// noCopyLeft: both disks have failed. The device answers with errors, until the
// peer comes back with its copy.
func (e *Engine) noCopyLeft() {
	e.forward.on, e.forward.lost = false, false
	for _, v := range e.vols {
		for o := v.active.head; o != nil; {
			next := o.next
			if o.kind == opApplication && o.owed&owedPeer != 0 {
				o.err = errDiskFailed
				e.paid(o, owedPeer)
			}
			o = next
		}
	}
	for _, o := range append([]*op(nil), e.flushes...) {
		if o.owed&owedPeer != 0 {
			o.err = errDiskFailed
			e.paid(o, owedPeer)
		}
	}
	e.failReads(errDiskFailed)
}

// failReads ends the reads that are not at the peer.
func (e *Engine) failReads(err error) {
	for _, v := range e.vols {
		for o := v.reads.head; o != nil; {
			next := o.next
			if o.owed&owedPeer != 0 && !o.sent {
				o.err = err
				e.paid(o, owedPeer)
			}
			o = next
		}
	}
}

// stopForwarding: this node is Secondary now, with a copy that is not current.
func (e *Engine) stopForwarding() {
	switch {
	case e.role != state.Secondary:
	case e.anyFailed():
		e.leaveFailed()
	default:
		e.dropSession(errRecordChanged)
	}
}

// primaryOfSession is the Primary of a session in which requests are forwarded.
func (e *Engine) primaryOfSession() string {
	if e.role == state.Primary {
		return e.self
	}
	return e.peer
}

// forwardable reports whether a record has a Primary go on without a copy of
// its own.
func forwardable(r *wire.Record, primary string) bool {
	return r.Primary == primary && len(r.InSync) > 0 && !slices.Contains(r.InSync, primary)
}

// judgeForward: a Primary without a copy that serves, and a peer whose copy is
// the current one.
func judgeForward(mine, theirs *wire.HelloBody) decision {
	p, k := mine, theirs
	if p.Role != state.Primary {
		p, k = theirs, mine
	}
	rec := newerRecord(mine.Record, theirs.Record)
	if p.Role != state.Primary || k.Role != state.Secondary || !forwardable(&rec, p.Node) || !slices.Contains(rec.InSync, k.Node) ||
		p.Features&k.Features&wire.FeatureRead == 0 || serves(p) || !countsAsCurrent(k) {
		return decision{}
	}
	for i := range p.Volumes {
		switch genid.Compare(unpackGen(p.Volumes[i].Gen), unpackGen(k.Volumes[i].Gen)) {
		case genid.Equal, genid.TargetBitmap, genid.TargetFull, genid.TargetFullNew:
		default: // not a copy that this one could go on with
			return decision{}
		}
	}
	return decision{action: actForward, why: fmt.Sprintf("%s is Primary without a copy of its own, and %s has the current one", p.Node, k.Node)}
}

// serves reports whether all copies of a node may be read.
func serves(h *wire.HelloBody) bool {
	for i := range h.Volumes {
		if !h.Volumes[i].Disk.CanServe() {
			return false
		}
	}
	return true
}
