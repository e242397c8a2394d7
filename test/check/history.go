// Package check judges what a run did against the laws of docs/safety.md. It
// is told what was submitted, answered, flushed and found, and knows nothing
// of how the mirror works.
package check

import (
	"fmt"
	"maps"
	"slices"
)

// SectorBytes is the unit of the history: the smallest write there is.
const SectorBytes = 512

// Version names the write that put a sector's contents there: submissions are
// numbered from 1 in the order they were made; 0 is a sector never written.
type Version uint64

// History is the ack law as a register per sector: what an application was
// told must be found again. Overlapping writes are submitted one after the
// other by one writer, so a later version is a later write.
type History struct {
	sectors []register
	touched []int // sectors that a write was ever submitted for, in order of appearance
	next    Version
	open    map[Version]span
	byOne   bool // a flush is answered by one copy: it may be lost with it
}

type span struct {
	first, n int
	zero     bool
}

// register is one sector: the last answered write, the last one known to be
// flushed, and the writes whose outcome nobody was told.
type register struct {
	acked   Version
	flushed Version
	maybe   []Version
	past    []Version // up to acked, not before flushed: what a double failure may bring back
	sure    []Version // of past and acked: those that were answered, or shown by a read
	touched bool
	free    bool // it was cut off: until it is written again anything may be there
}

// NewHistory is the history of a volume of so many bytes, all zero.
func NewHistory(sizeBytes int64) *History {
	return &History{sectors: make([]register, sizeBytes/SectorBytes), open: map[Version]span{}}
}

// Submit records a write (or a zeroing, whose contents read as version 0 but
// count as a write) and returns its version.
func (h *History) Submit(offset, length int64, zero bool) Version {
	h.next++
	s := span{int(offset / SectorBytes), int(length / SectorBytes), zero}
	h.open[h.next] = s
	for i := s.first; i < s.first+s.n; i++ {
		r := &h.sectors[i]
		r.maybe = append(r.maybe, h.next)
		if !r.touched {
			r.touched = true
			h.touched = append(h.touched, i)
		}
	}
	return h.next
}

// Touched lists the sectors that a write was ever submitted for; all others
// must be zero. It must not be changed, and grows with the next Submit.
func (h *History) Touched() []int { return h.touched }

// Sectors is the size of the volume.
func (h *History) Sectors() int { return len(h.sectors) }

// Acked records that a write was answered with success.
func (h *History) Acked(v Version) {
	s := h.open[v]
	for i := s.first; i < s.first+s.n; i++ {
		r := &h.sectors[i]
		r.acked, r.free = v, false
		r.sure = append(r.sure, v)
		for _, m := range r.maybe {
			if m <= v {
				r.past = append(r.past, m)
			}
		}
		r.maybe = slices.DeleteFunc(r.maybe, func(m Version) bool { return m <= v })
	}
}

// Cut records that the volume was told to end before a sector: nothing is promised
// of what lies behind any more.
func (h *History) Cut(first int) {
	for i := first; i < len(h.sectors); i++ {
		r := &h.sectors[i]
		*r = register{touched: r.touched, free: true}
	}
}

// Last is the latest version submitted.
func (h *History) Last() Version { return h.next }

// Seen records what a read was answered with: nobody may take it back, unless
// it is of a write later than last.
func (h *History) Seen(sector int, found, last Version) error {
	if err := h.Check(sector, found); err != nil {
		return err
	}
	r := &h.sectors[sector]
	if h.matches(found, r.acked) {
		return nil
	}
	for i, m := range r.maybe {
		if m > r.acked && m <= last && h.matches(found, m) {
			r.acked = m
			r.sure = append(r.sure, m)
			r.past = append(r.past, r.maybe[:i+1]...)
			r.maybe = slices.Delete(r.maybe, 0, i+1)
			break
		}
	}
	return nil
}

// Flushed records that a flush, submitted when before was the snapshot, was
// answered with success.
func (h *History) Flushed(before []Version) {
	for n, v := range before {
		r := &h.sectors[h.touched[n]]
		r.flushed = max(r.flushed, v)
		if !h.byOne {
			r.past = slices.DeleteFunc(r.past, func(m Version) bool { return m < r.flushed })
			r.sure = slices.DeleteFunc(r.sure, func(m Version) bool { return m < r.flushed })
		}
	}
}

// Snapshot returns what a flush submitted now has to cover, in the order of
// Touched.
func (h *History) Snapshot() []Version {
	s := make([]Version, len(h.touched))
	for n, i := range h.touched {
		s[n] = h.sectors[i].acked
	}
	return s
}

// zero reports whether v was a zeroing.
func (h *History) zero(v Version) bool { return v == 0 || h.open[v].zero }

// matches reports whether contents found can be those of write v.
func (h *History) matches(found, v Version) bool {
	if h.zero(v) {
		return found == 0
	}
	return found == v
}

// Check says whether found may be in a sector: the last answered write, or one
// that nobody was told about after it.
func (h *History) Check(sector int, found Version) error {
	r := &h.sectors[sector]
	if r.free || h.matches(found, r.acked) {
		return nil
	}
	for _, m := range r.maybe {
		if m > r.acked && h.matches(found, m) {
			return nil
		}
	}
	return fmt.Errorf("ack law: sector %d holds version %d; answered was %d, undecided %v, flushed %d", sector, found, r.acked, r.maybe, r.flushed)
}

// Rebase accepts the loss of what was answered and never flushed, after a
// double failure that no mirror of two can survive: contents must still be the
// last flushed write or a later one. What is found becomes what is answered;
// what was answered after it is undecided, for the other copy may still have it.
func (h *History) Rebase(sector int, found Version) error {
	if h.Check(sector, found) == nil {
		return nil
	}
	at, err := h.since(sector, found)
	if err != nil {
		return err
	}
	r := &h.sectors[sector]
	for _, m := range r.past {
		if m > at {
			r.maybe = append(r.maybe, m)
		}
	}
	later := func(m Version) bool { return m > at }
	r.past, r.sure = slices.DeleteFunc(r.past, later), append(slices.DeleteFunc(r.sure, later), at)
	r.acked = at
	return nil
}

// since is which write found is of, which must not be one that a flush has covered
// and replaced.
func (h *History) since(sector int, found Version) (Version, error) {
	r := &h.sectors[sector]
	if h.matches(found, r.flushed) {
		return r.flushed, nil
	}
	if found >= r.flushed {
		return found, nil
	}
	zeroing := slices.IndexFunc(r.past, func(m Version) bool { return m >= r.flushed && found == 0 && h.zero(m) }) // reads the same
	if zeroing < 0 {
		return 0, fmt.Errorf("flush lost: sector %d holds version %d, flushed was %d, answered %d", sector, found, r.flushed, r.acked)
	}
	return r.past[zeroing], nil
}

// Durable says whether found may be in a sector after everybody has lost power:
// what was flushed last, or anything later.
func (h *History) Durable(sector int, found Version) error {
	if h.Check(sector, found) == nil {
		return nil
	}
	if s := h.open[found]; found != 0 && (sector < s.first || sector >= s.first+s.n) {
		return fmt.Errorf("sector %d holds version %d, which was written elsewhere", sector, found)
	}
	_, err := h.since(sector, found)
	return err
}

// FlushedByOne is for a history in which a flush says nothing of the other copy
// (protocol A).
func (h *History) FlushedByOne() { h.byOne = true }

// Lose accepts that a copy without the writes of lost takes over: what was
// answered is the latest of the others that were. Those of lost are undecided, for the
// copy that has them may still be the one that counts, and so are those that nobody was
// told about. Other says that the flushes
// were another copy's: then durable is what this one has on stable storage.
func (h *History) Lose(lost map[Version]bool, other bool, durable func(sector int) Version) {
	for _, i := range h.touched {
		r := &h.sectors[i]
		kept := Version(0)
		var gone []Version
		for _, m := range append(r.past, r.acked) {
			if !lost[m] && slices.Contains(r.sure, m) {
				kept = max(kept, m)
			} else if m != 0 && !slices.Contains(gone, m) {
				gone = append(gone, m)
			}
		}
		if lost[r.acked] {
			r.acked = kept
			later := func(m Version) bool { return m > kept }
			r.past, r.sure = slices.DeleteFunc(r.past, later), slices.DeleteFunc(r.sure, later)
			for _, m := range gone {
				if m > kept && !slices.Contains(r.maybe, m) {
					r.maybe = append(r.maybe, m)
				}
			}
			slices.Sort(r.maybe)
		}
		if other && r.flushed > 0 && !h.matches(durable(i), r.flushed) {
			r.flushed = 0
		}
		r.flushed = min(r.flushed, r.acked)
	}
}

// Fork is the history of a copy that is to count from now on with what is found there,
// whatever was answered before. Versions go on from those of h.
func (h *History) Fork(found func(sector int) Version) *History {
	f := &History{sectors: make([]register, len(h.sectors)), touched: slices.Clone(h.touched), next: h.next, open: maps.Clone(h.open), byOne: h.byOne}
	for _, i := range f.touched {
		v := found(i)
		f.sectors[i] = register{acked: v, past: []Version{v}, sure: []Version{v}, touched: true}
	}
	return f
}

// After has the versions of h go on from those of another history of the volume.
func (h *History) After(other *History) {
	h.next = max(h.next, other.next)
	for v, s := range other.open {
		h.open[v] = s
	}
}
