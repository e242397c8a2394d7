package actlog

import (
	"slices"
	"testing"
)

// What lies behind a volume that becomes smaller goes cold, in memory and in the
// ring that is made for it; the rest stays, and the slots are used again.
func TestCut(t *testing.T) {
	l := New(4)
	clean := func(uint32) bool { return true }
	hot := func(e int64) {
		t.Helper()
		l.Acquire(e*ExtentBytes, 1)
		tx, ok, _ := l.Prepare(0, clean)
		if !ok {
			t.Fatalf("no room for extent %d", e)
		}
		l.Commit(tx)
	}
	for e := range int64(4) {
		hot(e)
	}
	if got, err := Hotset(Cut(l.Restate(), 2), 4); err != nil || !slices.Equal(got, []uint32{0, 1}) {
		t.Fatalf("the ring holds %v, %v", got, err)
	}
	l.Cut(2)
	var got []uint32
	l.Hot(func(e uint32) { got = append(got, e) })
	if slices.Sort(got); !slices.Equal(got, []uint32{0, 1}) || l.Count() != 2 {
		t.Fatalf("hot are %v", got)
	}
	hot(3) // grown back
	hot(2)
	if got, err := Hotset(l.Restate(), 4); err != nil || !slices.Equal(got, []uint32{0, 1, 2, 3}) {
		t.Fatalf("the ring holds %v, %v", got, err)
	}
}

// An extent that is in use cannot be cut off.
func TestCutOfAnExtentInUse(t *testing.T) {
	l := New(4)
	l.Acquire(5*ExtentBytes, 1)
	tx, _, _ := l.Prepare(0, func(uint32) bool { return true })
	l.Commit(tx)
	l.Acquire(5*ExtentBytes, 1)
	defer func() {
		if recover() == nil {
			t.Fatal("cut")
		}
	}()
	l.Cut(5)
}
