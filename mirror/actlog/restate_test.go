package actlog

import (
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
		if len(txs) != RingBlocks(slots) || txs[0].Number != before+1 || l.number != before+uint64(len(txs)) {
			t.Fatalf("%d slots: transactions %d to %d after %d", slots, txs[0].Number, l.number, before)
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
	}
}
