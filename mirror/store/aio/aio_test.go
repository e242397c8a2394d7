package aio

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"hapair/mirror/block"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const unit = 4096

// disk is a file that can be read and written directly, every byte of it
// allocated.
func disk(t testing.TB, units int) int {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, units*unit), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no direct I/O here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	})
	return fd
}

// ends gathers what a queue reports.
type ends struct {
	q    *Queue
	mu   sync.Mutex
	ops  []Op
	more chan struct{}
}

func newEnds(t testing.TB, fd, depth int) *ends {
	t.Helper()
	e := &ends{more: make(chan struct{}, 1<<16)}
	q, err := New(fd, depth, false, e.take)
	if err != nil {
		t.Skipf("no asynchronous I/O here: %v", err)
	}
	e.q = q
	return e
}

func (e *ends) take(ops []Op) {
	e.mu.Lock()
	e.ops = append(e.ops, ops...)
	e.mu.Unlock()
	for range ops {
		e.more <- struct{}{}
	}
	e.q.Start(e.refused)
}

func (e *ends) refused(op Op) {
	e.mu.Lock()
	e.ops = append(e.ops, op)
	e.mu.Unlock()
	e.more <- struct{}{}
}

func (e *ends) wait(t *testing.T, n int) []Op {
	t.Helper()
	for i := range n {
		select {
		case <-e.more:
		case <-time.After(20 * time.Second):
			t.Fatalf("%d of %d operations ended", i, n)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	ops := e.ops
	e.ops = nil
	return ops
}

// Far more operations than the kernel is given at once all end, and do what
// they say.
func TestMoreThanItsDepth(t *testing.T) {
	const n = 500
	e := newEnds(t, disk(t, n), 4)
	for _, write := range []bool{true, false} {
		for i := range n {
			data := block.Aligned(unit)
			if write {
				copy(data, bytes.Repeat([]byte{byte(i), byte(i >> 8)}, unit/2))
			}
			if !e.q.Add(Op{Write: write, Offset: int64(i) * unit, Data: data, Tag: i}) {
				t.Fatal("closed")
			}
		}
		e.q.Start(e.refused)
		for _, op := range e.wait(t, n) {
			i := op.Tag.(int)
			if op.Err != nil || op.N != unit || op.Data[0] != byte(i) || op.Data[unit-1] != byte(i>>8) {
				t.Fatalf("write %v, operation %d: %d bytes, %v", write, i, op.N, op.Err)
			}
		}
	}
	if err := e.q.Close(); err != nil {
		t.Fatal(err)
	}
}

// What is added waits for Start.
func TestStartStarts(t *testing.T) {
	e := newEnds(t, disk(t, 8), 8)
	for i := range 8 {
		e.q.Add(Op{Offset: int64(i) * unit, Data: block.Aligned(unit)})
	}
	e.q.mu.Lock()
	waiting, free := len(e.q.mu.waiting), len(e.q.mu.free)
	e.q.mu.Unlock()
	if waiting != 8 || free != 8 {
		t.Errorf("%d wait and %d slots are free before Start", waiting, free)
	}
	e.q.Start(e.refused)
	e.wait(t, 8)
	if err := e.q.Close(); err != nil {
		t.Fatal(err)
	}
}

// An operation the kernel does not take is given back, with the reason; those
// behind it go on.
func TestRefused(t *testing.T) {
	e := newEnds(t, disk(t, 8), 8)
	for i := range 6 {
		op := Op{Offset: int64(i) * unit, Data: block.Aligned(unit), Tag: i}
		if i%2 == 1 {
			op.RWF = 1 << 31
		}
		e.q.Add(op)
	}
	e.q.Start(e.refused)
	for _, op := range e.wait(t, 6) {
		if odd := op.Tag.(int)%2 == 1; odd != (op.Err != nil) {
			t.Errorf("operation %d: %d bytes, %v", op.Tag, op.N, op.Err)
		}
	}
	if err := e.q.Close(); err != nil {
		t.Fatal(err)
	}
}

// Errors and short ends are reported as the kernel tells them.
func TestOutcome(t *testing.T) {
	e := newEnds(t, disk(t, 2), 8)
	e.q.Add(Op{Offset: unit, Data: block.Aligned(2 * unit), Tag: "short"})
	e.q.Add(Op{Offset: 8 * unit, Data: block.Aligned(unit), Tag: "end"})
	e.q.Add(Op{Offset: 1, Data: block.Aligned(unit), Tag: "unaligned"})
	e.q.Start(e.refused)
	for _, op := range e.wait(t, 3) {
		switch {
		case op.Tag == "short" && op.Err == nil && op.N == unit:
		case op.Tag == "end" && op.Err == nil && op.N == 0:
		case op.Tag == "unaligned" && errors.Is(op.Err, unix.EINVAL):
		default:
			t.Errorf("%v: %d bytes, %v", op.Tag, op.N, op.Err)
		}
	}
	if err := e.q.Close(); err != nil {
		t.Fatal(err)
	}
	if e.q.Add(Op{}) {
		t.Error("a closed queue took an operation")
	}
}

func TestCloseWaits(t *testing.T) {
	e := newEnds(t, disk(t, 64), 64)
	for i := range 64 {
		e.q.Add(Op{Write: true, Offset: int64(i) * unit, Data: block.Aligned(unit)})
	}
	e.q.Start(e.refused)
	if err := e.q.Close(); err != nil {
		t.Fatal(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.ops) != 64 {
		t.Errorf("Close returned with %d of 64 ended", len(e.ops))
	}
}
