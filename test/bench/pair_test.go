package main

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"testing"

	"go.uber.org/goleak"

	"hapair/mirror/block"
	"hapair/mirror/front/export"
)

var poolsForget bool // built with the race detector

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testBytes = 64 << 20

// memoryDir is a directory on tmpfs: there the figures are those of the code.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "hapair-test-")
	if err != nil {
		t.Skip("no tmpfs at /dev/shm:", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newTestRig(t testing.TB) *hatch {
	t.Helper()
	h := &hatch{}
	r, err := newRig(t.Context(), memoryDir(t), testBytes, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// driver keeps a number of 4 KiB requests in flight, from one goroutine, as a
// front end does.
type driver struct {
	hatch *hatch
	free  chan *block.Request
	next  int64
}

func newDriver(h *hatch, op block.Op, depth int) *driver {
	d := &driver{hatch: h, free: make(chan *block.Request, depth)}
	done := func(r *block.Request, err error) {
		if err != nil {
			panic(err)
		}
		d.free <- r
	}
	for range depth {
		d.free <- &block.Request{Op: op, Length: 4096, Data: block.Aligned(4096), Done: done}
	}
	return d
}

func (d *driver) submit() {
	r := <-d.free
	d.next = (d.next + 7919*4096) % testBytes
	r.Offset = d.next
	d.hatch.handler.Submit(r)
}

// drain waits for everything in flight.
func (d *driver) drain() {
	for range cap(d.free) {
		<-d.free
	}
}

// TestNothingIsAllocated counts what a mirrored write allocates in steady
// state, on both sides, the link included. HAPAIR_ALLOCS=FILE writes the
// profile of the allocations.
func TestNothingIsAllocated(t *testing.T) {
	if poolsForget {
		t.Skip("under the race detector a sync.Pool forgets at random")
	}
	for _, c := range []struct {
		name  string
		op    block.Op
		depth int
	}{{"write-qd1", block.Write, 1}, {"write-qd32", block.Write, 32}, {"read-qd32", block.Read, 32}} {
		t.Run(c.name, func(t *testing.T) {
			d := newDriver(newTestRig(t), c.op, c.depth)
			for range 30_000 { // all slots, queues and pools have their size
				d.submit()
			}
			if file := os.Getenv("HAPAIR_ALLOCS"); file != "" {
				old := runtime.MemProfileRate
				runtime.MemProfileRate = 1
				defer func() { runtime.MemProfileRate = old }()
				defer writeAllocs(t, file+"."+filepath.Base(c.name))
			}
			var before, after runtime.MemStats
			const n = 20_000
			runtime.ReadMemStats(&before)
			for range n {
				d.submit()
			}
			runtime.ReadMemStats(&after)
			d.drain()
			each := float64(after.Mallocs-before.Mallocs) / n
			t.Logf("%.4f allocations, %.1f bytes for each request", each, float64(after.TotalAlloc-before.TotalAlloc)/n)
			if each > strayAllocs {
				t.Errorf("%.3f allocations for each request; HAPAIR_ALLOCS=FILE says where", each)
			}
		})
	}
}

// strayAllocs is what timers and pings of the two sides may take, for each
// request.
const strayAllocs = 0.05

func writeAllocs(t *testing.T, file string) {
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := pprof.Lookup("allocs").WriteTo(f, 0); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// BenchmarkPair is a request through both sides and the link, without a front
// end, the copies in memory.
func BenchmarkPair(b *testing.B) {
	for _, c := range []struct {
		name  string
		op    block.Op
		depth int
	}{{"write-qd1", block.Write, 1}, {"write-qd32", block.Write, 32}, {"read-qd1", block.Read, 1}, {"read-qd32", block.Read, 32}} {
		b.Run(c.name, func(b *testing.B) {
			d := newDriver(newTestRig(b), c.op, c.depth)
			for range 2000 {
				d.submit()
			}
			b.ReportAllocs()
			b.SetBytes(4096)
			for b.Loop() {
				d.submit()
			}
			d.drain()
		})
	}
}

// The rig serves the export front end as well, which is what profile uses.
func TestRigExports(t *testing.T) {
	dir := memoryDir(t)
	door := export.New(export.Config{Socket: filepath.Join(dir, "export.sock"), Name: resourceName})
	r, err := newRig(t.Context(), dir, testBytes, door)
	if err != nil {
		t.Fatal(err)
	}
	if err := listens(filepath.Join(dir, "export.sock")); err != nil {
		t.Error(err)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}
