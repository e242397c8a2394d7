package sim

import (
	"hapair/mirror/actlog"
	"hapair/mirror/dirty"
	"hapair/test/check"
)

// pageSpan is how much of a volume one page of the bitmap tells of.
const pageSpan = dirty.PageExtents * actlog.ExtentBytes

// NewWide makes a world whose one volume has a bitmap of several pages, of which a
// power cut may keep some and lose others that were written with them. The application
// is at work where one page ends and the next begins.
func NewWide(seed uint64, keepLog bool) *World {
	w := New(seed, keepLog)
	w.wide, w.sizes = true, []int64{2*pageSpan + 8<<20}
	w.hists = []*check.History{check.NewHistory(w.sizes[0])}
	w.order = check.NewOrder(w.hists)
	for i, n := range w.nodes {
		n.stop()
		w.nodes[i] = newNode(w, i, n.name)
		w.nodes[i].start()
	}
	return w
}

// aroundPages is a place near the beginning of a page: one of the two extents before
// it, or of those after it.
func (w *World) aroundPages() int64 {
	const step = 2 << 20
	page := int64(w.rng.IntN(3))
	return max(page*pageSpan+int64(w.rng.IntN(8)-4)*step, 0)
}
