package check

import (
	"fmt"
	"maps"
)

// Order is what holds across the volumes of a resource, as for one disk: a copy
// that takes over and has a write has everything that had been answered before
// that write was submitted, on whichever volume. Of a copy that lost its cache
// that is said only of what a flush, or FUA, had covered that was answered before. So a
// log on one volume is never behind the data on another.
type Order struct {
	hists []*History
	clock int64 // counts submissions and answers
	vols  []ordered
}

type ordered struct {
	submitted map[Version]int64
	answered  map[int][]stamped // by sector, oldest first
	flushed   map[int][]stamped
	zeroed    map[int]Version // by sector: the latest zeroing that was submitted
}

type stamped struct {
	version Version
	at      int64
}

// NewOrder judges by the histories of all volumes of a resource.
func NewOrder(hists []*History) *Order {
	o := &Order{hists: hists, vols: make([]ordered, len(hists))}
	for i := range o.vols {
		o.vols[i].zeroed = map[int]Version{}
	}
	o.Forget()
	return o
}

// Forget begins anew: a loss was accepted, and what came before it proves nothing.
func (o *Order) Forget() {
	for i := range o.vols {
		o.vols[i] = ordered{map[Version]int64{}, map[int][]stamped{}, map[int][]stamped{}, o.vols[i].zeroed}
	}
}

// On begins anew with other histories of the same volumes, whose versions go on from
// those of before.
func (o *Order) On(hists []*History) *Order {
	o.Forget()
	return &Order{hists: hists, clock: o.clock, vols: o.vols}
}

// Cut records that a volume was told to end before a sector, as the History of it
// does: nothing is promised of what lies behind any more.
func (o *Order) Cut(volume, first int) {
	of := &o.vols[volume]
	behind := func(sector int, _ []stamped) bool { return sector >= first }
	maps.DeleteFunc(of.answered, behind)
	maps.DeleteFunc(of.flushed, behind)
}

// Submit records that a write was submitted, after the History of its volume has.
func (o *Order) Submit(volume int, v Version) {
	o.clock++
	o.vols[volume].submitted[v] = o.clock
	if s := o.hists[volume].open[v]; s.zero {
		for i := s.first; i < s.first+s.n; i++ {
			o.vols[volume].zeroed[i] = v
		}
	}
}

// Acked records that a write was answered; fua: it asked to be on stable storage.
func (o *Order) Acked(volume int, v Version, fua bool) {
	o.clock++
	s, of := o.hists[volume].open[v], &o.vols[volume]
	for i := s.first; i < s.first+s.n; i++ {
		of.answered[i] = append(of.answered[i], stamped{v, o.clock})
		if fua {
			of.flushed[i] = append(of.flushed[i], stamped{v, o.clock})
		}
	}
}

// Flushed records that a flush of a volume, submitted when before was the
// snapshot of its History, was answered.
func (o *Order) Flushed(volume int, before []Version) {
	o.clock++
	for n, v := range before {
		i := o.hists[volume].touched[n]
		was := o.vols[volume].flushed[i]
		if v > 0 && (len(was) == 0 || was[len(was)-1].version < v) {
			o.vols[volume].flushed[i] = append(was, stamped{v, o.clock})
		}
	}
}

// Survives judges a copy that takes over. Found is what it has; whole says that it
// lost no cache.
func (o *Order) Survives(found func(volume, sector int) Version, whole bool) error {
	var last stamped
	lastVolume, lastSector := 0, 0
	for i, h := range o.hists {
		for _, s := range h.touched {
			v := found(i, s)
			if at := o.vols[i].submitted[v]; v != 0 && at > last.at {
				last, lastVolume, lastSector = stamped{v, at}, i, s
			}
		}
	}
	for i, h := range o.hists {
		for _, s := range h.touched {
			if v, want := found(i, s), o.vols[i].before(s, last.at, whole); v < want && !(v == 0 && (h.zero(want) || o.vols[i].zeroed[s] > want)) {
				return fmt.Errorf("write order: sector %d of volume %d holds version %d, and version %d was answered (whole %v) before version %d of volume %d was submitted, which is there in sector %d",
					s, i, v, want, whole, last.version, lastVolume, lastSector)
			}
		}
	}
	return nil
}

// before is the latest version of a sector that counted before an instant.
func (v *ordered) before(sector int, at int64, whole bool) (last Version) {
	from := v.flushed[sector]
	if whole {
		from = v.answered[sector]
	}
	for _, s := range from {
		if s.at < at {
			last = max(last, s.version)
		}
	}
	return last
}
