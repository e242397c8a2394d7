package engine

import (
	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// startFlush sends a flush to both copies. It covers every write settled so
// far: those were complete at the local disk and acknowledged by the peer
// before it is sent.
func (e *Engine) startFlush(o *op) {
	o.mark = o.vol.settled
	o.vol.flushes.started++
	o.start0 = o.vol.flushes.started
	e.flushes = append(e.flushes, o)
	if e.forward.on {
		o.owed = owedPeer
		e.sendForwarded(o)
		if e.filling() {
			o.owed |= owedLocal
			e.emitLocal(o)
		}
		return
	}
	o.owed = owedLocal
	switch {
	case e.replicating():
		o.owed |= owedPeer
		o.sent, o.sentAt = true, e.now
		m := wire.Message{Kind: wire.Flush, Volume: o.vol.num, ID: o.id, Token: e.writerToken()}
		if o.ordered = o.kind == opApplication && e.protocol() == state.ProtocolA; o.ordered {
			m.Flags = wire.Ordered
		}
		e.send(m)
	case o.kind == opApplication:
		e.oneSided(o)
	case e.peerInSync():
		// Our own flush neither waits for nor causes an exclusion; it just
		// makes nothing durable at a peer that is not there.
		o.mark = 0
	}
	e.emitLocal(o)
}

// flushOwn starts a flush of the engine's own, unless one runs.
func (e *Engine) flushOwn(v *volume) {
	if v.flushing != nil || e.forward.on && !e.flowing() || !e.forward.on && !v.disk.HasData() {
		return
	}
	o := e.pool.get(opFlush, v)
	if o == nil {
		return // every op is busy; a settled write asks again
	}
	o.disk.Op, o.disk.Flags, o.disk.Offset, o.disk.Length = block.Flush, 0, 0, 0
	v.flushing = o
	e.startFlush(o)
}

// flushSettled: the local disk has flushed, and the peer, if it takes part.
func (e *Engine) flushSettled(o *op) {
	v := o.vol
	e.forgetFlush(o)
	if o.err == nil {
		v.flushes.ended = max(v.flushes.ended, o.start0)
	}
	if o.err == nil && o.mark > v.durable {
		v.durable = o.mark
		v.unflushed.flushed(o.mark)
	}
	if o.err == nil && o.sent {
		e.forward.owed[v.index] = false
	}
	if o.kind == opFlush {
		v.flushing = nil
		e.pool.put(o)
	} else {
		e.answer(o)
	}
	if len(v.cold) > 0 {
		e.prepareActivity(v)
	}
	if v.unflushed.half() {
		e.flushOwn(v)
	}
	e.pumpSync()
	e.pumpFill()
	e.drainHeld()
	e.controlProgress()
}

// nextFlushes are, by volume, the first flushes that begin from now on.
func (e *Engine) nextFlushes() (starts []uint64) {
	for _, v := range e.vols {
		starts = append(starts, v.flushes.started+1)
	}
	return starts
}

// flushedSince reports whether flushes have ended that began no earlier than
// those, and sees to it; one that was running already is followed by another.
func (e *Engine) flushedSince(starts []uint64) bool {
	done := true
	for i, v := range e.vols {
		if (v.disk.HasData() || e.forward.on) && v.flushes.ended < starts[i] {
			done = false
			e.flushOwn(v)
		}
	}
	return done
}

// resumeFlushes: the peer is back before it was excluded, and lacks nothing.
// Flushes that waited for either are sent to it, reads may be answered. (A write
// that waited is dirty, and the handshake begins a resync.)
func (e *Engine) resumeFlushes() {
	e.backInTime()
	for _, o := range e.flushes {
		if o.owed&owedLedger != 0 && e.role == state.Primary {
			o.owed, o.sent = o.owed&^owedLedger|owedPeer, true
			o.sentAt = e.now
			e.send(wire.Message{Kind: wire.Flush, Volume: o.vol.num, ID: o.id, Token: e.tenure})
		}
	}
}

func (e *Engine) forgetFlush(o *op) {
	for i, p := range e.flushes {
		if p == o {
			last := len(e.flushes) - 1
			e.flushes[i] = e.flushes[last]
			e.flushes[last] = nil
			e.flushes = e.flushes[:last]
			return
		}
	}
}
