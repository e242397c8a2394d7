package actlog

import (
	"maps"
	"slices"
	"testing"
)

// A ring made anew says what the old one did, also when one of its blocks is
// torn, and the log goes on after it.
func TestRestate(t *testing.T) {
	for _, slots := range []int{MinSlots, 7, 901, DefaultSlots} {
		l := New(slots)
		hot := func(extent int64) {
			if l.Acquire(extent*ExtentBytes, 1) == Hot {
				return
			}
			tx, ok, _ := l.Prepare(0, func(uint32) bool { return true })
			if !ok {
				t.Fatalf("%d slots: no room for extent %d", slots, extent)
			}
			l.Commit(tx)
		}
		for e := range int64(slots) {
			hot(3 * e)
		}
		before := l.number
		txs := l.Restate()
		if len(txs) != RingBlocks(slots) || txs[0].Number != before+1 || l.number != before {
			t.Fatalf("%d slots: transactions from %d on after %d, and the log goes on after %d", slots, txs[0].Number, before, l.number)
		}
		var want []uint32
		l.Hot(func(e uint32) { want = append(want, e) })
		slices.Sort(want)
		for torn := range txs {
			rest := slices.Delete(slices.Clone(txs), torn, torn+1)
			if torn > 0 && torn < len(txs)-1 {
				continue // a crash tears the one that is being written: the oldest is next
			}
			got, err := Hotset(rest, slots)
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("%d slots, without %d: %v, %v", slots, torn, got, err)
			}
		}
		if l.Restated(); l.number != txs[len(txs)-1].Number {
			t.Fatalf("%d slots: the log goes on after %d, the ring after %d", slots, l.number, txs[len(txs)-1].Number)
		}
	}
}

// Written over the old ring, one after the other, the transactions are a whole ring
// at any time; given up, the log goes on with the old one.
func TestRestateInPlace(t *testing.T) {
	const slots = 2000
	for before := range 9 {
		for written := range RingBlocks(slots) + 1 {
			l, ring := New(slots), map[uint64]Transaction{}
			write := func(tx Transaction) { ring[tx.Number%uint64(RingBlocks(slots))] = tx }
			hot := func(extent int64) {
				l.Acquire(extent*ExtentBytes, 1)
				tx, _, _ := l.Prepare(0, func(uint32) bool { return true })
				write(tx)
				l.Commit(tx)
			}
			for e := range int64(before) {
				hot(e)
			}
			txs := l.Restate()
			for _, tx := range txs[:written] {
				write(tx)
			}
			got, err := Hotset(slices.Collect(maps.Values(ring)), slots)
			if err != nil || len(got) != before {
				t.Fatalf("%d extents, %d of %d transactions written: %v, %v", before, written, len(txs), got, err)
			}
			switch written {
			case len(txs):
				l.Restated()
			case 0: // given up
			default:
				continue
			}
			hot(100)
			if got, err = Hotset(slices.Collect(maps.Values(ring)), slots); err != nil || len(got) != before+1 {
				t.Fatalf("%d extents, %d transactions written, and another: %v, %v", before, written, got, err)
			}
		}
	}
}
