package engine

import (
	"errors"
	"fmt"
	"slices"

	"hapair/mirror/actlog"
)

// remake has the metadata of v laid out anew for another size, as soon as no
// write of them is under way. Until that is done none begins: writes to extents
// that are cold wait, and superblocks and pages of the bitmap; writes to hot ones
// go on, for the activity log does not change. It waits for the local disk alone.
// With mark, what is new is out of sync.
func (e *Engine) remake(v *volume, size int64, mark bool) {
	v.fitTo, v.fitMark, v.remaking = size, mark, false
}

// startRemakes runs at the end of every Step.
func (e *Engine) startRemakes() {
	for _, v := range e.vols {
		waits := v.super.inFlight || v.page.inFlight || v.activity.inFlight
		if v.fitTo == 0 || v.fresh || v.remaking || waits || !v.disk.HasData() {
			continue
		}
		v.remaking = true
		bits := v.bits.Clone()
		bits.Resize(v.fitTo)
		if was := v.geo.SizeBytes; v.fitMark {
			bits.Set(was, v.fitTo-was)
		}
		v.fitFrom = v.fitFrom[:0]
		for i := range v.bits.Pages() {
			v.fitFrom = append(v.fitFrom, v.bits.Version(i))
		}
		e.emit(Effect{Kind: RemakeMeta, Volume: v.index, Size: v.fitTo, Super: e.super(v), Bitmap: bits, Log: actlog.Cut(v.al.Restate(), firstBeyond(v.fitTo))})
	}
}

// forgetRemake: the disk has failed. A remake that was asked for ends by itself.
func (e *Engine) forgetRemake(v *volume) {
	if !v.remaking && !v.fresh {
		v.fitTo = 0
	}
	if e.resize.runs() {
		e.resizeFailed(fmt.Errorf("volume %d: the disk failed: %w", v.num, v.failed))
	}
}

// remade: the metadata say the new size, or nothing was changed, or the disk
// cannot be trusted with them any more. One that has failed meanwhile and says the
// new size has it when it is attached again; who goes on through its peer shows it
// at once, for the peer's copy has it already.
func (e *Engine) remade(v *volume, err error) {
	size, was, mark := v.fitTo, v.geo.SizeBytes, v.fitMark
	v.fitTo, v.remaking = 0, false
	switch {
	case err == nil:
		v.geo.SizeBytes = size
		v.takeSize(was, mark)
		e.alike = e.alike && !mark // what is new shows something else at the peer
		e.resized(v, was)
	case !v.disk.HasData(): // it has failed meanwhile: what its metadata say is found when it is attached
	case errors.Is(err, ErrNoRoom), errors.Is(err, ErrWouldCut):
		e.note(fmt.Sprintf("volume %d keeps its %d bytes: %v", v.num, was, err))
		if e.resize.v == v {
			e.resizeFailed(err)
		}
	default:
		e.diskFailed(v, err)
	}
	if len(v.cold) > 0 {
		e.prepareActivity(v)
	}
	e.nextPages(v)
	e.tryHello()
	e.controlProgress()
}

// takeSize makes the bitmap one of the new size. Pages that were not changed
// since they were handed over are on disk, and so is the activity log.
func (v *volume) takeSize(was int64, mark bool) {
	v.al.Restated()
	v.al.Cut(firstBeyond(v.geo.SizeBytes))
	v.bits.Resize(v.geo.SizeBytes)
	same := make([]bool, v.bits.Pages())
	for i := range same {
		same[i] = i >= len(v.fitFrom) || v.bits.Version(i) == v.fitFrom[i]
	}
	if mark {
		v.bits.Set(was, v.geo.SizeBytes-was)
	}
	for i := range same {
		if same[i] {
			v.bits.Saved(i, v.bits.Version(i))
		}
	}
	v.page.urgent = slices.DeleteFunc(v.page.urgent, func(page int) bool { return page >= v.bits.Pages() })
}
