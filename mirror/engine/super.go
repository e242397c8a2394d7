package engine

import (
	"fmt"

	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// superWait runs fn once every volume's superblock has reached its version.
type superWait struct {
	versions []uint64
	fn       func()
}

// touch says that the superblock of v must be written again.
func (v *volume) touch() { v.super.wanted++ }

// flushSupers starts the superblock writes that the Step asked for.
func (e *Engine) flushSupers() {
	for _, v := range e.vols {
		if v.super.inFlight || v.fitTo > 0 || v.super.written >= v.super.wanted || !v.disk.HasData() {
			continue
		}
		v.super.inFlight, v.super.next = true, v.gen
		e.emit(Effect{Kind: WriteSuper, Volume: v.index, Version: v.super.wanted, Super: e.super(v)})
	}
}

func (e *Engine) super(v *volume) *Super {
	x := v.sinceParted()
	return &Super{Gen: v.gen, Disk: v.disk, Clean: e.detaching && !e.suspect, LastPrimary: v.last, AssumeClean: v.assume,
		FullSync: v.full, Tenure: e.highest(), Since: x.since, Elder: x.elder}
}

func (e *Engine) superDone(v *volume, version uint64, err error) {
	v.super.inFlight = false
	if err != nil {
		e.diskFailed(v, fmt.Errorf("superblock: %w", err))
		return
	}
	v.super.written, v.super.gen = version, v.super.next
	e.runSuperWaits()
	e.tryHello()
}

// afterSupers makes what the volumes say now durable, then runs fn.
func (e *Engine) afterSupers(fn func()) {
	w := superWait{fn: fn}
	for _, v := range e.vols {
		v.touch()
		w.versions = append(w.versions, v.super.wanted)
	}
	e.afterSup = append(e.afterSup, w)
	e.runSuperWaits() // a resource whose disks are all gone has nothing to wait for
}

// inSessionAfterSupers is afterSupers for a step of the present session in a
// phase: fn does not run where that has ended or is over, or a disk has failed.
func (e *Engine) inSessionAfterSupers(p phase, fn func()) {
	id := e.session.id
	e.afterSupers(func() {
		if s := &e.session; s.id == id && s.phase == p && !s.closing && !e.anyFailed() {
			fn()
		}
	})
}

func (e *Engine) runSuperWaits() {
	for len(e.afterSup) > 0 && e.reached(e.afterSup[0]) {
		fn := e.afterSup[0].fn
		e.afterSup = e.afterSup[1:]
		fn()
	}
}

func (e *Engine) reached(w superWait) bool {
	for i, v := range e.vols {
		if v.super.written < w.versions[i] && v.disk.HasData() {
			return false
		}
	}
	return true
}

// needsGeneration: the first write after this node went on without its peer
// begins a new generation (DRBD's rule: never at disconnect).
func (e *Engine) needsGeneration() bool {
	for _, v := range e.vols {
		if v.gen.Bitmap == 0 {
			return true
		}
	}
	return false
}

// owesGeneration makes an op wait for the new generation's superblock, if a
// new one is due or on its way.
func (e *Engine) owesGeneration(o *op) {
	if !e.needsGeneration() && !e.minting {
		return
	}
	o.owed |= owedSuper
	e.minters = append(e.minters, o.id)
	if !e.minting {
		e.minting = true
		e.mintWhereDue()
		e.afterSupers(e.minted)
	}
}

// mintWhereDue begins it for the volumes that have not begun one: what the
// peer lacks of the others is found by the one they have.
func (e *Engine) mintWhereDue() {
	e.mint("writing without "+e.peer, func(v *volume, id genid.ID) {
		if v.gen.Bitmap == 0 {
			e.begins(v, v.gen.Mint(id))
		}
	})
}

// begins: a copy goes on under another generation than its peer's.
func (e *Engine) begins(v *volume, gen genid.Set) {
	e.part(v)
	v.gen, v.assume, v.unused = gen, false, false
}

func (e *Engine) mint(why string, begin func(*volume, genid.ID)) {
	id := e.newID()
	for _, v := range e.vols {
		begin(v, id)
	}
	e.note(fmt.Sprintf("new generation %s: %s", id, why))
}

func (e *Engine) minted() {
	e.minting = false
	ids := e.minters
	e.minters = nil
	for _, id := range ids {
		if o := e.pool.find(id); o != nil && o.owed&owedSuper != 0 { // else it has failed meanwhile
			if e.anyFailed() && o.err == nil {
				o.err = errDiskFailed
			}
			e.paid(o, owedSuper)
		}
	}
}

// diskFailed takes the copy out of service: a failed write must never leave a
// clean local copy behind. The peer, if current, is asked to go on.
func (e *Engine) diskFailed(v *volume, err error) {
	if v.disk == state.Failed {
		return
	}
	was := v.disk
	v.disk, v.failed = state.Failed, err
	e.forgetRemake(v)
	e.noteOn(OnDisk, fmt.Sprintf("volume %d: was %s, now Failed", v.num, was))
	e.problem(fmt.Sprintf("volume %d: the disk failed: %v", v.num, err))
	switch {
	case e.forward.on:
		if e.forward.back && e.ledger.inFlight {
			e.forward.leaving = true // the ledger may count this copy yet
		}
		if e.session.resync.told {
			e.dropSession(errForward) // it carries the generation of the peer: that has to begin another
		}
		e.forward.fill, e.forward.back = false, false
		e.forwardCold()
	case e.canForward():
		e.giveUpCopy()
	default:
		e.abandonCold(v, err)
	}
	switch s := &e.session; {
	case e.role == state.Secondary:
		e.dropParked()
		e.leaveFailed()
	case s.phase == preparing && s.plan.action == actSource && !e.forward.on:
		e.dropSession(errDiskFailed) // it was to cost the peer its place; the next handshake knows
	default:
		e.sendState()
	}
	if !e.forward.on {
		e.failOwing()
	}
	e.runSuperWaits()
	e.wake(v)
	e.controlProgress()
}

// leaveFailed: a Secondary without its disk is of no use to its peer. It says
// why, and does not come back before somebody has seen to the disk.
func (e *Engine) leaveFailed() {
	for _, v := range e.vols {
		if v.failed == nil {
			continue
		}
		r := &RefusedError{Status: wire.IOError, Text: fmt.Sprintf("the disk of volume %d of %s has failed: %v", v.num, e.self, v.failed)}
		if e.session.phase != ended {
			e.refuseSession(r)
		} else {
			e.emit(Effect{Kind: StandAlone, Session: e.session.id, Err: r})
		}
		return
	}
}

// anyFailed: a resource with a dead disk never asks for its peer's removal;
// the ledger would be left with the dead copy alone.
func (e *Engine) anyFailed() bool {
	for _, v := range e.vols {
		if !v.disk.HasData() {
			return true
		}
	}
	return false
}

// failOwing ends what waits for the ledger or for a generation that a node
// with a dead disk does not ask for any more.
func (e *Engine) failOwing() {
	if e.role == state.Primary {
		e.excluding, e.missing = false, false
	}
	for _, v := range e.vols {
		e.payReads(v, errDiskFailed)
		for o := v.active.head; o != nil; {
			next := o.next
			if o.owed&(owedLedger|owedSuper) != 0 {
				o.err = errDiskFailed
				e.paid(o, owedLedger|owedSuper)
			}
			o = next
		}
	}
	for _, o := range append([]*op(nil), e.flushes...) {
		if o.owed&owedLedger != 0 {
			o.err = errDiskFailed
			e.paid(o, owedLedger)
		}
	}
}
