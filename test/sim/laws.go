package sim

import (
	"fmt"
	"math"
	"slices"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/test/check"
)

// laws looks at everything that must hold between two events.
func (w *World) laws() {
	if w.err != nil {
		return
	}
	if w.nodes[0].holdsPen() && w.nodes[1].holdsPen() {
		w.fail(fmt.Errorf("pen law: both nodes hold the pen"))
	}
	switch w.rng.IntN(24) {
	case 0, 1:
		w.compare()
	case 6:
		if w.grows {
			w.showsWell()
		}
	case 2:
		w.marks()
	case 3, 4, 5:
		for _, n := range w.nodes {
			if n.up {
				v := n.eng.View()
				w.judge(n.fence.Says(v.Seen, v.Record.Token))
			}
		}
	}
}

// apart: what is answered and the peer's copy lacks is in a generation which that
// copy never had. Were it promoted by force now, and written, the two would be
// found to have diverged, not one to be an older state of the other.
func (w *World) apart(r *block.Request, q *request) {
	for _, n := range w.nodes {
		w.apartFrom(n, r, q)
	}
}

func (w *World) apartFrom(n *node, r *block.Request, q *request) {
	p, lacks := n.peer(), false
	for s := int(r.Offset / block.SectorBytes); s < int(r.End()/block.SectorBytes); s++ {
		lacks = lacks || w.hists[q.vol].Check(s, p.vols[q.vol].disk.at(s)) != nil
	}
	if p.bad && (w.record.Primary != p.name || p == q.node && q.here) {
		return // a disk that failed a flush may have lost what it had answered
	}
	if !lacks || p.lost || slices.Contains(w.record.InSync, p.name) {
		return // a cache that was lost may have held what was answered by both
	}
	mine, theirs := n.vols[q.vol].super.Gen, p.vols[q.vol].super.Gen
	switch v := genid.Compare(mine, theirs.Mint(1<<40)); v {
	case genid.SplitBrain, genid.SplitBrainFull, genid.Unrelated:
	default:
		w.fail(fmt.Errorf("%s is answered by %s alone, and its generations %s against %s of %s, forced, would say %s", r, n.name, mine, theirs, p.name, v))
	}
}

// quiet: both copies say they are equal and nothing is on its way.
func (w *World) quiet() bool {
	for _, n := range w.nodes {
		if !n.up || len(n.pending) > 0 || n.session == 0 || n.session != w.alive || w.doomed || len(w.queue[n.i]) > 0 {
			return false
		}
		if n.eng.Replication() != state.Established {
			return false
		}
		v := n.eng.View()
		if v.InFlight > 0 || v.Excluding || n.broken() {
			return false
		}
	}
	return len(w.record.InSync) == 2 && w.oneSize()
}

func (w *World) copies(i int) (a, b *check.Copy) {
	return w.nodes[0].copy(i), w.nodes[1].copy(i)
}

func (n *node) copy(i int) *check.Copy {
	v, end := n.vols[i], int64(math.MaxInt64)
	if n.w.troubles["cut"] > 0 { // what lies behind the smaller size is not of the volume any more
		end = min(v.size, n.peer().vols[i].size)
	}
	return &check.Copy{Name: n.name, At: func(s int) check.Version {
		if int64(s)*block.SectorBytes >= end {
			return 0
		}
		return v.disk.at(s)
	}}
}

// compare: copies that say they are equal are equal.
func (w *World) compare() {
	if w.rotted != nil || !w.quiet() {
		return
	}
	for i := range w.sizes {
		a, b := w.copies(i)
		w.judge(check.Equal(w.hists[i].Touched(), a, b))
	}
	if w.grows {
		clear(w.cuts)
		w.newAlike(false)
	}
	for _, n := range w.nodes {
		if !n.eng.View().Suspect {
			n.crashed, n.lost, n.bad = false, false, false
		}
	}
}

// marks: what differs is marked on stable storage.
func (w *World) marks() {
	if w.rotted != nil {
		return
	}
	for _, n := range w.nodes {
		for _, v := range n.vols {
			if slices.Contains(w.record.InSync, n.name) && !n.bad && !n.forced {
				w.judge(check.InSet(n.name, v.super.Disk == state.Inconsistent))
			}
		}
	}
	for i := range w.sizes {
		a, b := w.copies(i)
		a.Marked, b.Marked = w.nodes[0].marked(i), w.nodes[1].marked(i)
		a.Whole = w.whole(i)
		if err := check.Marks(w.hists[i].Touched(), a, b); err != nil {
			w.fail(fmt.Errorf("volume %d: %w", i, err))
		}
	}
}

// marked says what a restart would find dirty.
func (n *node) marked(i int) func(sector int) bool {
	v := n.vols[i]
	bits := v.bitmap()
	var hot []uint32
	if !v.super.Clean {
		var err error
		hot, err = actlog.Hotset(v.transactions(), n.w.slots)
		n.w.judge(err)
	}
	return func(sector int) bool {
		return slices.Contains(hot, extent(sector)) || bits.Any(int64(sector)*block.SectorBytes, block.SectorBytes)
	}
}

// whole: a full resync is due, whatever the bitmaps say.
func (w *World) whole(i int) bool {
	a, b := &w.nodes[0].vols[i].super, &w.nodes[1].vols[i].super
	switch genid.Compare(a.Gen, b.Gen) {
	case genid.Equal, genid.SourceBitmap, genid.TargetBitmap:
		return a.FullSync || b.FullSync
	default: // no bitmap leads from one to the other
		return true
	}
}

// settled: one Primary with a lease, both copies in sync, everything answered.
func (w *World) settled() bool {
	return w.quiet() && len(w.inflight) == 0 && (w.nodes[0].holdsPen() || w.nodes[1].holdsPen())
}

func (w *World) checkCopy(n *node, when string) {
	if err := w.lacking(n); err != nil {
		w.fail(fmt.Errorf("%s %s, %w", n.name, when, err))
	}
}

// lacking is what a copy has not that counts, nil when it has all. Disks that a node
// had once may have all the same.
func (w *World) lacking(n *node) error {
	for i := range n.vols {
		for _, s := range w.hists[i].Touched() {
			if err := w.hists[i].Check(s, n.holds(i, s)); err != nil {
				return fmt.Errorf("volume %d: %w", i, err)
			}
		}
	}
	return nil
}

func (w *World) final() {
	w.compare()
	if w.grows {
		w.newAlike(true)
	}
	w.marks()
	for _, n := range w.nodes {
		w.checkCopy(n, "at the end")
		for i, v := range n.vols {
			for s := range w.hists[i].Sectors() {
				if v.disk.at(s) != 0 && !slices.Contains(w.hists[i].Touched(), s) {
					w.fail(fmt.Errorf("%s, volume %d: sector %d was never written and holds %d", n.name, i, s, v.disk.at(s)))
				}
			}
		}
	}
}
