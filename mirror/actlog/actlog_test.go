package actlog

import (
	"slices"
	"testing"
)

func always(uint32) bool { return true }

// hotset is what the log says is hot, sorted.
func hotset(l *Log) (out []uint32) {
	l.Hot(func(e uint32) { out = append(out, e) })
	slices.Sort(out)
	return out
}

func at(extent uint32) int64 { return int64(extent) * ExtentBytes }

// disk is the ring: one block per place, one of them possibly torn.
type disk struct {
	ring []*Transaction
	slot int
}

func newDisk(slots int) *disk {
	return &disk{ring: make([]*Transaction, RingBlocks(slots)), slot: slots}
}

func (d *disk) write(tx Transaction) { d.ring[tx.Number%uint64(len(d.ring))] = &tx }
func (d *disk) tear(tx Transaction)  { d.ring[tx.Number%uint64(len(d.ring))] = nil }

func (d *disk) read() (txs []Transaction) {
	for _, tx := range d.ring {
		if tx != nil {
			txs = append(txs, *tx)
		}
	}
	return txs
}

func TestOneWrite(t *testing.T) {
	l := New(DefaultSlots)
	if l.Acquire(0, 4096) != Cold || l.Wanted() != 1 {
		t.Fatal("an empty log is not cold")
	}
	tx, ok, blocked := l.Prepare(0, always)
	if !ok || blocked || tx.Number != 1 || len(tx.Updates) != 1 || tx.Updates[0].Extent != 0 {
		t.Fatalf("Prepare: %+v %v %v", tx, ok, blocked)
	}
	if l.Acquire(0, 4096) != Cold || l.Wanted() != 0 {
		t.Fatal("an extent in flight must be cold, and not be wanted again")
	}
	if _, ok, blocked := l.Prepare(0, always); ok || blocked {
		t.Fatal("a second transaction in flight")
	}
	l.Commit(tx)
	if l.Acquire(0, 4096) != Hot || l.Count() != 1 {
		t.Fatal("not hot after Commit")
	}
	l.Release(0, 4096, 1)
}

func TestRangeOverTwoExtentsTakesBothOrNone(t *testing.T) {
	l := New(2)
	heat(t, l, 0, 1)
	l.Release(at(0), 4096, 0)
	if l.Acquire(ExtentBytes-4096, 8192) != Cold {
		t.Fatal("half a range was enough")
	}
	tx, ok, _ := l.Prepare(0, always)
	if !ok || len(tx.Updates) != 1 || tx.Updates[0].Extent != 1 {
		t.Fatalf("%+v", tx)
	}
	l.Commit(tx)
	if l.Acquire(ExtentBytes-4096, 8192) != Hot {
		t.Fatal("the other half was evicted")
	}
}

// heat makes n extents from first hot and leaves each referenced once.
func heat(t *testing.T, l *Log, first uint32, n int) {
	t.Helper()
	for e := first; e < first+uint32(n); e++ {
		if l.Acquire(at(e), 4096) == Hot {
			continue
		}
		tx, ok, blocked := l.Prepare(0, always)
		if !ok {
			t.Fatalf("extent %d: no transaction, blocked %v", e, blocked)
		}
		l.Commit(tx)
		if l.Acquire(at(e), 4096) != Hot {
			t.Fatalf("extent %d is cold after Commit", e)
		}
	}
}

// A transaction must not evict what an earlier range of the same transaction
// needs, though it is idle and young.
func TestCompanionIsKept(t *testing.T) {
	l := New(3)
	heat(t, l, 0, 3)
	l.Release(at(0), 1, 0)
	l.Release(at(2), 1, 0)
	if l.Acquire(ExtentBytes*3-4096, 8192) != Cold { // 2 hot, 3 cold
		t.Fatal("not cold")
	}
	l.Acquire(at(9), 4096)
	tx, ok, _ := l.Prepare(0, always)
	if !ok || len(tx.Updates) != 1 || tx.Updates[0].Extent != 3 || l.Wanted() != 1 {
		t.Fatalf("%+v, %d wanted", tx, l.Wanted())
	}
	l.Commit(tx)
	if l.Acquire(ExtentBytes*3-4096, 8192) != Hot {
		t.Fatal("the companion went cold")
	}
	if _, ok, blocked := l.Prepare(0, always); ok || !blocked {
		t.Fatal("every slot is referenced, and still not blocked")
	}
	l.Release(ExtentBytes*3-4096, 8192, 0)
	if _, ok, _ := l.Prepare(0, always); !ok {
		t.Fatal("blocked after a release")
	}
}

// Nor may a third range evict it, once the older candidates are used up.
func TestCompanionIsKeptFromLaterRanges(t *testing.T) {
	l := New(3)
	heat(t, l, 0, 3)
	for e := range uint32(3) {
		l.Release(at(e), 1, 0)
	}
	l.Acquire(ExtentBytes*3-4096, 8192) // 2 hot, 3 cold
	l.Acquire(at(10), 1)
	l.Acquire(at(11), 1)
	tx, ok, _ := l.Prepare(0, always)
	if !ok || len(tx.Updates) != 2 || l.Wanted() != 1 {
		t.Fatalf("%+v, %d wanted", tx, l.Wanted())
	}
	l.Commit(tx)
	if l.Acquire(ExtentBytes*3-4096, 8192) != Hot {
		t.Fatal("a later range of the same transaction took the companion's slot")
	}
}

// The hot half of a range is no room for its cold half.
func TestRangeDoesNotEvictItself(t *testing.T) {
	l := New(2)
	heat(t, l, 0, 1)
	heat(t, l, 8, 1) // stays referenced
	l.Release(at(0), 1, 0)
	l.Acquire(ExtentBytes-4096, 8192) // 0 hot, 1 cold
	if tx, ok, blocked := l.Prepare(0, always); ok || !blocked {
		t.Fatalf("%+v", tx)
	}
	l.Release(at(8), 1, 0)
	tx, ok, _ := l.Prepare(0, always)
	if !ok {
		t.Fatal("blocked after a release")
	}
	l.Commit(tx)
	if l.Acquire(ExtentBytes-4096, 8192) != Hot {
		t.Fatal("cold after Commit")
	}
}

func TestEvictionWaitsForFlushAndBitmap(t *testing.T) {
	l := New(2)
	heat(t, l, 0, 2)
	l.Release(at(0), 1, 7)
	l.Release(at(1), 1, 9)
	l.Acquire(at(5), 4096)
	dirty := map[uint32]bool{0: true}
	clean := func(e uint32) bool { return !dirty[e] }
	for _, step := range []struct {
		seq         uint64
		needSeq     uint64
		needUnclean []uint32
	}{{6, 9, []uint32{0}}, {7, 9, []uint32{0}}, {8, 9, []uint32{0}}} {
		if _, ok, blocked := l.Prepare(step.seq, clean); ok || !blocked {
			t.Fatalf("sequence %d: evicted", step.seq)
		}
		seq, unclean := l.Blocking(step.seq, clean)
		if seq != step.needSeq || !slices.Equal(unclean, step.needUnclean) {
			t.Fatalf("Blocking(%d) = %d, %v", step.seq, seq, unclean)
		}
	}
	dirty[0] = false
	tx, ok, _ := l.Prepare(7, clean)
	if !ok || !slices.Equal(hotset(l), []uint32{1}) {
		t.Fatalf("%+v, hot %v", tx, hotset(l))
	}
	if l.Acquire(at(0), 1) != Cold {
		t.Fatal("an evicted extent is hot")
	}
}

func TestAbort(t *testing.T) {
	l := New(2)
	heat(t, l, 0, 1)
	l.Release(0, 1, 0)
	l.Acquire(at(1), 1)
	l.Acquire(at(2), 1)
	tx, _, _ := l.Prepare(0, always)
	l.Abort(tx)
	if !slices.Equal(hotset(l), []uint32{0}) {
		t.Fatalf("hot after Abort: %v", hotset(l))
	}
	l.Acquire(at(1), 1)
	if _, ok, _ := l.Prepare(0, always); ok {
		t.Fatal("an aborted log goes on")
	}
	if l.Acquire(0, 1) != Hot {
		t.Fatal("what was hot stays hot")
	}
}

func TestMisuse(t *testing.T) {
	for name, f := range map[string]func(){
		"release twice":  func() { l := New(2); heat(t, l, 0, 1); l.Release(0, 1, 0); l.Release(0, 1, 0) },
		"release cold":   func() { New(2).Release(0, 1, 0) },
		"commit nothing": func() { New(2).Commit(Transaction{Number: 1}) },
		"too long":       func() { New(100).Acquire(0, 64*ExtentBytes+1) },
		"empty":          func() { New(2).Acquire(0, 0) },
		"negative":       func() { New(2).Acquire(-1, 4) },
		"overflow":       func() { New(2).Acquire(1<<63-2, 4) },
		"few slots":      func() { New(1) },
		"many slots":     func() { New(MaxSlots + 1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s went through", name)
				}
			}()
			f()
		}()
	}
	l := New(100)
	if l.Acquire(0, 64*ExtentBytes) != Cold {
		t.Error("64 extents were refused")
	}
	if tx, ok, _ := l.Prepare(0, always); !ok || len(tx.Updates) != MaxUpdates {
		t.Error("64 extents do not fit one transaction")
	}
}

func TestHotAcquireAllocatesNothing(t *testing.T) {
	l := New(DefaultSlots)
	heat(t, l, 0, 2)
	n := testing.AllocsPerRun(100, func() {
		if l.Acquire(ExtentBytes-4096, 8192) != Hot {
			t.Fatal("cold")
		}
		l.Release(ExtentBytes-4096, 8192, 1)
	})
	if n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
