package engine

import (
	"errors"
	"fmt"

	"hapair/mirror/genid"
	"hapair/mirror/state"
)

// A copy that is given up leaves the in-sync set first: between the two the ledger
// would count a copy that is worth nothing, and a Primary that is lost just then
// would leave nobody behind. No session begins meanwhile, or the copy could be back
// in the set before it is given up.

// allVolumes is the volume of an Invalidate that is for the whole resource.
const allVolumes = -1

// invalidate makes the local copy worthless: a full resync from the peer. The
// other volumes are in line, but the in-sync set counts copies as a whole.
func (e *Engine) invalidate(ev *Event) {
	if err := e.refuseInvalidate(); err != nil {
		e.reply(Invalidate, err)
		return
	}
	e.control = control{of: Invalidate, volume: allVolumes}
	if ev.Only {
		e.control.volume = ev.Volume
	}
	e.invalidateProgress()
}

func (e *Engine) refuseInvalidate() error {
	switch {
	case e.role == state.Primary:
		return fmt.Errorf("this node is Primary: %w", ErrBadState)
	case e.inSync(e.self) && !e.inSync(e.peer):
		return fmt.Errorf("this is the only copy in the in-sync set: %w", ErrBadState)
	case e.excluding || e.ledger.inFlight || e.sourcing():
		return fmt.Errorf("this copy is about to be the source of a resync: %w", ErrBadState)
	case e.beingIncluded():
		return fmt.Errorf("this copy is complete, and the ledger is about to count it; try again: %w", ErrBadState)
	}
	return nil
}

// beingIncluded: the source of a resync has been told that this copy is complete,
// and what it asks of the ledger cannot be taken back.
func (e *Engine) beingIncluded() bool {
	if r := e.session.repl; r != state.SyncTarget && r != state.PausedSyncT || e.inSync(e.self) {
		return false
	}
	for _, v := range e.vols {
		if !v.disk.CanServe() {
			return false
		}
	}
	return true
}

// invalidateProgress asks the ledger as long as it counts this copy, then gives
// the copy up. The record may have changed since the command came.
func (e *Engine) invalidateProgress() {
	c := &e.control
	if c.step > 0 || e.ledger.inFlight {
		return
	}
	if err := e.refuseInvalidate(); err != nil {
		e.reply(Invalidate, err)
		return
	}
	switch {
	case !e.inSync(e.self):
		c.step = 1
		e.giveUpVolumes(c.volume)
		e.dropSession(errInvalidated)
		e.afterSupers(e.invalidated)
	case c.asked == e.record.Token:
		e.reply(Invalidate, fmt.Errorf("the ledger keeps this copy in the in-sync set (token %d, Primary %q): %w", c.asked, e.record.Primary, ErrBadState))
	default:
		c.asked = e.record.Token
		e.ledger.inFlight, e.ledger.include = true, false
		e.emit(Effect{Kind: LedgerLeave, Node: e.self, Token: c.asked})
	}
}

// notLeft: nobody could decide whether this copy leaves the set, so it is kept.
func (e *Engine) notLeft(err error) {
	if err != nil && !errors.Is(err, ErrStaleToken) && e.control.of == Invalidate && e.control.step == 0 && e.inSync(e.self) {
		e.reply(Invalidate, fmt.Errorf("the ledger cannot take this copy out of the in-sync set, so it is kept: %w", err))
	}
}

func (e *Engine) giveUpVolumes(only int) {
	for _, v := range e.vols {
		if v.disk.HasData() && (only == allVolumes || v.index == only) {
			v.disk, v.full, v.assume, v.gen = state.Inconsistent, true, false, genid.New()
			v.bits.SetAll()
		}
	}
}

// invalidated: it is written down, or a disk has failed and may say otherwise when
// it works again.
func (e *Engine) invalidated() {
	if e.control.of != Invalidate {
		return // an Abort has taken its place
	}
	for _, v := range e.vols {
		if v.failed != nil {
			e.reply(Invalidate, fmt.Errorf("volume %d: not written down: %w", v.num, v.failed))
			return
		}
	}
	e.reply(Invalidate, nil)
}
