package engine

import (
	"fmt"

	"hapair/mirror/genid"
	"hapair/mirror/state"
)

// Copies are what the superblocks of the volumes say, or are about to: what a side
// that gives up has to be given back to be what it was.
func (e *Engine) Copies() (out []Super) {
	for _, v := range e.vols {
		out = append(out, *e.super(v))
	}
	return out
}

// beginUndo makes the copy worth nothing, durably, before the caller puts back on
// the disks what this node once gave up. Until UndoDone the command goes on: no
// session begins, and nothing else is done. A crash meanwhile leaves a copy that is
// to be replaced as a whole, unless the caller begins again.
func (e *Engine) beginUndo() {
	if err := e.refuseUndo(); err != nil {
		e.reply(Undo, err)
		return
	}
	for _, v := range e.vols {
		v.disk, v.full, v.assume, v.unused, v.gen = state.Inconsistent, true, false, false, genid.New()
	}
	e.split.givesUp = false
	e.control = control{of: Undo}
	e.afterSupers(func() {
		if e.control.of != Undo {
			return // an Abort has taken its place
		}
		if e.anyFailed() {
			e.reply(Undo, errDiskFailed)
			return
		}
		e.emit(Effect{Kind: Reply, Of: Undo})
	})
}

func (e *Engine) refuseUndo() error {
	switch {
	case e.role == state.Primary:
		return fmt.Errorf("this node is Primary: %w", ErrBadState)
	case e.session.phase != ended:
		return fmt.Errorf("a session with %s is not over: %w", e.peer, ErrBadState)
	case e.peerOps > 0 || e.fillAtDisk() || e.ledger.inFlight || e.fitting() || len(e.afterSup) > 0:
		return fmt.Errorf("requests of the last session are under way yet; try again: %w", ErrBadState)
	case e.inSync(e.self):
		return fmt.Errorf("this copy is in the in-sync set, and would not be what the set promises: %w", ErrBadState)
	case e.anyFailed():
		return errDiskFailed
	}
	return nil
}

// undoDone: the disks hold again what was given up, and were flushed. What was put
// back is marked: the peer may have been brought in line with what was there
// meanwhile, and has no marks of it any more. The marks are on disk before the
// generations are what they were.
func (e *Engine) undoDone(ev *Event) {
	switch {
	case e.control.of != Undo:
		e.emit(Effect{Kind: Reply, Of: UndoDone, Err: fmt.Errorf("nothing is being put back: %w", ErrBadState)})
		return
	case ev.Err != nil: // the copy stays worth nothing
		e.reply(UndoDone, ev.Err)
		return
	}
	e.control = control{of: UndoDone, copies: ev.Copies}
	for i, v := range e.vols {
		for p := range ev.Marks[i].Pages() {
			if ev.Marks[i].PageEmpty(p) {
				continue
			}
			if _, err := v.bits.MergePage(p, ev.Marks[i].Page(p, nil)); err != nil {
				e.reply(UndoDone, fmt.Errorf("volume %d: %w", v.num, err))
				return
			}
		}
	}
	e.controlProgress()
}

func (e *Engine) undoProgress() {
	if e.control.step > 0 {
		return
	}
	if !e.bitmapsSaved() {
		return
	}
	if e.anyFailed() {
		e.reply(UndoDone, errDiskFailed)
		return
	}
	e.control.step = 1
	for i, v := range e.vols {
		c := &e.control.copies[i]
		v.gen, v.last, v.full, v.parted = c.Gen, c.LastPrimary, c.FullSync, parted{c.Since, c.Elder}
		if v.disk = c.Disk; v.disk.CanServe() {
			v.disk = state.Outdated // the ledger does not count it
		}
	}
	e.afterSupers(func() { // a disk that has failed ends the waiting, too
		if e.control.of != UndoDone {
			return // an Abort has taken its place
		}
		if e.anyFailed() {
			e.reply(UndoDone, errDiskFailed)
			return
		}
		e.reply(UndoDone, nil)
	})
}
