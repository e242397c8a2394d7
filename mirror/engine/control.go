package engine

import (
	"fmt"

	"hapair/mirror/block"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// control is the command that runs; one at a time, its caller sees to that.
type control struct {
	of     EventKind
	step   int
	flushs []uint64 // per volume: the local flush that must have ended
	volume int      // Invalidate: index of the volume, or allVolumes
	asked  uint64   // Invalidate: the token under which the ledger was asked, 0: not yet
	copies []Super  // UndoDone: what the superblocks are to say
}

func (c control) busy() bool { return c.of != 0 }

func (e *Engine) reply(of EventKind, err error) {
	e.control = control{}
	e.emit(Effect{Kind: Reply, Of: of, Err: err})
	e.tryHello()
}

// finishAfterSupers ends the running command once the superblocks say what it
// changed, unless an Abort has taken its place.
func (e *Engine) finishAfterSupers(of EventKind, then func()) {
	e.afterSupers(func() {
		if e.control.of == of {
			e.reply(of, nil)
			then()
		}
	})
}

func (e *Engine) controlEvent(ev *Event) {
	if ev.Kind == UndoDone {
		e.undoDone(ev)
		return
	}
	if e.control.busy() && ev.Kind != Abort && ev.Kind != Pause && ev.Kind != Resume {
		err := fmt.Errorf("another command is running: %w", ErrBadState)
		if ev.Kind == Attach {
			err = fmt.Errorf("%w: %w", ErrNotTaken, err)
		}
		e.emit(Effect{Kind: Reply, Of: ev.Kind, Err: err})
		return
	}
	if e.fitting() && (ev.Kind == Promote || ev.Kind == Invalidate) {
		e.emit(Effect{Kind: Reply, Of: ev.Kind, Err: fmt.Errorf("the metadata of this copy are being laid out for another size: %w", ErrBadState)})
		return
	}
	if ev.Kind != Pause && ev.Kind != Resume {
		e.interruptResize()
	}
	switch ev.Kind {
	case Promote:
		e.promote(ev.Tenure, ev.Force)
	case Demote:
		e.demote()
	case Abort:
		e.abort(ev.Err)
	case Invalidate:
		e.invalidate(ev)
	case Undo:
		e.beginUndo()
	case DiscardData:
		e.discardData()
	case Pause, Resume:
		e.pause(ev.Kind == Pause)
	case Detach:
		e.detach()
	case Attach:
		e.attachDisks(ev)
	default:
		panic(fmt.Sprintf("engine: unknown event %d", ev.Kind))
	}
}

// promote makes this node Primary. The ledger has decided that it may be; here
// only the copy is judged.
func (e *Engine) promote(tenure uint64, force bool) {
	if err := e.refusePromote(tenure, force); err != nil {
		e.reply(Promote, err)
		return
	}
	if tenure < e.before {
		e.forgetBefore("the operator forced this copy under token %d", tenure)
	}
	if e.session.phase == greeting && e.session.sent || e.session.phase == preparing {
		e.dropSession(errRecordChanged)
	}
	if e.session.repl == state.Established && e.sizesDiffer() {
		e.dropSession(errSizes) // the peer, which led a resize, does not take yet what is written at the end
	}
	forced := false
	for _, v := range e.vols {
		if !v.disk.CanServe() {
			forced = true
			v.full = false
		}
		forced = forced || v.doubt && force // the ledger's word of it comes first
		v.disk, v.doubt, v.last, v.assume = state.UpToDate, false, true, v.assume && !forced
	}
	if forced {
		e.mint("promoted by force", func(v *volume, id genid.ID) { e.begins(v, v.gen.Force(id)) })
	}
	e.split.givesUp = false
	e.role, e.tenure, e.seen, e.suspect, e.deposed, e.leaseTo = state.Primary, tenure, max(e.seen, tenure), false, false, 0
	e.alike = e.handedOver()
	e.control = control{of: Promote}
	e.finishAfterSupers(Promote, func() {
		e.useLease()
		e.sendState()
	})
}

func (e *Engine) refusePromote(tenure uint64, force bool) error {
	if tenure < e.seen || tenure < e.before && !e.forcedNow(tenure, force) {
		return fmt.Errorf("promotion under token %d, %d has been seen: %w", tenure, e.highest(), ErrStaleToken)
	}
	if r := e.session.repl; r == state.SyncTarget || r == state.PausedSyncT {
		return fmt.Errorf("this copy is the target of a resync: %w", ErrBadState)
	}
	for _, v := range e.vols {
		if !v.disk.HasData() || !v.disk.CanServe() && !force {
			return fmt.Errorf("volume %d is %s: %w", v.num, v.disk, ErrNotUpToDate)
		}
	}
	return nil
}

// demote: flush both copies, then Secondary. The front end has stopped, so no
// request is in flight but those that were answered early.
func (e *Engine) demote() {
	if e.role != state.Primary {
		e.reply(Demote, nil)
		return
	}
	if n := e.appOps - e.early.ops + len(e.held); n > 0 {
		e.reply(Demote, fmt.Errorf("%d requests are in flight: %w", n, ErrBadState))
		return
	}
	e.control = control{of: Demote}
	e.controlProgress()
	e.demoteApart()
}

// demoteApart ends a demotion that waits for the peer, which has the data and is
// away: no session begins while a command runs.
func (e *Engine) demoteApart() {
	if e.control.of == Demote && e.control.step == 0 && e.forward.on && !e.flowing() {
		e.reply(Demote, fmt.Errorf("%s, which has the data, is not connected: %w", e.peer, ErrBadState))
	}
}

// abort: authority is lost. Nothing is answered with success any more; what is
// in flight ends dirty, so that a later resync covers it.
func (e *Engine) abort(why error) {
	if why == nil {
		why = block.ErrNotPrimary
	}
	if e.control.busy() {
		e.reply(e.control.of, fmt.Errorf("authority lost: %w", why))
	}
	e.control = control{of: Abort}
	e.aborting, e.excluding, e.missing, e.detaching = why, false, false, false
	e.role, e.tenure, e.leaseTo, e.forward.on, e.forward.leaving = state.Secondary, 0, 0, false, false
	e.forward.fill, e.forward.back, e.forward.lost, e.forward.gone = false, false, false, false
	e.failHeld(why)
	if e.session.phase != ended {
		e.dropSession(fmt.Errorf("authority lost: %w", why))
	}
	for _, v := range e.vols {
		e.payReads(v, why)
		for o := v.waiting.head; o != nil; {
			next := o.next
			if o.kind == opApplication {
				v.waiting.remove(o)
				o.err = why
				e.answer(o)
			}
			o = next
		}
		e.abandonCold(v, why)
		e.failFences(v, why)
		e.abortActive(v, why)
	}
	for _, o := range append([]*op(nil), e.flushes...) {
		o.err = why
		e.paid(o, unsentOwed(o)|owedLedger|owedSuper)
	}
	e.failReads(why)
	e.controlProgress()
}

// unsentOwed is what an op that waits to be forwarded owes the peer: nothing
// comes of it any more.
func unsentOwed(o *op) owed {
	if o.sent {
		return 0
	}
	return owedPeer
}

func (e *Engine) abortActive(v *volume, why error) {
	for o := v.active.head; o != nil; {
		next := o.next
		if o.kind == opApplication {
			v.bits.Set(o.disk.Offset, o.disk.Length)
			o.err = why
			e.paid(o, unsentOwed(o)|owedLedger|owedSuper)
		}
		o = next
	}
}

// sourcing reports whether a resync from this copy runs or is about to.
func (e *Engine) sourcing() bool {
	s := &e.session
	return s.phase == preparing && s.plan.action == actSource || s.repl == state.SyncSource || s.repl == state.PausedSyncS
}

func (e *Engine) pause(on bool) {
	s := &e.session
	of := Resume
	if on {
		of = Pause
	}
	target := s.repl == state.SyncTarget || s.repl == state.PausedSyncT
	if target && !on && e.paused { // since before it became the target: it would hold back the next one
		e.paused = false
		e.emit(Effect{Kind: Reply, Of: of})
		return
	}
	if target {
		e.emit(Effect{Kind: Reply, Of: of, Err: fmt.Errorf("this node is the target of the resync; the source, %s, paces it: %w", e.peer, ErrBadState)})
		return
	}
	e.paused = on
	switch {
	case on && s.repl == state.SyncSource:
		s.repl = state.PausedSyncS
	case !on && s.repl == state.PausedSyncS:
		s.repl = state.SyncSource
		e.pumpSync()
	}
	s.resync.rate = rate{}
	e.sendState()
	e.emit(Effect{Kind: Reply, Of: of})
}

// detach: nothing of the peer at the disk, bitmap on disk, then "clean".
func (e *Engine) detach() {
	if e.role == state.Primary {
		e.reply(Detach, fmt.Errorf("this node is Primary; demote first: %w", ErrBadState))
		return
	}
	e.control = control{of: Detach}
	if e.session.phase != ended {
		e.send(wire.Message{Kind: wire.Refuse, Status: wire.Shutdown, Data: []byte(errStopping.Error())})
		e.emit(Effect{Kind: StandAlone, Session: e.session.id, Err: errStopping})
	}
	e.controlProgress()
}

// controlProgress looks whether the running command can go on.
func (e *Engine) controlProgress() {
	switch e.control.of {
	case Demote:
		e.demoteProgress()
	case Abort:
		e.abortProgress()
	case Detach:
		e.detachProgress()
	case Invalidate:
		e.invalidateProgress()
	case UndoDone:
		e.undoProgress()
	default: // no command runs, or one that waits for superblocks only
	}
}

// flushAll asks for a flush of every volume that begins from now on.
func (e *Engine) flushAll() {
	e.control.flushs = e.nextFlushes()
	e.flushedSince(e.control.flushs)
}

// lacking reports whether the peer is known to lack blocks.
func (e *Engine) lacking() bool {
	for _, v := range e.vols {
		if v.bits.Count() > 0 {
			return true
		}
	}
	return false
}

func (e *Engine) demoteProgress() {
	if e.control.step > 0 || e.early.ops > 0 {
		return
	}
	if e.control.flushs == nil {
		e.flushAll()
	}
	if e.repairing() || !e.flushedSince(e.control.flushs) {
		return
	}
	// A peer that is away and lacks something must not be promoted because this
	// node left in order: the ledger is told first.
	if e.peerInSync() && !e.replicating() && e.lacking() {
		if !e.excluding && !e.anyFailed() && !e.forward.on {
			e.wantExclude()
		}
		if e.excluding {
			return
		}
	}
	e.control.step = 1
	forwarded := e.forward.on
	e.role, e.tenure, e.leaseTo = state.Secondary, 0, 0
	e.forward.on, e.forward.fill, e.forward.back, e.forward.lost, e.forward.gone = false, false, false, false, false
	e.finishAfterSupers(Demote, func() {
		e.sendState()
		if forwarded {
			e.stopForwarding()
		}
	})
}

func (e *Engine) abortProgress() {
	if e.control.step > 0 || e.appOps+e.verify.mending > 0 || e.session.phase != ended {
		return
	}
	e.control.step = 1
	e.aborting, e.deposed, e.minting, e.minters = nil, false, false, nil
	e.judgeOwnCopy()
	e.finishAfterSupers(Abort, func() {})
}

// bitmapsSaved reports whether the bitmaps are on disk as they are, and writes
// what is missing.
func (e *Engine) bitmapsSaved() bool {
	for _, v := range e.vols {
		if v.page.inFlight {
			return false
		}
		if _, stale := v.bits.NextStale(0); stale && v.disk.HasData() {
			e.savePages(v)
			return false
		}
	}
	return true
}

func (e *Engine) detachProgress() {
	if e.peerOps+e.answering+e.verify.flight > 0 || e.fitting() || e.zeroing() || e.session.phase != ended || e.control.step > 1 {
		return
	}
	if e.control.step == 0 {
		e.control.step = 1
		e.flushAll()
	}
	if !e.flushedSince(e.control.flushs) {
		return
	}
	if !e.bitmapsSaved() {
		return
	}
	e.control.step, e.detaching = 2, true
	e.finishAfterSupers(Detach, func() {})
}
