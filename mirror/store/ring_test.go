package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"hapair/mirror/block"
	"hapair/mirror/uring"
)

// needRing skips where the kernel has no io_uring for us.
func needRing(t testing.TB) {
	t.Helper()
	path := newFile(t, t.TempDir(), mib)
	f, err := Open(path, Options{IO: IOURing})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOMEM) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWhoCarriesOut(t *testing.T) {
	needRing(t)
	for _, c := range []struct {
		o    Options
		ring bool
		why  string
	}{
		{Options{IO: IOURing}, true, ""},
		{Options{IO: IOURing, Buffered: true}, true, ""},
		{Options{}, false, "workers"},
		{Options{IO: IOWorkers}, false, "not wanted"},
	} {
		f := opened(t, newFile(t, t.TempDir(), mib), c.o)
		if ring, why := f.URing(); ring != c.ring || !strings.Contains(why, c.why) {
			t.Errorf("%+v: %v, %q", c.o, ring, why)
		}
	}
	path := newFile(t, t.TempDir(), mib)
	if _, err := Open(path, Options{Inline: InlineAlways, IO: IOURing}); err == nil {
		t.Error("a ring was asked for, with which nothing would be done")
	}
	if _, err := Open(path, Options{IO: 9}); err == nil {
		t.Error("an unknown way was taken")
	}
	opened(t, path, Options{}) // the refusal has left no lock
}

// Every thread overwrites and rereads its own part, more at once than the ring
// holds, with flushes, FUA and unaligned memory in between.
func TestStress(t *testing.T) {
	needRing(t)
	for name, o := range map[string]Options{"ring": {IO: IOURing}, "workers": {IO: IOWorkers}, "buffered ring": {IO: IOURing, Buffered: true}} {
		t.Run(name, func(t *testing.T) {
			f := opened(t, newFile(t, t.TempDir(), 16*mib), o)
			var wg sync.WaitGroup
			for n := range ringEntries + 64 {
				wg.Go(func() { stress(t, f, int64(n)) })
			}
			wg.Wait()
		})
	}
}

func stress(t *testing.T, f *File, n int64) {
	rng := rand.New(rand.NewPCG(uint64(n), 7))
	memory, back := block.Aligned(16<<10), block.Aligned(8<<10)
	for round := range 12 {
		data := memory[512*rng.IntN(2):][:8<<10]
		for i := 0; i < len(data); i += 8 {
			binary.LittleEndian.PutUint64(data[i:], rng.Uint64())
		}
		err := do(f, write(n*(8<<10), data, block.Flags(rng.IntN(20)/19)))
		if round == 5 {
			err = errors.Join(err, do(f, &block.Request{Op: block.Flush}))
		}
		clear(back)
		if err := errors.Join(err, do(f, read(n*(8<<10), back))); err != nil || !bytes.Equal(back, data) {
			t.Errorf("part %d, round %d: other data than was written, %v", n, round, err)
			return
		}
	}
}

// The collector runs while the kernel alone knows the memory.
func TestMemoryStaysWhileTheKernelHasIt(t *testing.T) {
	needRing(t)
	f := opened(t, newFile(t, t.TempDir(), 4*mib), Options{IO: IOURing})
	var wg sync.WaitGroup
	for n := range 128 {
		wg.Add(1)
		data := block.Aligned(16 << 10)
		for i := range data {
			data[i] = byte(n + 1)
		}
		r := write(int64(n)*(16<<10), data, 0)
		r.Done = func(_ *block.Request, err error) {
			if err != nil {
				t.Error(err)
			}
			wg.Done()
		}
		f.Submit(r)
		if n%16 == 0 {
			runtime.GC()
		}
	}
	wg.Wait()
	back := block.Aligned(16 << 10)
	for n := range 128 {
		if err := do(f, read(int64(n)*(16<<10), back)); err != nil || !bytes.Equal(back, bytes.Repeat([]byte{byte(n + 1)}, len(back))) {
			t.Fatalf("part %d: %v", n, err)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(names)
}

// Open, use and Close leave no descriptor, and the lock is gone when Close is.
func TestRingIsReleased(t *testing.T) {
	needRing(t)
	path, before := newFile(t, t.TempDir(), mib), descriptors(t)
	for range 200 {
		f, err := Open(path, Options{IO: IOURing})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(do(f, write(0, block.Aligned(4096), block.FUA)), do(f, &block.Request{Op: block.Flush}), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// What the kernel answers, and what becomes of it. The rest of a short transfer
// and what was not carried out are for a worker; a failed sync is final.
func TestAnswersOfTheRing(t *testing.T) {
	needRing(t)
	for _, c := range []struct {
		res  int32
		want error
	}{
		{4096, nil}, {512, nil}, {0, nil}, {-int32(unix.EAGAIN), nil}, {-int32(unix.ECANCELED), nil}, {-int32(unix.EOPNOTSUPP), nil},
		{-int32(unix.EIO), block.ErrIO}, {-int32(unix.ENOSPC), block.ErrNoSpace},
	} {
		f := opened(t, newFile(t, t.TempDir(), mib), Options{IO: IOURing})
		if err := do(f, write(0, bytes.Repeat([]byte{9}, 4096), 0)); err != nil {
			t.Fatal(err)
		}
		data, done := block.Aligned(4096), make(chan error, 1)
		r := read(0, data)
		r.Done = func(_ *block.Request, err error) { done <- err }
		f.ringAnswer(r, c.res)
		if err := <-done; !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), "read(0, 4096)") {
			t.Errorf("result %d: %v, want %v", c.res, err, c.want)
		}
		if again := c.want == nil && c.res != 4096; again != (data[0] == 9) {
			t.Errorf("result %d: carried out again: %v", c.res, !again)
		}
	}
	f := opened(t, newFile(t, t.TempDir(), mib), Options{IO: IOURing})
	done := make(chan error, 1)
	f.ringAnswer(&block.Request{Op: block.Flush, Done: func(_ *block.Request, err error) { done <- err }}, -int32(unix.EIO))
	if err := errors.Join(<-done); !errors.Is(err, block.ErrIO) {
		t.Error(err)
	}
	if err := do(f, &block.Request{Op: block.Flush}); !errors.Is(err, unix.EIO) {
		t.Errorf("a flush after a failed one: %v", err)
	}
}

// A read past the end of a file that was cut short fails, as it does by a worker.
func TestTruncatedBelowTheRing(t *testing.T) {
	needRing(t)
	path := newFile(t, t.TempDir(), mib)
	f := opened(t, path, Options{IO: IOURing})
	if err := os.Truncate(path, mib/2); err != nil {
		t.Fatal(err)
	}
	if err := do(f, read(mib/2, block.Aligned(4096))); !errors.Is(err, block.ErrIO) {
		t.Error(err)
	}
}

// Requests of many goroutines share one ring of one entry: what finds no room is
// told so, and nothing is lost.
func TestFullRing(t *testing.T) {
	needRing(t)
	fd, err := unix.Open(newFile(t, t.TempDir(), mib), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}()
	var answered, taken atomic.Int64
	ring, err := uring.New(fd, 1, func(any, int32) { answered.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			data := block.Aligned(4096)
			for range 100 {
				if ring.Submit(uring.Request{Op: uring.Write, Data: data, Owner: &data}) {
					taken.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if err := ring.Close(); err != nil {
		t.Fatal(err)
	}
	if answered.Load() != taken.Load() || taken.Load() == 0 {
		t.Errorf("%d taken, %d answered", taken.Load(), answered.Load())
	}
	if ring.Submit(uring.Request{Op: uring.Datasync}) {
		t.Error("a closed ring took a request")
	}
	if err := ring.Close(); !errors.Is(err, uring.ErrClosed) {
		t.Error(err)
	}
}
