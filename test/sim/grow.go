package sim

import (
	"fmt"
	"maps"
	"slices"

	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/engine"
	"hapair/test/check"
)

// Grow is a world in which operators enlarge disks and make volumes larger, at bad
// moments. What lies behind a volume is what somebody else left there, another
// thing on each node.
//
// A volume never shows less than it did, unless an operator made it smaller, nor
// more than a copy in the set can hold; what it shows for the first time is the same
// on both copies. Where a shrink came to its end on one of them only, the volume may
// be found with either size, until the two have met.

// growMax is what a disk may be enlarged by.
const growMax = 8 << 20

// junk is the first of the versions that nobody wrote; it reads as zero, which a
// law may not care about.
const junk check.Version = 1 << 40

// moved is the first of those of metadata that were laid into what a volume lost.
const moved = junk + 2

// behindAll: a version is of what lay behind the volumes, of either node. What rots,
// and what memory holds that is used again, are others.
func behindAll(v check.Version) bool { return v >= junk && v < moved+2 }

// NewGrow makes the world of a seed; in every third the disks hang as well.
func NewGrow(seed uint64, keepLog bool) *World {
	make := New
	if seed%3 == 0 {
		make = NewHang
	}
	w := make(seed, keepLog)
	w.every, w.mends = 2*w.every, w.mends/2 // the copies have to be in line for a while
	w.roomy()
	return w
}

// roomy gives a world disks with something behind the volumes.
func (w *World) roomy() {
	w.grows, w.blank, w.shown = true, map[rotten]check.Version{}, append([]int64(nil), w.sizes...)
	w.cuts = make([]int64, len(w.sizes))
	for i, size := range w.sizes {
		w.hists[i] = check.NewHistory(size + growMax)
	}
	for _, n := range w.nodes {
		n.stop()
		for i, v := range n.vols {
			v.disk, n.room[i] = n.newDisk(i), v.size
		}
		n.start()
	}
}

// newDisk is a disk for a volume, blank as far as the world knows disks.
func (n *node) newDisk(i int) *disk {
	if !n.w.grows {
		return newDisk(n.vols[i].size)
	}
	d := newDisk(n.w.sizes[i] + growMax)
	for s := range d.stable {
		if int64(s)*block.SectorBytes >= n.w.sizes[i] {
			d.stable[s] = junk + check.Version(n.i)
		}
	}
	return d
}

// growTrouble is what may come between any two steps.
func (w *World) growTrouble() {
	n := w.nodes[w.rng.IntN(2)]
	i := w.rng.IntN(len(w.sizes))
	switch {
	case w.one(150) && w.happens("enlarge"):
		by := int64(1+w.rng.IntN(6000)) * block.SectorBytes
		for _, n := range w.nodes {
			if w.one(4) {
				continue // somebody forgets one of them
			}
			n.room[i] = min(n.room[i]+by, w.sizes[i]+growMax)
			w.logf("%s: the disk of volume %d has %d bytes", n.name, i, n.room[i])
		}
	case n.up && !n.paused && w.one(60) && w.happens("resize"):
		n.resize(i)
	case n.up && !n.paused && w.now < w.downUntil && n.vols[i].size > w.sizes[i] && w.one(10) && w.happens("shrink"):
		n.shrink(i)
	}
}

// resize orders one: as large as can be, or to some size, which may be too large.
func (n *node) resize(i int) {
	o := engine.ResizeOrder{Volume: i, Alone: n.peer().room[i] >= n.room[i] && n.w.one(2)}
	if now := n.vols[i].size; n.w.one(3) {
		o.Size = now + n.w.rng.Int64N(growMax/4)/block.SectorBytes*block.SectorBytes
	}
	if o.Alone { // who asks for that has looked there, and says how much: disks are enlarged at any time
		o.Size = min(max(o.Size, n.room[i]), n.peer().room[i])
	}
	n.w.logf("%s: resize %+v", n.name, o)
	n.step(&engine.Event{Kind: engine.Resize, Resize: o})
}

// shrink orders a smaller size, not below the one that the volume began with.
func (n *node) shrink(i int) {
	now, least := n.vols[i].size, n.w.sizes[i]
	o := engine.ResizeOrder{Volume: i, Cut: true, Seen: n.eng.View().Seen}
	o.Size = now - (1+n.w.rng.Int64N((now-least)/block.SectorBytes))*block.SectorBytes
	n.w.logf("%s: resize %+v", n.name, o)
	n.step(&engine.Event{Kind: engine.Resize, Resize: o})
}

// ceiling is what a volume may be cut to: the metadata of the first one are internal,
// and move into what is cut off.
func (n *node) ceiling(vol int) int64 {
	if vol > 0 {
		return n.vols[vol].size
	}
	return n.vols[vol].size - 8*block.SectorBytes
}

// remake makes the metadata of a volume anew, and what its disk was asked before
// durable.
func (n *node) remake(f *engine.Effect) {
	v, super, size := n.vols[f.Volume], *f.Super, f.Size
	log, bits := f.Log, f.Bitmap
	if size < v.size {
		n.w.cutOff(n, f.Volume, size)
		n.layOver(f.Volume, size)
	}
	n.meta("remake", func(bool) {
		v.disk.flush()
		v.lay(size, super)
		for _, tx := range log {
			v.ring[tx.Number%uint64(len(log))] = tx
		}
		for p := range bits.Pages() {
			v.pages[p] = bits.Page(p, nil)
		}
	}, engine.Event{Kind: engine.SizeFitted, Volume: f.Volume})
}

// layOver has metadata lie in what a volume loses, from its first whole block on, at
// once, where they are internal.
func (n *node) layOver(vol int, size int64) {
	v, top := n.vols[vol], n.ceiling(vol)
	first := (size + dirty.BlockBytes - 1) / dirty.BlockBytes * dirty.BlockBytes / block.SectorBytes
	switch {
	case size > top:
		n.w.fail(fmt.Errorf("%s: the metadata of volume %d, of %d bytes, move over themselves for %d", n.name, vol, v.size, size))
	case top < v.size:
		for s := first; s < min(first+dirty.BlockBytes/block.SectorBytes, v.size/block.SectorBytes); s++ {
			v.disk.stable[s] = moved + check.Version(n.i)
		}
	}
}

// cutOff: from now on the volume may be found smaller, and what lay behind may be gone.
// Whoever shows more has shown nothing of it before it has answered something, and goes on
// with more only when the ledger does not count this copy any more.
func (w *World) cutOff(cut *node, i int, size int64) {
	for _, n := range w.nodes {
		if n.holdsPen() && n.answers && n.eng.View().Volumes[i].SizeBytes > size && slices.Contains(w.record.InSync, cut.name) {
			w.fail(fmt.Errorf("volume %d is made smaller while %s is Primary and shows more", i, n.name))
		}
	}
	first := int(size / block.SectorBytes)
	w.hists[i].Cut(first)
	w.order.Cut(i, first)
	w.cuts[i], w.shown[i] = size, min(w.shown[i], size)
	maps.DeleteFunc(w.blank, func(at rotten, _ check.Version) bool { return at.vol == i && at.sector >= first })
	w.troubles["cut"]++
}

// halfCut: a sector may be found cut off, or not.
func (w *World) halfCut(vol, sector int) bool {
	return w.cuts[vol] > 0 && int64(sector)*block.SectorBytes >= w.cuts[vol]
}

// behind: a request zeroes what is not of the volume, nor will be before it ends.
func (n *node) behind(v *volume, r *block.Request) bool {
	return n.w.grows && r.Op == block.WriteZeroes && r.Offset >= v.size
}

// showsOnce: what is new in a volume, and nobody has written, does not change when it
// has been shown, whatever it is.
func (w *World) showsOnce(n *node, r *block.Request, vol, sector int, found check.Version) {
	if !w.grows || w.rotted != nil || int64(sector)*block.SectorBytes < w.sizes[vol] || slices.Contains(w.hists[vol].Touched(), sector) {
		return
	}
	if w.halfCut(vol, sector) {
		return
	}
	at := rotten{vol, sector}
	if was, ok := w.blank[at]; ok && was != found {
		w.fail(fmt.Errorf("%s answers %s: sector %d, which is new and was never written, held %d and now %d", n.name, r, sector, was, found))
	}
	w.blank[at] = found
}

// sizes: what is shown can be held, and never becomes less.
func (w *World) showsWell() {
	for _, p := range w.nodes {
		if !p.holdsPen() || !p.answers { // see cutOff
			continue
		}
		for i, v := range p.eng.View().Volumes {
			if v.SizeBytes < w.shown[i] && v.SizeBytes == w.cuts[i] {
				w.shown[i] = v.SizeBytes
			}
			if v.SizeBytes < w.shown[i] {
				w.fail(fmt.Errorf("%s shows %d bytes of volume %d, %d were shown", p.name, v.SizeBytes, i, w.shown[i]))
			}
			w.shown[i] = max(w.shown[i], v.SizeBytes)
			for _, n := range w.nodes {
				if slices.Contains(w.record.InSync, n.name) && !n.bad && max(n.vols[i].size, n.room[i]) < v.SizeBytes {
					w.fail(fmt.Errorf("%s shows %d bytes of volume %d, %s, in the set, has room for %d", p.name, v.SizeBytes, i, n.name, n.room[i]))
				}
			}
		}
	}
}

// newAlike: what was behind a volume once is the same on both copies, when they
// say that they are equal, whoever wrote it.
func (w *World) newAlike(all bool) {
	for i, from := range w.sizes {
		a, b := w.nodes[0].vols[i], w.nodes[1].vols[i]
		first, n := int(from/block.SectorBytes), int((a.size-from)/block.SectorBytes)
		for k := range n {
			if !all && !w.one(max(n/64, 1)) {
				continue
			}
			if x, y := a.disk.raw(first+k), b.disk.raw(first+k); x != y {
				w.fail(fmt.Errorf("volume %d, sector %d, which is new: %d and %d", i, first+k, x, y))
				return
			}
		}
	}
}

// oneSize: the copies of each volume have one size. Where a resize has ended between
// the two they have two, and the session is about to end for it.
func (w *World) oneSize() bool {
	for i, v := range w.nodes[0].vols {
		if w.grows && v.size != w.nodes[1].vols[i].size {
			return false
		}
	}
	return true
}

// resized: how often one came to its end is told with the trouble.
func (w *World) resized(n *node, err error) {
	w.logf("%s: resize: %v", n.name, err)
	if err == nil {
		w.troubles["resized"]++
	}
}
