package engine

import (
	"fmt"

	"hapair/mirror/block"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// A Primary that has a disk again fills its copy from its peer while it goes on
// through it. It fetches what its bitmap says, block by block under the range
// lock, so that no write of the application crosses; such a write goes to both
// from the first moment on, logged as always. When everything is here and
// flushed (R4), it says so with idFilled; the peer goes on under the generation
// that the two will share, durably, then SyncDone; this copy adopts it, durably;
// the ledger records it as in sync (R11); InSync. Until then this copy is none:
// whatever is lost, it is filled again, by its bitmap while this process lives.

// idFilled is what the ack carries by which a Primary says that its copy is
// complete.
const idFilled = ^uint64(0) - 2

// filling reports whether the own copy is being filled at this instant: writes go
// to both.
func (e *Engine) filling() bool { return e.forward.fill && e.flowing() && !e.anyFailed() }

// fillsBy reports whether an op belongs to the filling that goes on.
func (e *Engine) fillsBy(o *op) bool { return e.filling() && o.start0 == e.forward.filled }

// startFill begins, or goes on in another session.
func (e *Engine) startFill() {
	if !e.filling() {
		return
	}
	r := &e.session.resync
	*r = resync{}
	e.forward.back = false
	e.forward.filled++ // what is on its way is of another disk, or session
	for _, v := range e.vols {
		v.sync = syncState{acked: v.sync.acked[:0]}
		r.total += v.bits.DirtyBytes()
	}
	e.note(fmt.Sprintf("this copy is being filled from %s", e.peer))
	e.pumpFill()
}

// pumpFill keeps chunks in flight; then it flushes, then it is complete.
func (e *Engine) pumpFill() {
	r := &e.session.resync
	if !e.filling() || r.told {
		return
	}
	for r.volume < len(e.vols) {
		v := e.vols[r.volume]
		for r.chunks < resyncOpsMax && e.nextChunk(opFill, v) {
		}
		switch {
		case r.chunks > 0 || r.flush != nil:
			return
		case len(v.sync.acked) > 0:
			e.flushFill(v)
			return
		}
		if _, _, more := v.bits.NextRun(v.sync.cursor, resyncChunkBytes); more {
			return // no op was free, or it rests; asked again by the next tick
		}
		r.volume++
	}
	for i, v := range e.vols {
		if v.bits.Count() > 0 { // marked behind the cursor, or the peer could not read it
			if v.sync.again(e.now) {
				r.volume = i
				e.pumpFill()
			}
			return
		}
	}
	if !e.flushedBoth() {
		return
	}
	r.told = true
	e.send(wire.Message{Kind: wire.Ack, ID: idFilled})
}

// beginFill locks the range from here until the data are written.
func (e *Engine) beginFill(o *op) {
	if !e.fillsBy(o) {
		e.freeChunk(o)
		return
	}
	o.vol.active.push(o)
	o.owed, o.sent = owedPeer, true
	e.send(readMessage(o, e.tenure))
}

// fillFetched writes what has come.
func (e *Engine) fillFetched(o *op) {
	if !e.fillsBy(o) {
		e.dropChunk(o)
		return
	}
	o.owed = owedLocal
	o.disk.Op = block.Write
	e.emitLocal(o)
}

// fillDone is the return of a chunk, or of a flush after many, from our disk.
func (e *Engine) fillDone(o *op, err error) {
	v, r := o.vol, &e.session.resync
	o.owed = 0
	live := e.fillsBy(o)
	if o.disk.Op == block.Flush {
		e.fillFlushed(o, err, live)
		return
	}
	done := span{o.disk.Offset, o.disk.Length}
	e.dropChunk(o)
	switch {
	case err != nil:
		e.diskFailed(v, err)
	case live:
		r.chunks--
		r.done += done.length
		v.sync.acked = append(v.sync.acked, done)
		if len(v.sync.acked) >= resyncFlushChunks && r.flush == nil {
			e.flushFill(v)
		}
		e.pumpFill()
	default:
		e.tryHello()
	}
}

// fillAtDisk reports whether the local disk still has chunks of a filling: what
// another session writes there must not be overtaken by them.
func (e *Engine) fillAtDisk() bool {
	for _, v := range e.vols {
		for o := v.active.head; o != nil; o = o.next {
			if o.kind == opFill && o.owed&owedLocal != 0 {
				return true
			}
		}
	}
	return false
}

func (e *Engine) flushFill(v *volume) {
	o := e.pool.get(opFill, v)
	if o == nil {
		return // asked again by the next chunk, or tick
	}
	o.disk.Op, o.disk.Offset, o.disk.Length = block.Flush, 0, 0
	o.mark, o.start0, o.owed = uint64(len(v.sync.acked)), e.forward.filled, owedLocal
	e.session.resync.flush = o
	e.emitLocal(o)
}

// fillFlushed clears the bits of what is durable now (rule R4).
func (e *Engine) fillFlushed(o *op, err error, live bool) {
	v := o.vol
	if live {
		e.session.resync.flush = nil
	}
	if live && err == nil {
		v.unmark(o.mark)
	}
	e.pool.put(o)
	if err != nil {
		e.diskFailed(v, err)
		return
	}
	e.pumpFill()
}

// onFilled: the Primary has everything. This copy goes on under what both will
// carry, durably so before the other takes it.
func (e *Engine) onFilled() {
	s := &e.session
	if s.phase != agreed || s.repl != state.Forwarding || e.role == state.Primary {
		e.refuseSession(&RefusedError{Status: wire.BadState, Text: "no copy is being filled from here"})
		return
	}
	for _, v := range e.vols {
		v.gen, v.unused = v.gen.Finish(), false
	}
	e.inSessionAfterSupers(agreed, e.sendSyncDone)
}

// adoptFill is the end of it at the Primary: the generation is the peer's, and
// the ledger may count this copy.
func (e *Engine) adoptFill(h *wire.HelloBody) {
	for i, v := range e.vols {
		v.gen = v.gen.Adopt(genid.FromWords(h.Volumes[i].Gen))
		v.disk, v.full, v.assume, v.doubt = state.UpToDate, false, false, false
	}
	e.inSessionAfterSupers(agreed, func() {
		e.forward.back = true
		e.ledgerNext()
	})
}

// unfinished makes a copy that was complete, and was not counted before its
// session ended, one that is being filled again, durably, before another session
// writes to it. It reports whether that is on its way; the hello comes after it.
func (e *Engine) unfinished() bool {
	again := false
	for _, v := range e.vols {
		if e.forward.fill && v.disk.CanServe() {
			v.disk, v.full, again = state.Inconsistent, true, true
		}
	}
	if again {
		e.forward.back = false
		e.afterSupers(e.tryHello)
	}
	return again
}

// backInSet: the ledger counts this node's copy again.
func (e *Engine) backInSet() {
	if !e.forward.back || !e.inSync(e.self) {
		return
	}
	together := e.flowing()
	e.forward.on, e.forward.fill, e.forward.back = false, false, false
	e.noteOn(OnResync, "this copy is complete: in sync")
	if !together { // the session has ended meanwhile; the next one compares
		if e.session.phase != ended {
			e.dropSession(errRecordChanged)
		}
		e.unpark()
		e.established()
		return
	}
	e.session.repl, e.session.resync, e.alike = state.Established, resync{}, true
	if e.sendInSync() {
		e.established()
	}
}

// keptInSync is the same at the peer, by the record or by InSync: the Primary's
// copy lacks nothing any more.
func (e *Engine) keptInSync() {
	for _, v := range e.vols {
		v.bits.ClearAll()
	}
	e.session.repl, e.suspect = state.Established, false
	e.noteOn(OnResync, fmt.Sprintf("the copy of %s is complete: in sync", e.peer))
	e.sendState()
}
