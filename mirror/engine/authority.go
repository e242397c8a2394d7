package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// leaseRenewed: only a lease of our own tenure counts. It is kept even when
// the promotion is still on its way here.
func (e *Engine) leaseRenewed(tenure uint64, until time.Duration) {
	e.lease.tenure, e.lease.until = tenure, until
	e.useLease()
}

func (e *Engine) useLease() {
	if e.tenure == 0 || e.lease.tenure != e.tenure {
		return
	}
	e.leaseTo = e.lease.until
	if e.hasLease() {
		e.drainAnswers()
		e.drainHeld()
	}
}

// depose: somebody else holds a higher tenure. Nothing is answered any more;
// the device has to go.
func (e *Engine) depose(why error) {
	if e.deposed || e.role != state.Primary {
		return
	}
	e.deposed = true
	e.emit(Effect{Kind: Deposed, Err: why})
}

// applyRecord takes over what the ledger has committed.
func (e *Engine) applyRecord(r wire.Record) {
	if r.Token < e.record.Token {
		return
	}
	changed := r.Token != e.record.Token
	e.record = r
	e.seen = max(e.seen, r.Tenure)
	if e.role == state.Primary && (r.Primary != e.self || r.Tenure != e.tenure) && r.Tenure >= e.tenure {
		e.depose(fmt.Errorf("the ledger says Primary is %q under token %d, this node's is %d: %w", r.Primary, r.Tenure, e.tenure, ErrStaleToken))
	}
	if r.Primary == e.peer {
		e.forgetLastPrimary()
	}
	if e.judgeOwnCopy() {
		e.sendState()
	}
	e.useLease()
	s := &e.session
	switch {
	case changed && s.phase == greeting && s.sent, changed && s.phase == agreed && s.repl == state.Off:
		e.dropSession(errRecordChanged)
	case changed && s.phase == preparing && s.plan.action == actTarget && e.inSync(e.self) && !slices.Contains(s.mine.Record.InSync, e.self):
		e.dropSession(errRecordChanged)
	}
	if e.excluding && !e.inSync(e.peer) && !e.ledger.inFlight && !e.confirming() {
		e.excluded()
	}
	if s.phase == agreed && s.repl == state.Forwarding && changed {
		e.forwardingBy(&r)
	}
	if s.phase == agreed && s.repl == state.Established && !e.excluding && len(r.InSync) > 0 && !(e.inSync(e.peer) && e.inSync(e.self)) {
		e.dropSession(errRecordChanged) // established by an older record
	}
	if !e.ledger.inFlight {
		e.leftSet()
	}
	e.backInSet()
	e.controlProgress()
	e.tryHello()
}

// discardRecord: this node's ledger was given up for the peer's, which counts
// its tokens by itself. What was seen of the old ones fences nobody any more.
func (e *Engine) discardRecord() {
	e.depose(fmt.Errorf("this node's ledger was discarded: %w", ErrStaleToken))
	e.record, e.current, e.seen, e.before, e.excluding = wire.Record{}, false, 0, 0, false
	e.ledger.void = e.ledger.inFlight // what it still answers is of the old one
	for _, v := range e.vols {
		v.touch() // the superblock remembers what was seen
	}
	e.dropSession(errRecordChanged)
	e.note("the ledger of this node was discarded; the peer's counts")
}

// forgetLastPrimary: the peer has been Primary since.
func (e *Engine) forgetLastPrimary() {
	for _, v := range e.vols {
		if v.last {
			v.last = false
			v.touch()
		}
	}
}

// judgeOwnCopy: a copy that the ledger has removed is Outdated; one that it
// counts, and that knows of no damage, is UpToDate. It reports whether that
// changed. That a copy counts again which was Outdated is doubted until it is promoted,
// or was compared: it may be an operator's force, and the promotion follows (R20).
func (e *Engine) judgeOwnCopy() (changed bool) {
	if len(e.record.InSync) == 0 || e.role == state.Primary {
		return false
	}
	syncing := e.session.repl == state.SyncTarget || e.session.repl == state.PausedSyncT
	for _, v := range e.vols {
		was := v.disk
		switch {
		case !e.inSync(e.self) && v.disk == state.UpToDate && !syncing:
			v.disk = state.Outdated
		case e.inSync(e.self) && v.disk == state.Outdated:
			v.disk, v.doubt = state.UpToDate, true
		case e.inSync(e.self) && v.assume && v.disk == state.Inconsistent && !v.full:
			v.disk = state.UpToDate // declared equal by the operator
		}
		if v.disk != was {
			v.touch()
			changed = true
		}
	}
	return changed
}

// missPeer: something waits for the peer or for its removal. A session that has
// only just ended may begin again over another path, and a node whose paths go
// one after the other is about to lose its power: to be the last to exclude the
// peer would leave the pair without a copy that may be promoted. For the same
// reason a session that followed at once has to last as long before it costs the
// peer its place, for the resync of what was in flight.
func (e *Engine) missPeer() {
	if !e.missing {
		e.missing, e.missedAt = true, e.now
	}
	e.missedPeer()
}

// mayReturn reports whether the peer is given time to come back. One that said
// why it left is not.
func (e *Engine) mayReturn() bool {
	s := &e.session
	again := s.phase == ended && s.id != 0 && !s.refused && e.now-s.since < excludeAfter || s.phase == greeting || e.now < s.proven
	return again && e.now-e.missedAt < excludeAtLast
}

// provenTick goes on with a resync whose session has lasted.
func (e *Engine) provenTick() {
	s := &e.session
	if s.proven == 0 || e.now < s.proven || s.closing {
		return
	}
	s.proven = 0
	if e.confirming() {
		e.wantExclude()
	}
}

// missedPeer looks whether the peer has come back in time.
func (e *Engine) missedPeer() {
	if !e.missing || e.mayReturn() || e.including {
		return
	}
	e.missing = false
	switch {
	case e.role != state.Primary || e.anyFailed():
	case e.replicating() && e.peerInSync():
		e.backInTime()
	case e.peerInSync():
		e.wantExclude()
	case !e.ledger.inFlight && !e.confirming():
		e.excluded()
	}
}

// wantExclude asks the ledger to take the peer out of the in-sync set.
func (e *Engine) wantExclude() {
	e.excluding = true
	e.ledgerNext()
}

// ledgerNext starts the next ledger change; one is on its way at a time.
func (e *Engine) ledgerNext() {
	if e.ledger.inFlight || e.deposed {
		return
	}
	if e.record.Primary == e.peer {
		e.excluding = false // the Primary is never taken out of the set; a new handshake decides
		if e.session.phase == preparing && e.session.plan.action == actSource {
			e.dropSession(errRecordChanged)
		}
	}
	e.excluding = e.excluding && (e.role == state.Primary || e.confirming()) && !e.anyFailed()
	switch {
	case e.forward.leaving && e.inSync(e.self):
		e.ledger.inFlight, e.ledger.include = true, false
		e.emit(Effect{Kind: LedgerGiveUp, Node: e.self, Token: e.record.Token})
	case e.forward.back && !e.inSync(e.self) && e.filling():
		e.ledger.inFlight, e.ledger.include = true, false
		e.emit(Effect{Kind: LedgerInclude, Node: e.self, Token: e.record.Token})
	case e.excluding && e.confirming() && e.record.Token > e.decidedBy():
		e.dropSession(errRecordChanged) // the decision rests on an older record
	case e.excluding && (e.inSync(e.peer) || e.confirming()):
		token := e.record.Token
		if e.confirming() {
			token = e.decidedBy()
		}
		e.ledger.inFlight, e.ledger.include = true, false
		e.emit(Effect{Kind: LedgerExclude, Node: e.peer, Token: token})
	case e.session.resync.include && e.session.phase == agreed && !e.excluding && !e.inSync(e.peer):
		e.ledger.inFlight, e.ledger.include, e.including = true, true, true
		e.emit(Effect{Kind: LedgerInclude, Node: e.peer, Token: e.record.Token})
	}
}

// confirming: a resync from here waits for the ledger's word.
func (e *Engine) confirming() bool {
	s := &e.session
	return s.phase == preparing && s.plan.action == actSource && !s.confirmed && !s.closing
}

// decidedBy is the token of the record that the handshake was judged by.
func (e *Engine) decidedBy() uint64 {
	return newerRecord(e.session.mine.Record, e.session.theirs.Record).Token
}

// owesLedger reports whether an application waits for the peer's removal.
func (e *Engine) owesLedger() bool {
	for _, v := range e.vols {
		if v.active.owes(owedLedger) || v.reads.owes(owedLedger) {
			return true
		}
	}
	for _, o := range e.flushes {
		if o.owed&owedLedger != 0 {
			return true
		}
	}
	return false
}

// ledgerDone: the last change was decided; r is what the ledger holds now. A
// failure is a lost race: judged by what the record says.
func (e *Engine) ledgerDone(r wire.Record, err error) {
	include, void := e.ledger.include, e.ledger.void
	e.ledger.inFlight, e.ledger.void = false, false
	if include {
		e.including = false
	}
	if void {
		e.ledgerNext()
		e.tryHello()
		e.controlProgress()
		return
	}
	e.applyRecord(r)
	if err != nil && !errors.Is(err, ErrStaleToken) {
		e.note(fmt.Sprintf("ledger: %v", err))
	}
	e.notLeft(err)
	if include {
		e.includeDone()
	} else if e.confirming() {
		if err != nil {
			e.dropSession(errRecordChanged)
			e.excluding = e.owesLedger()
		} else {
			e.session.confirmed = true
		}
	}
	if e.excluding && !e.inSync(e.peer) {
		e.excluded()
	}
	e.leftSet()
	e.ledgerNext()
	e.tryHello()
	e.controlProgress()
}

func (e *Engine) includeDone() {
	switch {
	case e.inSync(e.peer):
		e.included()
	default:
		e.ledgerNext() // lost a race; the token is new now
	}
}

// excluded: the ledger has recorded that the peer lacks writes (R5). What
// waited for it may be answered, once a new generation has begun.
func (e *Engine) excluded() {
	e.excluding = false
	if e.toldOut != e.record.Token { // each reconnect asks anew, and changes nothing
		e.toldOut = e.record.Token
		e.note(fmt.Sprintf("%s is out of the in-sync set, token %d", e.peer, e.record.Token))
	}
	for _, v := range e.vols {
		e.payReads(v, nil)
		for o := v.active.head; o != nil; {
			next := o.next
			if o.owed&owedLedger != 0 {
				if e.anyFailed() {
					o.err = errDiskFailed
				}
				e.owesGeneration(o)
				e.paid(o, owedLedger)
			}
			o = next
		}
	}
	for _, o := range append([]*op(nil), e.flushes...) {
		if o.owed&owedLedger != 0 {
			e.paid(o, owedLedger)
		}
	}
	if e.session.phase == preparing && e.session.confirmed {
		e.startSource()
	}
	for _, v := range e.vols {
		if len(v.cold) > 0 {
			e.prepareActivity(v)
		}
	}
}
