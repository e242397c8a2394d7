package actlog

import "fmt"

// Prepare builds the next transaction from the wanted ranges, in the order they
// came. For each cold extent it takes a free slot, or evicts the least recently
// used extent that has no references, whose last flush sequence number is at
// most durableSeq, and for which clean reports that its dirty bits are on disk.
//
// blocked means the oldest wanted range cannot be admitted: flush, save bitmap
// pages (Blocking says which) or wait for a Release, then Prepare again. When
// neither ok nor blocked is true there is nothing to write: nothing is wanted,
// a transaction is still in flight, or one was aborted. A wanted range that has
// become hot meanwhile is dropped.
//
// Evicted extents stop being hot here; the others become hot at Commit.
func (l *Log) Prepare(durableSeq uint64, clean func(extent uint32) bool) (tx Transaction, ok, blocked bool) {
	if l.flight != nil || l.aborted || len(l.queue) == 0 {
		return Transaction{}, false, false
	}
	p := &plan{log: l, seq: durableSeq, clean: clean, at: l.idle.oldest,
		flight: &flight{number: l.number + 1, pending: map[uint32]int32{}}}
	admitted := 0
	for _, g := range l.queue {
		if !p.admit(g) {
			blocked = len(p.updates) == 0
			break
		}
		delete(l.wanted, g)
		admitted++
	}
	l.queue = append(l.queue[:0], l.queue[admitted:]...)
	if len(p.updates) == 0 {
		return Transaction{}, false, blocked
	}
	l.number++
	l.flight = p.flight
	return l.transaction(l.number, p.updates), true, false
}

// plan is a transaction being put together.
type plan struct {
	log     *Log
	seq     uint64
	clean   func(uint32) bool
	at      int32 // next candidate for eviction; everything older was judged
	flight  *flight
	updates []Update
}

// admit makes room for the cold extents of g, or for none of them.
func (p *plan) admit(g group) bool {
	cold := p.cold(g)
	if len(p.updates)+cold > MaxUpdates {
		return false
	}
	var room [MaxUpdates]int32
	l, at := p.log, p.at
	found := copy(room[:cold], tail(l.free, cold))
	for found < cold && at != none {
		i := at
		at = l.slots[i].next
		if p.evictable(i, g) {
			room[found] = i
			found++
		}
	}
	if found < cold {
		return false
	}
	p.at = at
	p.take(g, room[:cold])
	return true
}

func (p *plan) cold(g group) (n int) {
	for e := g.first; ; e++ {
		if !p.log.isHot(e) && !p.flight.has(e) {
			n++
		}
		if e == g.last {
			return n
		}
	}
}

func (p *plan) evictable(i int32, g group) bool {
	s := &p.log.slots[i]
	inGroup := s.extent >= g.first && s.extent <= g.last
	return !inGroup && s.kept != p.flight.number && s.seq <= p.seq && p.clean(s.extent)
}

// take gives the cold extents of g the slots in room, and keeps what is hot of
// it from being evicted by the rest of this transaction.
func (p *plan) take(g group, room []int32) {
	l := p.log
	for e := g.first; ; e++ {
		if i, ok := l.index[e]; ok {
			p.keep(i)
		} else if !p.flight.has(e) {
			i, rest := room[0], room[1:]
			room = rest
			l.assign(p.flight, i, e)
			p.updates = append(p.updates, Update{Slot: uint16(i), Extent: e})
		}
		if e == g.last {
			return
		}
	}
}

// keep holds on to a hot slot while this transaction is put together, and makes
// it the youngest.
func (p *plan) keep(i int32) {
	s := &p.log.slots[i]
	s.kept = p.flight.number
	if s.refs > 0 {
		return
	}
	if p.at == i {
		p.at = s.next
	}
	p.log.unlink(i)
	p.log.link(i)
}

// assign gives slot i to a pending extent; the slot's former extent goes cold.
func (l *Log) assign(f *flight, i int32, extent uint32) {
	s := &l.slots[i]
	f.evicted = append(f.evicted, Update{Slot: uint16(i), Extent: s.extent})
	if s.extent == Free {
		l.free = l.free[:len(l.free)-1]
	} else {
		delete(l.index, s.extent)
		l.unlink(i)
	}
	s.extent, s.seq = extent, 0
	f.pending[extent] = i
}

// tail is the last n entries of a stack, topmost first.
func tail(stack []int32, n int) []int32 {
	n = min(n, len(stack))
	out := make([]int32, 0, MaxUpdates)
	for i := range n {
		out = append(out, stack[len(stack)-1-i])
	}
	return out
}

// transaction describes the slots as they are now.
func (l *Log) transaction(number uint64, updates []Update) Transaction {
	tx := Transaction{Number: number, Updates: updates}
	tx.ContextStart = contextStart(number, len(l.slots))
	tx.Context = make([]uint32, contextLen(len(l.slots)))
	for i := range tx.Context {
		tx.Context[i] = l.slots[(tx.ContextStart+i)%len(l.slots)].extent
	}
	return tx
}

// Restate describes the whole log in transactions that fill a ring and depend on
// none before, numbered after the last one; the log itself does not change. Until
// they are durable, all of them, and Restated is called, or they are given up,
// nothing else is written. It panics while a transaction is in flight.
func (l *Log) Restate() (txs []Transaction) {
	if l.flight != nil {
		panic(fmt.Sprintf("actlog: restated while transaction %d is in flight", l.flight.number))
	}
	for i := range RingBlocks(len(l.slots)) {
		txs = append(txs, l.transaction(l.number+1+uint64(i), nil))
	}
	return txs
}

// Restated notes that the transactions of the Restate before are durable, and no
// other since: the numbers go on after them. Without it the same numbers are used
// again, for a gap in a ring costs what lies before it. It panics while a
// transaction is in flight.
func (l *Log) Restated() {
	if l.flight != nil {
		panic(fmt.Sprintf("actlog: the ring was made anew while transaction %d is in flight", l.flight.number))
	}
	l.number += uint64(RingBlocks(len(l.slots)))
}

// Commit notes that the transaction is durable: its extents are hot. It panics
// when tx is not the one in flight.
func (l *Log) Commit(tx Transaction) {
	f := l.land(tx)
	for _, u := range tx.Updates {
		i := f.pending[u.Extent]
		l.index[u.Extent] = i
		l.link(i)
	}
}

// Abort notes that the write of the transaction failed. Nothing became hot; what
// it evicted counts as hot again, for nobody knows what the disk holds. The log
// builds no further transactions: detach the disk, and Restore a new log from
// it. It panics when tx is not the one in flight.
func (l *Log) Abort(tx Transaction) {
	f := l.land(tx)
	for _, u := range f.evicted {
		i := int32(u.Slot)
		l.slots[i].extent = u.Extent
		if u.Extent == Free {
			l.free = append(l.free, i)
			continue
		}
		l.index[u.Extent] = i
		l.link(i)
	}
	l.aborted = true
}

func (l *Log) land(tx Transaction) *flight {
	f := l.flight
	if f == nil || f.number != tx.Number {
		panic(fmt.Sprintf("actlog: transaction %d is not in flight", tx.Number))
	}
	l.flight = nil
	return f
}

// Blocking says what would let Prepare evict a batch of the least recently used
// extents without references: the flush sequence number that must be durable (0
// when that is no obstacle), and the extents whose dirty bits must be saved.
// Both are empty when every slot is referenced: then only a Release helps.
func (l *Log) Blocking(durableSeq uint64, clean func(extent uint32) bool) (needSeq uint64, unclean []uint32) {
	batch := MaxUpdates
	for i := l.idle.oldest; i != none && batch > 0; i = l.slots[i].next {
		s := &l.slots[i]
		if s.seq > durableSeq {
			needSeq = max(needSeq, s.seq)
		}
		if !clean(s.extent) {
			unclean = append(unclean, s.extent)
		}
		batch--
	}
	return needSeq, unclean
}
