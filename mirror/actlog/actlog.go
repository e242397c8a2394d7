// Package actlog is the activity log: the set of extents of 4 MiB that were
// written recently ("hot"). An extent must be durably hot before data reaches
// either disk; after a crash only hot extents and the bitmap need a resync.
// The package is pure: it builds transactions and leaves the writing to whoever
// holds it.
//
// # The ring
//
// Transaction n lies in block n mod R of a ring of R blocks. It holds at most
// MaxUpdates changes and the contents of C = min(ContextLen, slots) slots after
// them, beginning at slot n*C mod slots. So any L = ceil(slots/C) transactions
// in a row name every slot, and the youngest mention of each is the truth.
// A crash can tear the one block in flight, which costs the newest transaction
// (not durable, nothing depends on it) and the one it overwrote: R-1 in a row
// remain. RingBlocks is therefore L+1: for 6433 slots L = ceil(6433/900) = 8 and
// R = 9 blocks; for the largest log, 65534 slots, L = 73 and R = 74.
//
// A Log is not safe for concurrent use.
package actlog

import (
	"fmt"
	"math"
)

const (
	// ExtentBytes is what one slot stands for.
	ExtentBytes = 4 << 20
	// DefaultSlots is DRBD's largest usual log: 25 GiB may be hot at once.
	DefaultSlots = 6433
	// MinSlots and MaxSlots bound a log. Slot numbers take 16 bits on disk.
	MinSlots = 2
	MaxSlots = 65534
	// MaxUpdates is how many slots one transaction may change.
	MaxUpdates = 64
	// ContextLen is how many slots one transaction restates.
	ContextLen = 900
	// Free stands for no extent.
	Free = math.MaxUint32
)

// Heat is the answer to Acquire.
type Heat uint8

// The answers.
const (
	Cold Heat = iota // a transaction must be durable first
	Hot              // go ahead; every extent is referenced
)

// String returns the name of the answer.
func (h Heat) String() string {
	if h == Hot {
		return "Hot"
	}
	return "Cold"
}

// Update is the change of one slot.
type Update struct {
	Slot   uint16
	Extent uint32 // or Free
}

// Transaction is one block of the ring.
type Transaction struct {
	Number       uint64 // 1, 2, 3, …; it lies in block Number mod R of the ring
	Updates      []Update
	ContextStart int // slot that Context[0] describes; it wraps around at the last slot
	Context      []uint32
}

// RingBlocks is how many blocks a ring needs for a log of so many slots.
func RingBlocks(slots int) int {
	c := contextLen(slots)
	return (slots+c-1)/c + 1
}

func contextLen(slots int) int { return min(ContextLen, slots) }

// contextStart is n*C mod slots, without overflow.
func contextStart(number uint64, slots int) int {
	return int(number % uint64(slots) * uint64(contextLen(slots)) % uint64(slots))
}

// slot is one place of the log. Slots without references are on the idle list,
// from the least to the most recently used.
type slot struct {
	extent     uint32
	refs       int32
	prev, next int32  // on the idle list; none outside it
	seq        uint64 // flush that must be durable before the extent goes cold
	kept       uint64 // transaction that must not evict it
}

const none = -1

// group is the range of extents of one write. A transaction admits groups
// whole, first come first served, so that a write over two extents cannot lose
// one while it waits for the other.
type group struct{ first, last uint32 }

// Log is the activity log in memory.
type Log struct {
	slots []slot
	index map[uint32]int32 // extent to slot, of hot extents
	free  []int32          // slots that hold nothing
	idle  struct {
		oldest, newest int32
		count          int
	}

	wanted map[group]struct{}
	queue  []group // of wanted, in order of arrival

	number  uint64 // of the last transaction built
	flight  *flight
	aborted bool
}

// flight is the transaction being written.
type flight struct {
	number  uint64
	pending map[uint32]int32 // extent to slot, hot once it is durable
	evicted []Update         // what the slots held before
}

// New makes an empty log. It panics when slots is not in [MinSlots, MaxSlots].
func New(slots int) *Log {
	if slots < MinSlots || slots > MaxSlots {
		panic(fmt.Sprintf("actlog: a log of %d slots, want %d to %d", slots, MinSlots, MaxSlots))
	}
	l := &Log{
		slots:  make([]slot, slots),
		index:  make(map[uint32]int32, slots),
		free:   make([]int32, 0, slots),
		wanted: map[group]struct{}{},
	}
	l.idle.oldest, l.idle.newest = none, none
	for i := range l.slots {
		l.slots[i] = slot{extent: Free, prev: none, next: none}
		l.free = append(l.free, int32(slots-1-i))
	}
	return l
}

// MaxSpan is how many extents one Acquire may reach into.
func (l *Log) MaxSpan() int { return min(MaxUpdates, len(l.slots)) }

// Slots is the size of the log.
func (l *Log) Slots() int { return len(l.slots) }

// Count is the number of hot extents.
func (l *Log) Count() int { return len(l.index) }

// Wanted is the number of ranges that were found cold and that no transaction
// has admitted yet.
func (l *Log) Wanted() int { return len(l.wanted) }

// InFlight reports whether a transaction waits for Commit or Abort.
func (l *Log) InFlight() bool { return l.flight != nil }

// Hot calls fn for every hot extent, in no particular order.
func (l *Log) Hot(fn func(extent uint32)) {
	for i := range l.slots {
		if e := l.slots[i].extent; e != Free && l.isHot(e) {
			fn(e)
		}
	}
}

func (l *Log) isHot(extent uint32) bool {
	_, ok := l.index[extent]
	return ok
}

// Acquire takes a reference on every extent that [off, off+length) reaches into
// when all of them are durably hot. Otherwise it takes none and remembers the
// range as wanted: queue the write, Prepare and write a transaction, and after
// Commit acquire again, in the order of arrival and before the next Prepare.
// It panics when the range is empty, negative, or longer than MaxSpan extents:
// longer requests are split by the caller.
func (l *Log) Acquire(off, length int64) Heat {
	g := l.groupOf(off, length)
	if heat, waiting := l.heat(g); heat == Cold {
		if !waiting {
			l.want(g)
		}
		return Cold
	}
	for e := g.first; ; e++ {
		i := l.index[e]
		if l.slots[i].refs == 0 {
			l.unlink(i)
		}
		l.slots[i].refs++
		if e == g.last {
			return Hot
		}
	}
}

// heat judges a range; waiting means the transaction in flight makes it hot.
// What is hot already counts as just used, so that it is not the next to go.
func (l *Log) heat(g group) (heat Heat, waiting bool) {
	heat, waiting = Hot, true
	for e := g.first; ; e++ {
		if !l.isHot(e) {
			heat = Cold
			waiting = waiting && l.flight != nil && l.flight.has(e)
		}
		if e == g.last {
			break
		}
	}
	if heat == Hot {
		return heat, false
	}
	for e := g.first; ; e++ {
		if i, ok := l.index[e]; ok && l.slots[i].refs == 0 {
			l.unlink(i)
			l.link(i)
		}
		if e == g.last {
			return heat, waiting
		}
	}
}

func (l *Log) want(g group) {
	if _, ok := l.wanted[g]; ok {
		return
	}
	l.wanted[g] = struct{}{}
	l.queue = append(l.queue, g)
}

// Release gives back the references of one Acquire of the same range. seq is the
// flush that must be durable on every in-sync copy before these extents may go
// cold; it never decreases. It panics when the range holds no reference.
func (l *Log) Release(off, length int64, seq uint64) {
	g := l.groupOf(off, length)
	for e := g.first; ; e++ {
		i, ok := l.index[e]
		if !ok || l.slots[i].refs == 0 {
			panic(fmt.Sprintf("actlog: release of extent %d, which nobody holds", e))
		}
		s := &l.slots[i]
		s.refs--
		s.seq = max(s.seq, seq)
		if s.refs == 0 {
			l.link(i)
		}
		if e == g.last {
			return
		}
	}
}

func (l *Log) groupOf(off, length int64) group {
	if off < 0 || length <= 0 || off > math.MaxInt64-length || (off+length-1)/ExtentBytes >= Free {
		panic(fmt.Sprintf("actlog: range (%d, %d) is none", off, length))
	}
	first, last := off/ExtentBytes, (off+length-1)/ExtentBytes
	if last-first >= int64(l.MaxSpan()) {
		panic(fmt.Sprintf("actlog: range (%d, %d) reaches into more than %d extents", off, length, l.MaxSpan()))
	}
	return group{uint32(first), uint32(last)}
}

// link puts a slot at the young end of the idle list.
func (l *Log) link(i int32) {
	s := &l.slots[i]
	s.prev, s.next = l.idle.newest, none
	if l.idle.newest == none {
		l.idle.oldest = i
	} else {
		l.slots[l.idle.newest].next = i
	}
	l.idle.newest = i
	l.idle.count++
}

// unlink takes a slot off the idle list.
func (l *Log) unlink(i int32) {
	s := &l.slots[i]
	if s.prev == none {
		l.idle.oldest = s.next
	} else {
		l.slots[s.prev].next = s.next
	}
	if s.next == none {
		l.idle.newest = s.prev
	} else {
		l.slots[s.next].prev = s.prev
	}
	s.prev, s.next = none, none
	l.idle.count--
}

func (f *flight) has(extent uint32) bool {
	_, ok := f.pending[extent]
	return ok
}
