package actlog

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// write is a request of the property test.
type write struct {
	off, length int64
}

func (w write) extents() (first, last uint32) {
	return uint32(w.off / ExtentBytes), uint32((w.off + w.length - 1) / ExtentBytes)
}

// world is a log, its ring, and the requests around it.
type world struct {
	slots   int
	log     *Log
	disk    *disk
	flying  *Transaction
	queued  []write
	held    []write
	durable uint64
	seq     uint64
	// owing: extents whose last flush sequence number may not be durable yet
	owing map[uint32]uint64
	dirty map[uint32]bool
}

func (w *world) clean(e uint32) bool { return !w.dirty[e] }

func (w *world) submit(r write) {
	if w.log.Acquire(r.off, r.length) == Hot {
		w.held = append(w.held, r)
		return
	}
	w.queued = append(w.queued, r)
}

func (w *world) commit() {
	w.log.Commit(*w.flying)
	w.flying = nil
	waiting := w.queued
	w.queued = nil
	for _, r := range waiting {
		w.submit(r)
	}
}

func (w *world) release(i int) {
	r := w.held[i]
	w.held = slices.Delete(w.held, i, i+1)
	w.seq++
	w.log.Release(r.off, r.length, w.seq)
	first, last := r.extents()
	for e := first; e <= last; e++ {
		w.owing[e] = w.seq
	}
}

// check: whatever is referenced, not flushed, or has unsaved dirty bits is hot
// on disk, in every state a crash could leave the disk in.
func (w *world) check(t *rapid.T) {
	states := []*disk{w.disk}
	if w.flying != nil {
		torn, written := *w.disk, *w.disk
		torn.ring, written.ring = slices.Clone(torn.ring), slices.Clone(written.ring)
		torn.tear(*w.flying)
		written.write(*w.flying)
		states = append(states, &torn, &written)
	}
	for n, d := range states {
		hot, err := Hotset(d.read(), w.slots)
		if err != nil {
			t.Fatalf("state %d: %v", n, err)
		}
		for _, r := range w.held {
			first, last := r.extents()
			for e := first; e <= last; e++ {
				if !slices.Contains(hot, e) {
					t.Fatalf("state %d: extent %d is being written and cold on disk: %v", n, e, hot)
				}
			}
		}
		for e, seq := range w.owing {
			if (seq > w.durable || w.dirty[e]) && !slices.Contains(hot, e) {
				t.Fatalf("state %d: extent %d is not flushed or not marked, and cold on disk: %v", n, e, hot)
			}
		}
	}
	if w.flying == nil {
		hot, _ := Hotset(w.disk.read(), w.slots)
		if !slices.Equal(hot, hotset(w.log)) {
			t.Fatalf("hot on disk %v, in memory %v", hot, hotset(w.log))
		}
	}
}

func TestCrashAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := rapid.OneOf(rapid.IntRange(2, 8), rapid.Just(ContextLen+7)).Draw(t, "slots")
		w := &world{slots: slots, log: New(slots), disk: newDisk(slots), owing: map[uint32]uint64{}, dirty: map[uint32]bool{}}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				block := rapid.Int64Range(0, 15*4).Draw(t, "quarter") * ExtentBytes / 4
				w.submit(write{block, rapid.Int64Range(1, ExtentBytes/2).Draw(t, "length")})
			},
			"answer": func(t *rapid.T) {
				if len(w.held) > 0 {
					w.release(rapid.IntRange(0, len(w.held)-1).Draw(t, "which"))
				}
			},
			"mark": func(t *rapid.T) { // a one-sided write: needs its extent hot
				for _, r := range w.held {
					first, _ := r.extents()
					w.dirty[first] = true
					w.owing[first] = max(w.owing[first], w.seq)
				}
			},
			"save":  func(t *rapid.T) { clear(w.dirty) },
			"flush": func(t *rapid.T) { w.durable = w.seq },
			"prepare": func(t *rapid.T) {
				tx, ok, _ := w.log.Prepare(w.durable, w.clean)
				if ok {
					w.flying = &tx
				}
			},
			"commit": func(t *rapid.T) {
				if w.flying != nil {
					w.disk.write(*w.flying)
					w.commit()
				}
			},
			"crash": func(t *rapid.T) {
				if w.flying != nil && rapid.Bool().Draw(t, "torn") {
					w.disk.tear(*w.flying)
				}
				txs := rapid.Permutation(w.disk.read()).Draw(t, "order")
				w.log, w.flying, w.queued, w.held = New(slots), nil, nil, nil
				if err := w.log.Restore(txs); err != nil {
					t.Fatal(err)
				}
				// The engine marks what was hot and saves it.
				clear(w.owing)
				clear(w.dirty)
			},
			"": w.check,
		})
		w.drain(t)
	})
}

// drain heals the world and wants every queued write to be let in.
func (w *world) drain(t *rapid.T) {
	for round := 0; len(w.queued) > 0 || w.flying != nil; round++ {
		if round > 1000 {
			t.Fatalf("%d writes are still queued, %d wanted", len(w.queued), w.log.Wanted())
		}
		for len(w.held) > 0 {
			w.release(0)
		}
		if w.flying == nil {
			_, unclean := w.log.Blocking(w.durable, w.clean)
			for _, e := range unclean {
				delete(w.dirty, e)
			}
			w.durable = w.seq
			tx, ok, _ := w.log.Prepare(w.durable, w.clean)
			if !ok {
				t.Fatalf("%d writes are queued, %d wanted, and nothing can be prepared", len(w.queued), w.log.Wanted())
			}
			w.flying = &tx
		}
		w.disk.write(*w.flying)
		w.commit()
		w.check(t)
	}
}

// The whole default log through several times its ring, with every crash.
func TestRingArithmetic(t *testing.T) {
	for _, slots := range []int{2, 67, 899, 900, 901, 1237, DefaultSlots} {
		l, d := New(slots), newDisk(slots)
		if need := RingBlocks(slots) - 1; need*contextLen(slots) < slots {
			t.Fatalf("%d slots: %d transactions name %d", slots, need, need*contextLen(slots))
		}
		for e := range uint32(3*slots + 200) {
			if l.Acquire(at(e), 1) != Cold {
				t.Fatal("hot already")
			}
			if l.Wanted() < min(MaxUpdates, slots/2+1) {
				continue
			}
			tx, ok, _ := l.Prepare(0, always)
			if !ok {
				t.Fatal("blocked")
			}
			torn := disk{ring: slices.Clone(d.ring), slot: slots}
			torn.tear(tx)
			before, err := Hotset(d.read(), slots)
			if err != nil {
				t.Fatalf("%d slots, transaction %d: %v", slots, tx.Number, err)
			}
			after, err := Hotset(torn.read(), slots)
			if err != nil || !slices.Equal(before, after) {
				t.Fatalf("%d slots, transaction %d torn: %v", slots, tx.Number, err)
			}
			d.write(tx)
			l.Commit(tx)
		}
	}
}

func TestRestoreRefusals(t *testing.T) {
	const slots = 2000 // C = 900, L = 3, R = 4
	l, d := New(slots), newDisk(slots)
	for e := range uint32(10) {
		l.Acquire(at(e), 1)
		tx, _, _ := l.Prepare(0, always)
		d.write(tx)
		l.Commit(tx)
	}
	good := d.read()
	slices.SortFunc(good, func(a, b Transaction) int { return int(a.Number) - int(b.Number) })
	bend := func(f func(txs []Transaction)) []Transaction {
		txs := slices.Clone(good)
		f(txs)
		return txs
	}
	for name, c := range map[string]struct {
		txs   []Transaction
		slots int
		want  error
	}{
		"good":           {good, slots, nil},
		"one missing":    {good[1:], slots, nil},
		"two missing":    {good[2:], slots, ErrIncomplete},
		"a gap":          {[]Transaction{good[0], good[1], good[3]}, slots, ErrIncomplete},
		"other size":     {good, slots + 1, ErrCorrupt},
		"impossible":     {good, 1, ErrCorrupt},
		"twice the same": {append(slices.Clone(good), good[2]), slots, ErrCorrupt},
		"number 0":       {bend(func(txs []Transaction) { txs[0].Number = 0 }), slots, ErrCorrupt},
		"slot 2000": {bend(func(txs []Transaction) {
			txs[3].Updates = []Update{{Slot: slots, Extent: 1}}
		}), slots, ErrCorrupt},
		"an extent twice": {bend(func(txs []Transaction) {
			txs[3].Context = slices.Clone(txs[3].Context)
			txs[3].Context[0], txs[3].Context[1] = 77, 77
		}), slots, ErrCorrupt},
	} {
		if _, err := Hotset(c.txs, c.slots); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := l.Restore(good); err == nil {
		t.Error("a log in use was restored over")
	}
}

func BenchmarkAcquireReleaseHot(b *testing.B) {
	l := New(DefaultSlots)
	l.Acquire(0, 4096)
	tx, _, _ := l.Prepare(0, always)
	l.Commit(tx)
	for b.Loop() {
		l.Acquire(4096, 4096)
		l.Release(4096, 4096, 1)
	}
}

func BenchmarkColdTransaction(b *testing.B) {
	l := New(DefaultSlots)
	e := uint32(0)
	for b.Loop() {
		l.Acquire(at(e), 4096)
		tx, _, _ := l.Prepare(0, always)
		l.Commit(tx)
		e++
	}
}
