package engine

import (
	"fmt"

	"hapair/mirror/actlog"
	"hapair/mirror/dirty"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// A volume is made smaller while no node is Primary: nobody sees it, and nobody
// writes. The steps are those of growth; ResizeGrow names a smaller size. Where the
// metadata move into what is to be cut off, internal ones, that is marked before,
// durably: the old size may be found again after a failure, and no difference is
// unmarked then. Until it is done nothing is taken of the peer
// for that range. A copy that was not cut yet is the larger one when the two meet:
// the other grows back (size.go), and the operator asks again.

// shrinks: the size has been decided, and this copy has not got it yet.
func (x *resize) shrinks() bool {
	return x.step == wire.ResizeGrow && x.size < x.v.geo.SizeBytes
}

// MayCut says why a volume cannot be made smaller now, nil when nothing is known
// that speaks against it: before its contents are looked at.
func (e *Engine) MayCut(volume int) error {
	v := e.vols[volume]
	why := e.mayCut(v, 0)
	if why == "" {
		why = e.resizeBusy(v)
	}
	return v.notCut(why)
}

// notCut is the refusal for a reason, nil without one.
func (v *volume) notCut(why string) error {
	if why == "" {
		return nil
	}
	return fmt.Errorf("volume %d is not made smaller: %s: %w", v.num, why, ErrBadState)
}

// mayCut says what keeps this node from having a copy cut, "" when nothing does.
// Both nodes ask.
func (e *Engine) mayCut(v *volume, size int64) string {
	s, t := &e.session, e.session.theirs
	demote := ": a volume is made smaller while no node is: hactl demote " + e.name
	switch {
	case e.role == state.Primary:
		return e.self + " is Primary" + demote
	case s.phase == ended:
		return e.peer + " is not connected, and a volume is made smaller on both nodes"
	case s.phase != agreed || s.closing || s.repl != state.Established:
		return fmt.Sprintf("the copies are not in line (replication is %s)", s.repl)
	case t.Role == state.Primary:
		return e.peer + " is Primary" + demote
	case !e.inSync(e.self) || !e.inSync(e.peer) || v.disk != state.UpToDate || !countsAsCurrent(t):
		return "not both copies are current"
	case v.bits.Count() > 0 || t.Volumes[v.index].DirtyBlocks > 0:
		return "blocks are marked as out of sync"
	case e.appOps+e.peerOps > 0:
		return "requests are in flight"
	case size > v.ceiling:
		return fmt.Sprintf("on %s the metadata of volume %d move into what is cut off: %d bytes or less", e.self, v.num, v.ceiling)
	}
	return ""
}

// leadCut is what becomes of an order for a smaller size.
func (e *Engine) leadCut(size int64) {
	x := &e.resize
	v, was := x.v, x.v.geo.SizeBytes
	if !x.order.Cut {
		e.endResize(fmt.Errorf("volume %d has %d bytes, %d would cut it: %w", v.num, was, size, ErrWouldCut))
		return
	}
	why := e.mayCut(v, size)
	if why == "" && e.highest() != x.order.Seen {
		why = "a node has been Primary since the contents were looked at; again"
	}
	if err := v.notCut(why); err != nil {
		e.endResize(err)
		return
	}
	x.step, x.size = wire.ResizeGrow, size
	e.sendState()
}

// followCut makes this copy as small as the leader says.
func (e *Engine) followCut(size int64) {
	x := &e.resize
	if err := x.v.notCut(e.mayCut(x.v, size)); err != nil {
		e.resizeFailed(err)
		return
	}
	x.step, x.size = wire.ResizeGrow, size
	e.beginCut()
}

// beginCut marks what is to be cut off, if something else will lie there. Metadata
// begin at a whole block: one that the smaller volume ends inside keeps what it has,
// and a mark of it would outlast the cut.
func (e *Engine) beginCut() {
	x := &e.resize
	x.marked = true
	if v := x.v; v.ceiling < v.geo.SizeBytes {
		from := (x.size + dirty.BlockBytes - 1) / dirty.BlockBytes * dirty.BlockBytes
		v.bits.Set(from, v.geo.SizeBytes-from)
	}
	e.cutProgress(x.v)
}

// cutProgress goes on when the marks are durable.
func (e *Engine) cutProgress(v *volume) {
	x := &e.resize
	if x.v != v || !x.marked || x.ready {
		return
	}
	if _, stale := v.bits.NextStale(0); stale {
		e.savePages(v)
		return
	}
	x.ready = true
	e.resizeOn()
}

// endCut: the copy keeps its size, unless its metadata are being made anew; then
// there was nothing to mark.
func (e *Engine) endCut() {
	if x := &e.resize; x.marked && x.shrinks() && x.v.fitTo == 0 {
		x.v.bits.Clear(x.size, x.v.geo.SizeBytes-x.size)
	}
}

// holds is how much of the volume is taken of the peer: less while it is cut.
func (e *Engine) holds(v *volume) int64 {
	size := v.geo.SizeBytes
	if x := &e.resize; x.v == v && x.shrinks() {
		size = x.size
	}
	if v.fitTo > 0 {
		size = min(size, v.fitTo)
	}
	return size
}

// firstBeyond is the first extent of the activity log that lies wholly behind a
// volume of so many bytes.
func firstBeyond(size int64) uint32 {
	return uint32((size + actlog.ExtentBytes - 1) / actlog.ExtentBytes)
}
