package engine

import (
	"fmt"
	"slices"

	"hapair/mirror/actlog"
	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// judgeGeometry: volumes are alike, or a copy that holds nothing can be made so.
func judgeGeometry(mine, theirs *wire.HelloBody) decision {
	if len(mine.Volumes) != len(theirs.Volumes) {
		return refusal(wire.BadGeometry, "%s has %d volumes, %s has %d", mine.Node, len(mine.Volumes), theirs.Node, len(theirs.Volumes))
	}
	d := decision{sizes: make([]int64, len(mine.Volumes))}
	for i := range mine.Volumes {
		a, b := &mine.Volumes[i], &theirs.Volumes[i]
		switch {
		case a.Number != b.Number:
			return refusal(wire.BadGeometry, "%s has volume %d where %s has volume %d", mine.Node, a.Number, theirs.Node, b.Number)
		case a.LogicalBlockBytes != b.LogicalBlockBytes:
			return refusal(wire.BadGeometry, "volume %d has logical blocks of %d bytes on %s and of %d bytes on %s; both disks need the same",
				a.Number, a.LogicalBlockBytes, mine.Node, b.LogicalBlockBytes, theirs.Node)
		case a.SizeBytes == b.SizeBytes:
			continue
		}
		larger, other, smaller := mine, theirs, b
		if a.SizeBytes < b.SizeBytes {
			larger, other, smaller = theirs, mine, a
		}
		if !smaller.Disk.HasData() && larger.Features&other.Features&wire.FeatureResize != 0 {
			continue // when it has a disk again, it follows
		}
		if !holdsNothing(larger, other, i) {
			if !mayFollow(larger, other, i) {
				return refusal(wire.BadGeometry, "%s", unequal(larger, other, i))
			}
			d.follow(larger, other, mine, i)
			continue
		}
		d.action, d.why = actFit, fmt.Sprintf("volume %d of %s holds nothing yet and has %d bytes, %s has %d",
			a.Number, larger.Node, larger.Volumes[i].SizeBytes, other.Node, smaller.SizeBytes)
		if larger == mine {
			d.sizes[i] = smaller.SizeBytes
		}
	}
	return d
}

// holdsNothing reports whether a copy can be cut without losing anything: it
// was just created; or the operator declared a new pair equal, and neither side
// was ever Primary.
func holdsNothing(h, other *wire.HelloBody, i int) bool {
	a, b := &h.Volumes[i], &other.Volumes[i]
	declared := a.AssumeClean && b.AssumeClean && !h.LastPrimary && !other.LastPrimary && h.Record.Token == 0 && other.Record.Token == 0
	return h.Role == state.Secondary && (genid.ID(a.Gen[0]) == genid.JustCreated || declared)
}

// mayFollow: a resize ended when only one copy had grown; the other one, which has
// its disk, can, and they are copies of one volume.
func mayFollow(larger, smaller *wire.HelloBody, i int) bool {
	a, b := &larger.Volumes[i], &smaller.Volumes[i]
	if larger.Features&smaller.Features&wire.FeatureResize == 0 || a.SizeBytes > b.RoomBytes || a.SizeBytes < b.FloorBytes {
		return false
	}
	_, d := judgeGenerations(larger, smaller)
	return d.refuse == nil
}

// follow has the smaller copy take the size of the larger.
func (d *decision) follow(larger, smaller, mine *wire.HelloBody, i int) {
	a, b := &larger.Volumes[i], &smaller.Volumes[i]
	d.action, d.why = actFit, fmt.Sprintf("volume %d of %s has %d bytes and can have the %d of %s", b.Number, smaller.Node, b.SizeBytes, a.SizeBytes, larger.Node)
	if smaller == mine {
		d.sizes[i], d.grows = a.SizeBytes, true
	}
}

// unequal says what to do about a larger copy that cannot be cut.
func unequal(larger, other *wire.HelloBody, i int) string {
	a, b := &larger.Volumes[i], &other.Volumes[i]
	text := fmt.Sprintf("volume %d has %d bytes on %s and %d bytes on %s", a.Number, a.SizeBytes, larger.Node, b.SizeBytes, other.Node)
	if genid.ID(b.Gen[0]) == genid.JustCreated {
		return text + ", whose copy is new: it needs a disk that offers as much"
	}
	if larger.Features&other.Features&wire.FeatureResize != 0 && a.SizeBytes > b.RoomBytes {
		return text + fmt.Sprintf(", where the disk offers %d: enlarge that, and it follows", b.RoomBytes)
	}
	return text + fmt.Sprintf("; a copy is fitted to the other only while it is new: if %s may lose what it has, run hactl create-metadata there", larger.Node)
}

// fit has the copies laid out anew whose size is not the peer's. No session
// lasts through it: the next one says the new sizes. What a copy that grows has
// more is out of sync.
func (e *Engine) fit(d *decision) {
	e.session.phase = agreed
	e.established()
	if !slices.ContainsFunc(d.sizes, func(n int64) bool { return n > 0 }) {
		return
	}
	why := errFitting
	if d.grows {
		why = errGrowing
	}
	e.dropSession(why)
	for i, v := range e.vols {
		busy := v.super.inFlight || v.page.inFlight || v.activity.inFlight
		if d.sizes[i] > 0 && (v.zeroing || busy && d.sizes[i] < v.geo.SizeBytes) {
			return // again, when that has ended
		}
	}
	for i, v := range e.vols {
		switch size := d.sizes[i]; {
		case size == 0:
		case size > v.geo.SizeBytes:
			e.remake(v, size, true)
		default:
			v.fitTo, v.fresh = size, true
			e.emit(Effect{Kind: FitSize, Volume: v.index, Size: v.fitTo, Super: e.super(v)})
		}
	}
}

// fitting reports whether the metadata of a volume are being laid out anew.
func (e *Engine) fitting() bool {
	for _, v := range e.vols {
		if v.fitTo > 0 {
			return true
		}
	}
	return false
}

func (e *Engine) sizeFitted(v *volume, err error) {
	if !v.fresh {
		e.remade(v, err)
		return
	}
	size, was := v.fitTo, v.geo.SizeBytes
	v.fitTo, v.fresh = 0, false
	if err != nil {
		e.diskFailed(v, err)
		return
	}
	v.geo.SizeBytes, v.bits, v.al, v.page.urgent = size, dirty.New(size), actlog.New(v.al.Slots()), nil
	e.note(fmt.Sprintf("volume %d takes the size of %s: was %d bytes, now %d", v.num, e.peer, was, size))
	e.tryHello()
	e.controlProgress()
}
