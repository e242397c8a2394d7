package engine

import (
	"cmp"
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
	able    bool   // the peer knows how, by its last hello
	on      bool   // the own copy does not serve: requests go to the peer, or wait for it
	leaving bool   // the ledger is to record that the own copy is out of the set
	lost    bool   // the peer's disk has failed as well
	fill    bool   // the own copy has a disk again, and is filled (fill.go)
	filled  uint64 // number of the filling: sessions and disks come and go
	back    bool   // it is complete: the ledger is to record it
	// owed: writes that only the peer has were not flushed there when a session
	// ended; by volume, until a flush after it
	owed []bool
	// gone: the last disk failed before the peer had acknowledged what was answered
	// early; in this tenure nobody goes on as if it were there
	gone bool
}

// canForward reports whether the peer could take over the requests of a Primary
// that has to give its copy up: it is here, takes every write, and this tenure
// knows that its copy lacks nothing but writes in flight. A peer that has just
// left may come back as anything: crashed, or told that its copy is worthless.
func (e *Engine) canForward() bool {
	return e.role == state.Primary && !e.passOn && e.forward.able && e.peerServes() && e.alike && !e.including && !e.excluding && !e.missing &&
		!e.ledger.inFlight && e.aborting == nil && !e.deposed && !e.control.busy()
}

// giveUpCopy takes all volumes out of use: the in-sync set counts copies as a
// whole. What waits for the activity log goes to the peer alone.
func (e *Engine) giveUpCopy() {
	e.forward.on, e.forward.leaving, e.forward.lost = true, true, false
	e.forwardCold()
	e.problem(fmt.Sprintf("this copy is given up; reads and writes go on through %s", e.peer))
	e.ledgerNext()
}

// forwardCold takes over what waits for an activity log that is not written any
// more.
func (e *Engine) forwardCold() {
	for _, v := range e.vols {
		cold := v.cold
		v.cold = nil
		for _, o := range cold {
			if o.mends {
				v.active.remove(o)
				e.forwardOp(o)
				continue
			}
			o.owed, o.sent = owedPeer, false
			e.sendForwarded(o)
		}
	}
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
func (e *Engine) forwards() bool { return e.forward.on && e.aborting == nil }

// flowing reports whether requests go to the peer at this instant.
func (e *Engine) flowing() bool {
	s := &e.session
	return s.phase == agreed && s.repl == state.Forwarding && e.role == state.Primary && !s.closing
}

// forwardOp begins an op that nothing overlaps.
func (e *Engine) forwardOp(o *op) {
	if o.asks() == block.Read {
		o.mends = false // of a copy that is not used any more
		o.vol.reads.push(o)
	} else {
		o.vol.active.push(o)
		if e.forward.fill { // not written here: to be fetched
			o.vol.bits.Set(o.disk.Offset, o.disk.Length)
		}
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
	o.sent, o.sentAt = true, e.now
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

// keeperReady: the peer takes our requests. What waited goes first; nothing of it
// overlaps.
func (e *Engine) keeperReady() {
	s := &e.session
	if s.phase != preparing || s.plan.action != actForward || e.role != state.Primary {
		e.refuseSession(&RefusedError{Status: wire.BadState, Text: "nothing is to be forwarded from here"})
		return
	}
	if e.keeperLacks() {
		return
	}
	s.phase, s.repl = agreed, state.Forwarding
	for i, v := range e.vols {
		if e.forward.owed[i] {
			e.flushOwn(v)
		}
	}
	e.noteOn(OnDisk, fmt.Sprintf("reads and writes go to %s: the copy of this node is out of use", e.peer))
	e.forwardWaiting()
	e.established()
	e.startFill()
}

// keeperLacks refuses a peer that may not have all that was answered: nobody else has.
func (e *Engine) keeperLacks() bool {
	text, problem := "", ""
	switch {
	case e.forward.gone:
		text = fmt.Sprintf("the last disk failed before it had all that %s was answered: nobody has it", e.self)
		problem = fmt.Sprintf("the disk of %s, which had the only copy, failed before it had all that was answered (protocol %s): that is lost; I/O fails", e.peer, e.set.Protocol)
	case e.session.theirs.Suspect && slices.Contains(e.forward.owed, true):
		text = fmt.Sprintf("%s crashed, and had not flushed all that %s was answered: nobody has it", e.peer, e.self)
		problem = fmt.Sprintf("%s crashed while it had the only copy: what it had not flushed is lost; I/O fails", e.peer)
	default:
		return false
	}
	e.forward.lost = true
	e.refuseSession(&RefusedError{Status: wire.BadState, Text: text})
	e.problem(problem)
	return true
}

// forwardWaiting sends what waited in the order in which it came, of whichever
// volume: of what was answered early (protocol A) the peer has all up to an instant.
func (e *Engine) forwardWaiting() {
	waiting := slices.Clone(e.flushes)
	for _, v := range e.vols {
		for _, l := range []*opList{&v.active, &v.reads} {
			for o := l.head; o != nil; o = o.next {
				waiting = append(waiting, o)
			}
		}
	}
	slices.SortStableFunc(waiting, func(a, b *op) int { return cmp.Compare(a.began, b.began) })
	for _, o := range waiting {
		if o.owed&owedPeer != 0 && !o.sent {
			e.sendForwarded(o)
		}
	}
}

// onData is what the peer has read for us.
func (e *Engine) onData(m *wire.Message) {
	o := e.pool.find(m.ID)
	if o == nil || o.owed&owedPeer == 0 || o.kind != opApplication && o.kind != opFill || o.disk.Op != block.Read {
		return
	}
	if m.Length != uint64(o.disk.Length) || m.Offset != uint64(o.disk.Offset) {
		e.refuseSession(&RefusedError{Status: wire.BadMessage, Text: fmt.Sprintf("%s answers %s", m, &o.disk)})
		return
	}
	copy(o.disk.Data, m.Data)
	switch {
	case o.mends:
		e.fetched(o)
		return
	case o.kind == opFill:
		e.fillFetched(o)
		return
	}
	e.paid(o, owedPeer)
}

// readRefused: the peer could not read it either.
func (e *Engine) readRefused(o *op) {
	err := fmt.Errorf("%s could not read it for %s: %w", e.peer, e.self, block.ErrIO)
	e.unreadable(o.vol, err)
	o.err = err
	if o.kind == opFill {
		if e.fillsBy(o) {
			e.session.resync.chunks--
			o.vol.sync.unread(e.now)
		}
		e.dropChunk(o) // its bits are set: it is tried again with the next round
		e.pumpFill()
		return
	}
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
	switch {
	case e.forward.lost:
		e.noCopyLeft()
	case e.aborting != nil:
		e.failReads(e.aborting)
	case !e.forward.on:
		e.readHere()
	}
}

// readHere: the own copy serves again, and what was asked of the peer is read
// from it.
func (e *Engine) readHere() {
	for _, v := range e.vols {
		for o := v.reads.head; o != nil; {
			next := o.next
			if o.owed&owedPeer != 0 && !o.sent {
				v.reads.remove(o)
				o.owed = 0
				e.enter(o)
			}
			o = next
		}
		e.wake(v)
	}
}

// unpark is for the changes that waited for the peer when the own copy was in
// the set again: they begin anew, or are one-sided like any other.
func (e *Engine) unpark() {
	for _, v := range e.vols {
		for o := v.active.head; o != nil; {
			next := o.next
			if o.kind == opApplication && o.owed&owedPeer != 0 && !o.sent {
				e.unparkOp(o)
			}
			o = next
		}
	}
	for _, o := range append([]*op(nil), e.flushes...) {
		if o.kind == opApplication && o.owed&owedPeer != 0 && !o.sent {
			e.goesAlone(o)
		}
	}
	e.readHere()
}

func (e *Engine) unparkOp(o *op) {
	if o.logged {
		e.goesAlone(o)
		return
	}
	o.owed &^= owedPeer // it never reached this copy
	o.vol.active.remove(o)
	e.begin(o)
}

// loseCopies: the peer cannot serve any more, and what this node has is of no
// use: it lacks what only the peer was given.
func (e *Engine) loseCopies() {
	e.forward.gone = e.forward.gone || e.early.ops > 0
	e.forward.on, e.forward.fill, e.forward.back = false, false, false
	for _, v := range e.vols {
		if v.disk.HasData() {
			v.disk, v.failed = state.Failed, errForward
		}
	}
}

// noCopyLeft ends what waited for the peer. The device answers with errors, until
// the peer comes back with its copy.
func (e *Engine) noCopyLeft() {
	e.forward.lost = false
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

// forwardingBy looks at a record that has changed while requests are forwarded:
// the copy of the Primary may be back in the set. A record older than the one the
// session rests on is of before: the ledger is just being read here.
func (e *Engine) forwardingBy(r *wire.Record) {
	primary, s := e.primaryOfSession(), &e.session
	switch {
	case r.Token < newerRecord(s.mine.Record, s.theirs.Record).Token:
	case forwardable(r, primary):
	case r.Primary == primary && e.inSync(e.self) && e.inSync(e.peer):
		if e.role == state.Secondary {
			e.keptInSync()
		}
	default:
		e.dropSession(errRecordChanged)
	}
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
		p.Features&k.Features&wire.FeatureRead == 0 || !countsAsCurrent(k) {
		return decision{}
	}
	for i := range p.Volumes {
		switch genid.Compare(genid.FromWords(p.Volumes[i].Gen), genid.FromWords(k.Volumes[i].Gen)) {
		case genid.Equal, genid.TargetBitmap, genid.TargetFull, genid.TargetFullNew:
		default: // not a copy that this one could go on with
			return decision{}
		}
	}
	all := slices.Repeat([]bool{true}, len(p.Volumes))
	return decision{action: actForward, full: all, why: fmt.Sprintf("%s is Primary without a copy of its own, and %s has the current one", p.Node, k.Node)}
}
