package replay

import (
	"math/rand/v2"
	"slices"

	"hapair/mirror/block"
)

// Player plays a log, event by event, on disks of its own.
type Player struct {
	events []Event
	next   int
	disks  []*state
}

// state is a disk at one point of the log.
type state struct {
	size   int64
	stable map[int64][]byte // by sector; none: zeroes
	cache  []*pending       // may be lost, in the order in which it counts
}

// pending is a write that no flush has covered.
type pending struct {
	r        *Request
	finished bool
	gone     map[int64]bool // sectors that something durable has replaced since
}

// NewPlayer plays a log from its beginning. Images are what the disks held then,
// by number; none is zeroes.
func NewPlayer(l *Log, images map[int][]byte) *Player {
	p := &Player{events: l.Events()}
	for i, size := range l.disks {
		s := &state{size: size, stable: map[int64][]byte{}}
		image := images[i]
		for at := int64(0); at+block.SectorBytes <= int64(len(image)); at += block.SectorBytes {
			if b := image[at : at+block.SectorBytes]; slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
				s.stable[at/block.SectorBytes] = b
			}
		}
		p.disks = append(p.disks, s)
	}
	return p
}

// Step plays one event; false at the end.
func (p *Player) Step() bool {
	if p.next == len(p.events) {
		return false
	}
	e := &p.events[p.next]
	p.next++
	switch {
	case e.Request == nil:
		e.Note()
	case e.Finished:
		p.disks[e.Disk].finished(e.Request)
	default:
		p.disks[e.Disk].submitted(e.Request)
	}
	return true
}

// Position is how many events were played, and of how many.
func (p *Player) Position() (played, of int) { return p.next, len(p.events) }

func (s *state) submitted(r *Request) {
	if r.Op != block.Flush {
		s.cache = append(s.cache, &pending{r: r})
		return
	}
	r.covers = nil // of an earlier replay
	for _, w := range s.cache {
		if w.finished {
			r.covers = append(r.covers, w)
		}
	}
}

func (s *state) finished(r *Request) {
	if r.Op == block.Flush {
		for _, w := range r.covers {
			s.durable(w)
		}
		return
	}
	i := slices.IndexFunc(s.cache, func(w *pending) bool { return w.r == r })
	w := s.cache[i]
	w.finished = true
	s.cache = append(slices.Delete(s.cache, i, i+1), w) // a write counts from its end on
	if r.FUA {
		s.durable(w)
	}
}

// durable puts a write on stable storage. What earlier writes have left in the
// cache for these sectors is replaced.
func (s *state) durable(w *pending) {
	i := slices.Index(s.cache, w)
	if i < 0 {
		return // two flushes covered it
	}
	w.sectors(func(sector int64, data []byte) {
		if w.gone[sector] {
			return
		}
		s.stable[sector] = data
		for _, older := range s.cache[:i] {
			older.replace(sector)
		}
	})
	s.cache = slices.Delete(s.cache, i, i+1)
}

func (w *pending) replace(sector int64) {
	at := sector * block.SectorBytes
	if !w.finished || at < w.r.Offset || at >= w.r.Offset+w.r.Length {
		return // in flight it may land later
	}
	if w.gone == nil {
		w.gone = map[int64]bool{}
	}
	w.gone[sector] = true
}

// sectors calls fn with every sector that a write changes.
func (w *pending) sectors(fn func(sector int64, data []byte)) {
	for at := int64(0); at < w.r.Length; at += block.SectorBytes {
		data := zeroes[:]
		if w.r.Op == block.Write {
			data = w.r.Data[at : at+block.SectorBytes]
		}
		fn((w.r.Offset+at)/block.SectorBytes, data)
	}
}

var zeroes [block.SectorBytes]byte

// Loss says which of the pieces that a power cut may take are taken.
type Loss func() bool

// The two ends, and what lies between.
func LoseNothing() bool { return false }

// LoseEverything that was not flushed.
func LoseEverything() bool { return true }

// LoseAny of it, as the dice fall.
func LoseAny(rng *rand.Rand) Loss { return func() bool { return rng.IntN(2) == 0 } }

// LoseThese takes the pieces whose bit is set: for all losses there are.
func LoseThese(mask uint64) Loss {
	return func() bool {
		lost := mask&1 != 0
		mask >>= 1
		return lost
	}
}

// Pieces is how many pieces of disks a power cut may take or leave now.
func (p *Player) Pieces(disks ...int) (n int) {
	for _, d := range disks {
		for _, w := range p.disks[d].cache {
			first, last := w.r.Offset/AtomicBytes, (w.r.Offset+w.r.Length-1)/AtomicBytes
			n += int(last - first + 1)
		}
	}
	return n
}

// Cut is what a disk holds after a power cut at this point. A piece is what a
// disk writes at once; one loss is asked for each.
func (p *Player) Cut(disk int, lost Loss) *Image {
	s := p.disks[disk]
	m := &Image{size: s.size, stable: s.stable, over: map[int64][]byte{}}
	for _, w := range s.cache {
		piece, take := int64(-1), false
		w.sectors(func(sector int64, data []byte) {
			if at := sector * block.SectorBytes / AtomicBytes; at != piece {
				piece, take = at, !lost()
			}
			if take && !w.gone[sector] {
				m.over[sector] = data
			}
		})
	}
	return m
}
