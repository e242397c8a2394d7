package engine

import (
	"fmt"

	"hapair/mirror/block"
)

// A read that fails while the peer's copy is in line is fetched from there and
// written again here: disks put sectors that they cannot read elsewhere when
// they are written. The range is held and its extents are hot as for a write:
// a crash in the middle leaves what a later resync covers.

// mendable reports whether the peer could be asked.
func (e *Engine) mendable() bool { return e.peerServes() && e.forward.able && e.aborting == nil }

// mend takes over a read that has failed.
func (e *Engine) mend(o *op, err error) {
	v := o.vol
	v.reads.remove(o)
	o.mends, o.owed, o.cause = true, 0, err
	e.enter(o)
	e.wake(v) // writes that waited for the read, and go first
}

func (e *Engine) beginMend(o *op) {
	o.vol.active.push(o)
	if !o.vol.disk.HasData() {
		e.abandon(o, errDiskFailed)
		return
	}
	e.heat(o)
}

// fetch asks the peer, whose copy is not read while it is being filled.
func (e *Engine) fetch(o *op) {
	if !e.mendable() {
		e.unmend(o)
		return
	}
	o.owed, o.sent, o.sentAt = owedPeer, true, e.now
	e.send(readMessage(o, e.tenure))
}

// fetched: what the peer has is written here, and durably so.
func (e *Engine) fetched(o *op) {
	if !o.vol.disk.HasData() {
		o.owed = 0
		e.endMend(o)
		return
	}
	o.owed = owedLocal
	o.disk.Op, o.disk.Flags = block.Write, block.FUA
	e.emitLocal(o)
}

// mended: the application gets what it asked for in any case. A disk that does
// not even take the write is done with.
func (e *Engine) mended(o *op, err error) {
	v := o.vol
	o.owed = 0
	if err != nil {
		e.diskFailed(v, err)
	} else {
		e.noteOn(OnDisk, fmt.Sprintf("volume %d: %d bytes at %d could not be read (%v); fetched from %s and written again", v.num, o.disk.Length, o.disk.Offset, o.cause, e.peer))
	}
	e.endMend(o)
}

// endMend gives the range back and answers.
func (e *Engine) endMend(o *op) {
	v := o.vol
	v.active.remove(o)
	if o.logged && v.disk.HasData() {
		v.al.Release(o.disk.Offset, o.disk.Length, v.settled)
	}
	e.answer(o)
	e.wake(v)
	if len(v.cold) > 0 {
		e.prepareActivity(v)
	}
}

// unmend ends an op whose peer is gone: the read has failed, or waits for a peer
// that is to serve all of them.
func (e *Engine) unmend(o *op) {
	v := o.vol
	switch {
	case o.owed&owedLocal != 0: // being written
	case e.forwards():
		v.active.remove(o)
		e.forwardOp(o)
	case o.owed&owedPeer != 0 || o.logged:
		o.owed, o.err = 0, o.cause
		if !o.heals { // the verify comes by again
			e.unreadable(v, o.cause)
		}
		e.endMend(o)
	}
}
