package engine

import (
	"fmt"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// begin starts an op that nothing overlaps.
func (e *Engine) begin(o *op) {
	switch o.kind {
	case opResync:
		e.beginChunk(o)
		return
	case opVerify:
		e.beginCheck(o)
		return
	case opFill:
		e.beginFill(o)
		return
	default: // an application's
	}
	if e.forward.on && !(e.filling() && o.asks().Changes()) {
		e.forwardOp(o)
		return
	}
	if o.mends {
		e.beginMend(o)
		return
	}
	if o.asks() == block.Read {
		if !o.vol.disk.HasData() {
			o.err = errDiskFailed
			e.answer(o)
			return
		}
		o.owed = owedLocal
		o.vol.reads.push(o)
		e.readAlone(o)
		e.emitLocal(o)
		return
	}
	o.vol.active.push(o)
	if !o.vol.disk.HasData() {
		e.abandon(o, errDiskFailed)
		return
	}
	e.heat(o)
}

// heat launches an op that holds its range once its extents are durably hot.
func (e *Engine) heat(o *op) {
	if o.vol.al.Acquire(o.disk.Offset, o.disk.Length) == actlog.Hot {
		e.launch(o)
		return
	}
	o.vol.cold = append(o.vol.cold, o)
	e.prepareActivity(o.vol)
}

// abandon ends an op that holds its range and has reached neither copy.
func (e *Engine) abandon(o *op, err error) {
	o.err = err
	o.vol.active.remove(o)
	e.answer(o)
}

// abandonCold ends what waits for the activity log of v.
func (e *Engine) abandonCold(v *volume, err error) {
	cold := v.cold
	v.cold = nil
	for _, o := range cold {
		e.abandon(o, err)
	}
}

// launch sends a changing op, whose extents are durably hot, to both copies.
func (e *Engine) launch(o *op) {
	o.logged = true
	if o.mends {
		e.fetch(o)
		return
	}
	o.owed = owedLocal
	if e.forward.on {
		o.owed |= owedPeer // now, or when it serves again
		e.sendForwarded(o)
		e.emitLocal(o)
		return
	}
	if e.replicating() {
		o.owed |= owedPeer
		o.sent, o.sentAt = true, e.now
		e.sendChange(o)
	} else {
		e.oneSided(o)
	}
	e.emitLocal(o)
}

func writeMessage(o *op, tenure uint64) wire.Message {
	m := wire.Message{Kind: wire.Write, Volume: o.vol.num, ID: o.id, Token: tenure,
		Offset: uint64(o.disk.Offset), Length: uint64(o.disk.Length), Data: o.disk.Data}
	switch o.disk.Op {
	case block.WriteZeroes:
		m.Kind = wire.WriteZeroes
	case block.Discard:
		m.Kind = wire.Discard
	default: // a write: only changing ops are launched
	}
	if o.disk.Flags&block.FUA != 0 {
		m.Flags |= wire.FUA
	}
	if o.disk.Flags&block.NoUnmap != 0 && m.Kind != wire.Write {
		m.Flags |= wire.NoUnmap
	}
	return m
}

// oneSided makes an op owe what an answer without the peer takes: its blocks
// are dirty (durably so: its extents are hot), the peer is out of the in-sync
// set (rule R5), and a new generation began.
func (e *Engine) oneSided(o *op) {
	if o.disk.Op.Changes() {
		o.vol.bits.Set(o.disk.Offset, o.disk.Length)
	}
	if e.anyFailed() {
		if o.err == nil {
			o.err = errDiskFailed
		}
		return
	}
	if e.aborting != nil {
		o.err = e.aborting
		return
	}
	if e.peerInSync() {
		o.owed |= owedLedger
		e.missPeer()
		return
	}
	e.owesGeneration(o)
}

// goesAlone: the peer's half of o will not come.
func (e *Engine) goesAlone(o *op) {
	o.owed &^= owedPeer
	e.oneSided(o)
	e.paid(o, 0)
}

// emitLocal hands an op to the local disk.
func (e *Engine) emitLocal(o *op) {
	o.vol.atDisk++
	e.emit(Effect{Kind: LocalIO, Volume: o.vol.index, Request: &o.disk})
}

// localDone is the return of one of the engine's own requests from its disk.
func (e *Engine) localDone(o *op, err error) {
	o.vol.atDisk--
	if o.disk.Kept {
		o.leaveMemory()
	}
	if err == nil && o.disk.Op == block.Flush && !o.vol.disk.HasData() {
		err = errDiskFailed // another one failed meanwhile: what that lost this one did not find
	}
	switch o.kind {
	case opFill:
		e.fillDone(o, err)
		return
	case opPeer:
		e.peerLocalDone(o, err)
		return
	case opResync:
		e.chunkRead(o, err)
		return
	case opVerify:
		e.checkRead(o, err)
		return
	case opAnswer:
		e.answerRead(o, err)
		return
	case opZero:
		e.zeroDone(o, err)
		return
	default: // an application's, or a flush of our own
	}
	switch {
	case o.mends:
		e.mended(o, err)
		return
	case err != nil && e.localFailed(o, err):
		return
	case e.forward.on && o.kind == opApplication:
		e.forwardAgain(o) // what a failing disk says of itself does not count
		return
	}
	e.paid(o, owedLocal)
}

// localFailed judges a request that our disk could not do, and reports whether
// somebody else does it.
func (e *Engine) localFailed(o *op, err error) bool {
	switch {
	case o.disk.Op != block.Read:
		e.diskFailed(o.vol, err)
	case e.forward.on:
	case e.mendable():
		e.mend(o, err)
		return true
	case e.peerServes():
		e.diskFailed(o.vol, err)
	default:
		e.unreadable(o.vol, err)
	}
	if e.forward.on && o.kind == opApplication {
		e.forwardAgain(o)
		return true
	}
	o.err = err
	return false
}

// peerServes reports whether the peer could go on at once: it is connected,
// every write goes there, and its copy is current.
func (e *Engine) peerServes() bool {
	s := &e.session
	return s.phase == agreed && s.repl == state.Established && !s.closing && e.inSync(e.peer) && countsAsCurrent(s.theirs)
}

// unreadable is a read that failed while no other copy is current, of an
// application or of a resync: this copy goes on, because everything else of it
// may still be read.
func (e *Engine) unreadable(v *volume, err error) {
	v.unread.count++
	if v.unread.count > 1 && e.now-v.unread.told < unreadableEvery {
		return
	}
	v.unread.told = e.now
	e.problem(fmt.Sprintf("volume %d cannot be read, and no other copy is current; failed so far: %d, the last: %v", v.num, v.unread.count, err))
}

// paid takes one debt off an op and settles it when it was the last.
func (e *Engine) paid(o *op, what owed) {
	o.owed &^= what
	if o.owed != 0 {
		e.answerEarly(o)
		return
	}
	switch o.disk.Op {
	case block.Flush:
		e.flushSettled(o)
	case block.Read:
		e.readBack(o)
	default:
		e.settle(o)
	}
}

// readBack ends a read. What comes from a disk that has failed since it was asked
// counts for nothing: a flush that failed may have lost what was answered.
func (e *Engine) readBack(o *op) {
	v := o.vol
	v.reads.remove(o)
	if o.err == nil && !v.disk.HasData() && !e.forward.on {
		o.err = errDiskFailed
	}
	e.answer(o)
	e.wake(v)
}

// settle ends a changing application op: both copies have it, or the ledger
// knows that one has not.
func (e *Engine) settle(o *op) {
	v := o.vol
	v.active.remove(o)
	v.settled++
	if o.logged && v.disk.HasData() {
		v.al.Release(o.disk.Offset, o.disk.Length, v.settled)
	} // on a failed disk the extents stay hot: what it holds there is unknown
	if o.sent {
		v.unflushed.push(o.disk.Offset, o.disk.Length, v.settled)
		if v.unflushed.half() {
			e.flushOwn(v)
		}
	}
	e.answer(o)
	e.wake(v)
	if len(v.cold) > 0 {
		e.prepareActivity(v)
	}
}
