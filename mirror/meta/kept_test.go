package meta

import (
	"runtime"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/dirty"
)

// keeps answers the only write that is held as one for a disk that hangs, which has
// its memory yet.
func (d *memDisk) keeps(t *testing.T) (memory *byte) {
	t.Helper()
	d.mu.Lock()
	if len(d.held) != 1 {
		t.Fatalf("%d writes", len(d.held))
	}
	r := d.held[0]
	d.held, d.hold = nil, false
	d.mu.Unlock()
	memory = &r.Data[0]
	r.Kept = true
	r.Answer(block.ErrNoAnswer)
	return memory
}

// again reports whether memory comes from the pool.
func again(memory *byte, size int) (yes bool) {
	for range 32 {
		yes = yes || &block.GetBuffer(size).Bytes(size)[0] == memory
	}
	return yes
}

// What a disk that hangs was given to write stays as it is.
func TestMemoryIsLeftToADiskThatHangs(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // the pool has a corner for each processor
	d := external(t)
	st, snap := reopened(t, d)
	d.hold = true
	st.WriteBitmapPages(0, make([]byte, dirty.PageBytes), func(error) {})
	if again(d.keeps(t), BlockBytes) {
		t.Error("the memory of a page is used again")
	}
	d.hold = true
	done := make(chan error, 1)
	go func() { done <- st.Resize(snap.Super, testData/3/512*512) }()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		n := len(d.held)
		d.mu.Unlock()
		if n > 0 || time.Now().After(end) {
			break
		}
	}
	memory := d.keeps(t)
	if err := <-done; err == nil {
		t.Error("laid out anew, it says")
	}
	if again(memory, batchBytes) {
		t.Error("the memory of a batch is used again")
	}
}
