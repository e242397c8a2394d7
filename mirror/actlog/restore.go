package actlog

import (
	"errors"
	"fmt"
	"slices"
)

// ErrIncomplete is the error of a ring that does not say what every slot holds:
// more than one block of it was damaged. Only a full resync is safe then.
var ErrIncomplete = errors.New("activity log is incomplete")

// ErrCorrupt is the error of transactions that contradict each other or the
// size of the log.
var ErrCorrupt = errors.New("activity log is corrupt")

// Hotset rebuilds the hot extents, sorted, from the valid transactions of a ring
// for a log of so many slots, in any order. No transactions at all is the empty
// set: whoever reads the ring tells an empty one from a destroyed one.
// The error wraps ErrIncomplete or ErrCorrupt.
func Hotset(txs []Transaction, slots int) (extents []uint32, err error) {
	held, _, err := rebuild(txs, slots)
	if err != nil {
		return nil, err
	}
	for _, e := range held {
		if e != Free {
			extents = append(extents, e)
		}
	}
	slices.Sort(extents)
	return extents, nil
}

// Restore fills a new log from a ring's valid transactions, in any order; all
// restored extents are hot and unreferenced, and the numbers go on from there.
// On an error, as of Hotset, the log is unchanged.
func (l *Log) Restore(txs []Transaction) error {
	if l.number != 0 || len(l.index) != 0 || len(l.queue) != 0 {
		return errors.New("restore of an activity log that is in use")
	}
	held, number, err := rebuild(txs, len(l.slots))
	if err != nil {
		return err
	}
	l.number = number
	l.free = l.free[:0]
	for i := len(held) - 1; i >= 0; i-- {
		if held[i] == Free {
			l.free = append(l.free, int32(i))
			continue
		}
		l.slots[i].extent = held[i]
		l.index[held[i]] = int32(i)
		l.link(int32(i))
	}
	return nil
}

// rebuild replays the youngest unbroken run of transactions.
func rebuild(txs []Transaction, slots int) (held []uint32, number uint64, err error) {
	if slots < MinSlots || slots > MaxSlots {
		return nil, 0, fmt.Errorf("%w: %d slots, want %d to %d", ErrCorrupt, slots, MinSlots, MaxSlots)
	}
	held = slices.Repeat([]uint32{Free}, slots)
	if len(txs) == 0 {
		return held, 0, nil
	}
	run, err := youngestRun(txs)
	if err != nil {
		return nil, 0, err
	}
	need := RingBlocks(slots) - 1
	if run[0].Number != 1 && len(run) < need {
		return nil, 0, fmt.Errorf("%w: transactions %d to %d are readable, %d in a row are needed",
			ErrIncomplete, run[0].Number, run[len(run)-1].Number, need)
	}
	for _, tx := range run {
		if err := replay(tx, held); err != nil {
			return nil, 0, err
		}
	}
	seen := make(map[uint32]int, slots)
	for i, e := range held {
		if before, ok := seen[e]; ok && e != Free {
			return nil, 0, fmt.Errorf("%w: extent %d is in slots %d and %d", ErrCorrupt, e, before, i)
		}
		seen[e] = i
	}
	return held, run[len(run)-1].Number, nil
}

// youngestRun sorts the transactions and cuts what lies before the last gap.
func youngestRun(txs []Transaction) ([]Transaction, error) {
	run := slices.Clone(txs)
	slices.SortFunc(run, func(a, b Transaction) int {
		switch {
		case a.Number < b.Number:
			return -1
		case a.Number > b.Number:
			return 1
		}
		return 0
	})
	if run[0].Number == 0 {
		return nil, fmt.Errorf("%w: a transaction has number 0", ErrCorrupt)
	}
	start := 0
	for i := 1; i < len(run); i++ {
		switch run[i].Number - run[i-1].Number {
		case 0:
			return nil, fmt.Errorf("%w: two transactions have number %d", ErrCorrupt, run[i].Number)
		case 1:
		default:
			start = i
		}
	}
	return run[start:], nil
}

// replay applies one transaction: its changes, then the slots it restates, which
// describe the state after them.
func replay(tx Transaction, held []uint32) error {
	slots := len(held)
	if len(tx.Updates) > MaxUpdates || len(tx.Context) != contextLen(slots) ||
		tx.ContextStart != contextStart(tx.Number, slots) {
		return fmt.Errorf("%w: transaction %d has %d changes and restates %d slots from %d, which does not fit a log of %d slots",
			ErrCorrupt, tx.Number, len(tx.Updates), len(tx.Context), tx.ContextStart, slots)
	}
	for _, u := range tx.Updates {
		if int(u.Slot) >= slots {
			return fmt.Errorf("%w: transaction %d changes slot %d of %d", ErrCorrupt, tx.Number, u.Slot, slots)
		}
		held[u.Slot] = u.Extent
	}
	for i, e := range tx.Context {
		held[(tx.ContextStart+i)%slots] = e
	}
	return nil
}
