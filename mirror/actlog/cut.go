package actlog

import "fmt"

// Cut takes the extents from first on out of transactions of Restate: the volume
// ends before them.
func Cut(txs []Transaction, first uint32) []Transaction {
	for _, tx := range txs {
		for i, e := range tx.Context {
			if e >= first {
				tx.Context[i] = Free
			}
		}
	}
	return txs
}

// Cut forgets the hot extents from first on, once a ring without them counts. It
// panics when one is in use, or while a transaction is in flight.
func (l *Log) Cut(first uint32) {
	if l.flight != nil {
		panic(fmt.Sprintf("actlog: cut while transaction %d is in flight", l.flight.number))
	}
	for i := range l.slots {
		s := &l.slots[i]
		if s.extent == Free || s.extent < first {
			continue
		}
		if s.refs > 0 {
			panic(fmt.Sprintf("actlog: extent %d is cut off, and in use", s.extent))
		}
		delete(l.index, s.extent)
		l.unlink(int32(i))
		s.extent, s.seq = Free, 0
		l.free = append(l.free, int32(i))
	}
}
