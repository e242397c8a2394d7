package engine

// ring remembers, in order, writes that the peer has answered and not yet
// flushed. It never allocates after init.
type ring struct {
	entries []ringEntry
	head, n int
}

type ringEntry struct {
	offset, length int64
	seq            uint64
}

func (r *ring) init() { r.entries = make([]ringEntry, unflushedMax) }

// crowded asks for admission to pause: room is left only for what is in flight.
func (r *ring) crowded() bool { return r.n >= unflushedMax-applicationOpsMax }

// half asks for a flush.
func (r *ring) half() bool { return r.n >= unflushedMax/2 }

func (r *ring) push(offset, length int64, seq uint64) {
	if r.n == len(r.entries) {
		panic("engine: more unflushed writes than admission allows")
	}
	r.entries[(r.head+r.n)%len(r.entries)] = ringEntry{offset, length, seq}
	r.n++
}

// flushed forgets entries up to seq.
func (r *ring) flushed(seq uint64) {
	for r.n > 0 && r.entries[r.head].seq <= seq {
		r.head = (r.head + 1) % len(r.entries)
		r.n--
	}
}

// drain hands every entry to fn and forgets it.
func (r *ring) drain(fn func(offset, length int64)) {
	for ; r.n > 0; r.n-- {
		fn(r.entries[r.head].offset, r.entries[r.head].length)
		r.head = (r.head + 1) % len(r.entries)
	}
}
