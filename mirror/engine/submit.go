package engine

import (
	"fmt"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/state"
)

// submit is the upper door: one request of a front end for v.
func (e *Engine) submit(v *volume, r *block.Request) {
	if err := e.refuse(v, r); err != nil {
		e.emit(Effect{Kind: Answer, Request: r, Err: err})
		return
	}
	if len(e.held) > 0 || e.mustHold(v, r) {
		e.held, e.heldVol = append(e.held, r), append(e.heldVol, v.index)
		return
	}
	e.admit(v, r)
}

// refuse judges a request. Each refusal has its own sentence.
func (e *Engine) refuse(v *volume, r *block.Request) error {
	switch {
	case e.detaching:
		return fmt.Errorf("%s: resource %s is being detached: %w", r, e.name, block.ErrClosed)
	case e.role != state.Primary:
		return fmt.Errorf("%s: resource %s: %w", r, e.name, block.ErrNotPrimary)
	case e.failing && !e.hasLease(): // the tick that ends it may not have come yet
		return fmt.Errorf("%s: %w", r, e.noQuorum())
	case !e.forward.on && (v.disk == state.Failed || v.disk == state.Diskless):
		return fmt.Errorf("%s: the disk of volume %d of %s is %s: %w", r, v.num, e.name, v.disk, block.ErrIO)
	}
	if err := block.Check(r, v.geo); err != nil || !r.Op.Changes() {
		return err
	}
	if n := (r.End()-1)/actlog.ExtentBytes - r.Offset/actlog.ExtentBytes + 1; n > int64(v.al.MaxSpan()) {
		return fmt.Errorf("%s spans %d extents of the activity log, at most %d can be taken at once: %w", r, n, v.al.MaxSpan(), block.ErrTooLong)
	}
	return nil
}

// mustHold reports whether a request has to wait before it starts: no lease,
// no free op, writes of the last Primary still at the disk, which nothing may
// overtake, or a handshake that decides where writes go.
func (e *Engine) mustHold(v *volume, r *block.Request) bool {
	switch {
	case !e.hasLease(), e.appOps >= applicationOpsMax, e.pool.empty(), e.peerOps > 0, e.forward.on && !e.flowing():
		return true
	case r.Op == block.Read:
		return e.mayDiffer() && (e.negotiating() || e.inherited())
	}
	return e.negotiating() || v.unflushed.crowded()
}

// admit starts a request. The caller has checked mustHold.
func (e *Engine) admit(v *volume, r *block.Request) {
	o := e.pool.get(opApplication, v)
	e.appOps++
	e.lastApp = e.now
	o.req, o.began = r, e.now
	o.disk.Op, o.disk.Flags, o.disk.Offset, o.disk.Length, o.disk.Data = r.Op, r.Flags, r.Offset, r.Length, r.Data
	if r.Op == block.Flush {
		e.beginFlush(o)
		return
	}
	e.enter(o)
}

// drainHeld admits what was held, in order, until something must wait again.
func (e *Engine) drainHeld() {
	if e.draining {
		return
	}
	e.draining = true
	defer func() { e.draining = false }()
	n := 0
	for n < len(e.held) {
		v, r := e.vols[e.heldVol[n]], e.held[n]
		if err := e.refuse(v, r); err != nil {
			e.emit(Effect{Kind: Answer, Request: r, Err: err})
		} else if e.mustHold(v, r) {
			break
		} else {
			e.admit(v, r)
		}
		n++
	}
	if n > 0 {
		e.held = append(e.held[:0], e.held[n:]...)
		e.heldVol = append(e.heldVol[:0], e.heldVol[n:]...)
	}
}
