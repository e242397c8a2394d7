package engine

import (
	"fmt"
	"slices"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/wire"
)

// difference is what is wrong with a range.
type difference uint8

const (
	differs     difference = iota
	unreadHere             // it could not be read at this node
	unreadThere            // nor at the peer
	differences
)

func (d difference) String() string {
	return [...]string{"differs", "unreadable_here", "unreadable_there"}[d]
}

// Difference is a range that was found not to be equal, looked at while no
// write to it was in flight.
type Difference struct {
	Volume   uint16 // number
	Offset   int64
	Length   int64
	Kind     string // differs, unreadable_here, unreadable_there
	Repaired bool   // written anew where it was not good, and flushed there
}

// findings is what a run has found. The list is bounded, the counts are not.
type findings struct {
	list     []finding
	dropped  bool               // the list is full
	blocks   [differences]int64 // of 4 KiB
	repaired int64              // blocks
	here     int64              // of them, those that were unreadable here
	told     int64              // blocks of which an operator has heard
}

// repair is a range that was written at the peer, and how many blocks of it were
// not equal.
type repair struct {
	span
	bad int64
}

type finding struct {
	Difference
	kind difference
}

// open is how many blocks are still not equal.
func (f *findings) open() int64 {
	return f.blocks[differs] + f.blocks[unreadHere] + f.blocks[unreadThere] - f.repaired
}

// within reports whether anything not equal is known in a range.
func (f *findings) within(volume uint16, offset, length int64) bool {
	return f.dropped || slices.ContainsFunc(f.list, func(d finding) bool {
		return d.Volume == volume && !d.Repaired && d.Offset < offset+length && offset < d.Offset+d.Length
	})
}

func (f *findings) text(peer string) string {
	if f.open()+f.repaired == 0 {
		return "no difference"
	}
	text := fmt.Sprintf("%d blocks of %d bytes differ", f.blocks[differs], dirty.BlockBytes)
	if n := f.blocks[unreadHere]; n > 0 {
		text += fmt.Sprintf(", %d cannot be read here", n)
	}
	if n := f.blocks[unreadThere]; n > 0 {
		text += fmt.Sprintf(", %d cannot be read at %s", n, peer)
	}
	if n := f.repaired - f.here; n > 0 {
		text += fmt.Sprintf("; %d were repaired at %s: this node is Primary, and its copy is what the applications see", n, peer)
	}
	if f.here > 0 {
		text += fmt.Sprintf("; %d that could not be read here were fetched from %s and written again", f.here, peer)
	}
	return text
}

func blocksOf(s span) int64 { return (s.length + dirty.BlockBytes - 1) / dirty.BlockBytes }

// foundDiffering takes a range into the findings, once.
func (e *Engine) foundDiffering(v *volume, s span, kind difference) {
	f := &e.verify.found
	for _, d := range f.list {
		if d.Volume == v.num && d.Offset == s.offset && d.Length == s.length && d.kind == kind {
			return // a break of the session made it come again
		}
	}
	f.blocks[kind] += blocksOf(s)
	if f.dropped = f.dropped || len(f.list) == verifyListMax; f.dropped {
		return
	}
	f.list = append(f.list, finding{Difference{Volume: v.num, Offset: s.offset, Length: s.length, Kind: kind.String()}, kind})
}

// confirmed goes on with what differs although nothing was in flight there.
func (e *Engine) confirmed(o *op, different []span, marked bool) {
	if len(different) == 0 && !marked {
		e.endCheck(o) // it was a write in flight
		return
	}
	for _, s := range different {
		e.foundDiffering(o.vol, s, differs)
		o.check.bad += blocksOf(s)
		o.vol.bits.Set(s.offset, s.length)
	}
	e.mark(o, o.check.span, e.verify.order.Repair)
}

// mark makes it durable that the copies differ, before anybody is told or
// anything is changed: no two copies that are known to differ meet again, or
// survive a crash, as equal ones. What is unreadable at the peer is marked as
// a whole.
func (e *Engine) mark(o *op, s span, repair bool) {
	v := o.vol
	if o.check.status != wire.OK {
		v.bits.Set(s.offset, s.length)
	}
	page := dirty.PageOfExtent(uint32(s.offset / actlog.ExtentBytes))
	if v.bits.Unsaved(page) {
		e.urgentPage(v, page)
		e.nextPages(v)
	}
	if !repair {
		e.endCheck(o)
		e.tellDifferences()
		return
	}
	o.owed = owedPage
	e.marked(o)
}

// marked repairs a range once its mark is durable, still under its lock.
func (e *Engine) marked(o *op) {
	v := o.vol
	if v.bits.Unsaved(dirty.PageOfExtent(uint32(o.disk.Offset / actlog.ExtentBytes))) {
		return
	}
	e.tellDifferences()
	o.owed &^= owedPage
	if e.staleCheck(o) || !e.conclusive(o) {
		e.lookAgain(o, false)
		return
	}
	o.owed, o.check.repairing = owedPeer, true
	e.send(wire.Message{Kind: wire.Write, Flags: wire.Resync, Volume: v.num, ID: o.id, Token: e.writerToken(),
		Offset: uint64(o.disk.Offset), Length: uint64(o.disk.Length), Data: o.disk.Data})
}

// verifyMarked: a bitmap page of v is on disk.
func (e *Engine) verifyMarked(v *volume) {
	var waiting []*op
	for o := v.active.head; o != nil; o = o.next {
		if o.kind == opVerify && o.owed&owedPage != 0 {
			waiting = append(waiting, o)
		}
	}
	for _, o := range waiting {
		e.marked(o)
	}
	e.tellDifferences()
	e.pumpVerify()
}

// tellDifferences tells an operator, at once of the first and then of what
// came together, of what is durably marked.
func (e *Engine) tellDifferences() {
	f := &e.verify.found
	n := f.blocks[differs] + f.blocks[unreadHere] + f.blocks[unreadThere]
	first := slices.IndexFunc(f.list, func(d finding) bool { return !d.Repaired })
	if f.told > 0 || first < 0 {
		return // the end of the run sums up
	}
	if !e.marksSaved() {
		return
	}
	f.told = n
	d := f.list[first]
	e.problem(fmt.Sprintf("verify: volume %d, %d bytes at %d: %s", d.Volume, d.Length, d.Offset, d.sentence(e.peer)))
	e.sendState()
}

// marksSaved reports whether everything that is known to differ is marked on
// disk.
func (e *Engine) marksSaved() bool {
	for _, v := range e.vols {
		if _, stale := v.bits.NextStale(0); stale && e.verify.found.dropped {
			return false // of what is not listed, too
		}
	}
	return !slices.ContainsFunc(e.verify.found.list, func(d finding) bool {
		return d.kind != unreadHere && e.byNumber(d.Volume).bits.Unsaved(dirty.PageOfExtent(uint32(d.Offset/actlog.ExtentBytes)))
	})
}

func (d *finding) sentence(peer string) string {
	switch d.kind {
	case unreadHere:
		return "they cannot be read at this node"
	case unreadThere:
		return "they cannot be read at " + peer
	default:
		return "the copy of " + peer + " differs, with no write in flight"
	}
}

// repairing reports whether a repair is on its way to the peer, or here.
func (e *Engine) repairing() bool {
	if e.verify.mending > 0 {
		return true
	}
	for _, v := range e.vols {
		for o := v.active.head; o != nil; o = o.next {
			if o.kind == opVerify && o.check.repairing {
				return true
			}
		}
	}
	return false
}

// repairAcked: the peer has the range; it may still lose it.
func (e *Engine) repairAcked(o *op) {
	e.verify.written = append(e.verify.written, repair{o.check.span, o.check.bad})
	e.endCheck(o)
	e.controlProgress()
	e.pumpVerify()
}

// flushRepairs makes repairs durable at the peer.
func (e *Engine) flushRepairs() {
	x := &e.verify
	if len(x.written) == 0 || x.flush != nil || e.session.phase != agreed || e.session.closing {
		return
	}
	o := e.pool.get(opFlush, e.vols[x.volume])
	if o == nil {
		return // the next tick asks again
	}
	o.disk.Op, o.disk.Offset, o.disk.Length = block.Flush, 0, 0
	o.mark, o.owed, o.sent = uint64(len(x.written)), owedPeer, true
	x.flush = o
	e.send(wire.Message{Kind: wire.Flush, Volume: o.vol.num, ID: o.id, Token: e.writerToken()})
}

// repairFlushed takes the marks of what is equal again (rule R4).
func (e *Engine) repairFlushed(o *op) {
	v, x := o.vol, &e.verify
	for _, m := range x.written[:o.mark] {
		v.bits.Clear(m.offset, m.length)
		x.found.mended(v.num, m)
	}
	x.written, x.flush = append(x.written[:0], x.written[o.mark:]...), nil
	e.pool.put(o)
	e.sendState()
	e.pumpVerify()
}

// resynced: a resync is complete. It has sent whatever was marked.
func (f *findings) resynced() {
	f.repaired = f.blocks[differs] + f.blocks[unreadThere] + f.here
	for i := range f.list {
		f.list[i].Repaired = f.list[i].Repaired || f.list[i].kind != unreadHere
	}
}

// mended notes what lies in a range as repaired.
func (f *findings) mended(volume uint16, s repair) {
	f.repaired += s.bad
	for i := range f.list {
		d := &f.list[i]
		if d.Volume == volume && d.kind != unreadHere && !d.Repaired && d.Offset >= s.offset && d.Offset+d.Length <= s.offset+s.length {
			d.Repaired = true
		}
	}
}
