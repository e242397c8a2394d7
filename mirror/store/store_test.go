package store

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"hapair/mirror/block"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

func newFile(t testing.TB, dir string, size int64) string {
	t.Helper()
	path := filepath.Join(dir, "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func opened(t testing.TB, path string, o Options) *File {
	t.Helper()
	f, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil && !errors.Is(err, block.ErrClosed) {
			t.Error(err)
		}
	})
	return f
}

func do(d block.Disk, r *block.Request) error {
	done := make(chan error, 1)
	r.Done = func(_ *block.Request, err error) { done <- err }
	d.Submit(r)
	return <-done
}

func write(off int64, data []byte, flags block.Flags) *block.Request {
	return &block.Request{Op: block.Write, Flags: flags, Offset: off, Length: int64(len(data)), Data: data}
}

func read(off int64, data []byte) *block.Request {
	return &block.Request{Op: block.Read, Offset: off, Length: int64(len(data)), Data: data}
}

// loop sets up a loop device on a new file.
func loop(t testing.TB, size int64) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a loop device needs root")
	}
	path := newFile(t, t.TempDir(), size)
	out, err := exec.Command("losetup", "--find", "--show", path).CombinedOutput()
	if err != nil {
		t.Skipf("losetup: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach: %v: %s", err, out)
		}
	})
	return dev
}

// kinds are the disks every behaviour is tested on.
func kinds(t *testing.T, fn func(t *testing.T, f *File)) {
	for name, o := range map[string]Options{"file": {}, "buffered": {Buffered: true}, "inline": {Mode: Inline}, "workers": {Mode: Workers}, "one worker": {Workers: 1}} {
		t.Run(name, func(t *testing.T) { fn(t, opened(t, newFile(t, t.TempDir(), 8*mib), o)) })
	}
	t.Run("memory", func(t *testing.T) {
		dir, err := os.MkdirTemp("/dev/shm", "store")
		if err != nil {
			t.Skip("no /dev/shm:", err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		fn(t, opened(t, newFile(t, dir, 8*mib), Options{}))
	})
	t.Run("loop device", func(t *testing.T) { fn(t, opened(t, loop(t, 8*mib), Options{})) })
}

// Random requests, aligned or not in memory, against a copy in memory.
func TestAgainstModel(t *testing.T) {
	kinds(t, func(t *testing.T, f *File) {
		g := f.Geometry()
		if g.SizeBytes != 8*mib {
			t.Fatalf("%+v", g)
		}
		unit, rng := g.LogicalBlockBytes, rand.New(rand.NewPCG(1, 2))
		model, memory := make([]byte, g.SizeBytes), block.Aligned(mib+512)
		for n := range 400 {
			length := unit * (1 + rng.IntN(128*1024/unit))
			off := int64(unit * rng.IntN((int(g.SizeBytes)-length)/unit+1))
			data := memory[512*(n%2):][:length]
			part := model[off : off+int64(length)]
			r := &block.Request{Op: []block.Op{block.Read, block.Write, block.Write, block.WriteZeroes, block.Flush, block.Discard}[rng.IntN(6)],
				Flags: block.Flags(rng.IntN(4)), Offset: off, Length: int64(length)}
			switch r.Op {
			case block.Read, block.Write:
				r.Data = data
			case block.Flush:
				r.Offset, r.Length = 0, 0
			}
			if r.Op == block.Write {
				for i := range data {
					data[i] = byte(rng.Uint32())
				}
				copy(part, data)
			}
			if err := do(f, r); err != nil {
				t.Fatal(err)
			}
			switch r.Op {
			case block.Read:
				if !bytes.Equal(data, part) {
					t.Fatalf("%s: other data than was written", r)
				}
			case block.WriteZeroes, block.Discard:
				clear(part)
			}
		}
		back := make([]byte, mib)
		for off := int64(0); off < g.SizeBytes; off += mib {
			if err := do(f, read(off, back)); err != nil || !bytes.Equal(back, model[off:off+mib]) {
				t.Fatalf("at %d: %v", off, err)
			}
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	kinds(t, func(t *testing.T, f *File) {
		var wg sync.WaitGroup
		for n := range 64 {
			wg.Go(func() {
				data := block.Aligned(4096)
				for round := range 20 {
					for i := range data {
						data[i] = byte(n + round)
					}
					if err := do(f, write(int64(n)*4096, data, 0)); err != nil {
						t.Error(err)
					}
					clear(data)
					if err := do(f, read(int64(n)*4096, data)); err != nil || data[0] != byte(n+round) || data[4095] != byte(n+round) {
						t.Errorf("%v, %d", err, data[0])
					}
				}
			})
		}
		wg.Wait()
	})
}

// A Done may submit the next request, even when every worker does so at once.
func TestSubmitFromDone(t *testing.T) {
	kinds(t, func(t *testing.T, f *File) {
		var wg sync.WaitGroup
		for n := range 200 {
			wg.Add(1)
			left := 5
			r := read(int64(n)*4096, block.Aligned(4096))
			r.Done = func(r *block.Request, err error) {
				if err != nil {
					t.Error(err)
				}
				if left--; left == 0 {
					wg.Done()
					return
				}
				f.Submit(r)
			}
			f.Submit(r)
		}
		wg.Wait()
	})
}

// Plugged requests wait for Unplug where the kernel carries them out, and for
// nothing elsewhere.
func TestPlugged(t *testing.T) {
	kinds(t, func(t *testing.T, f *File) {
		const n = 40
		ended := make(chan error, n)
		for i := range n {
			r := write(int64(i)*4096, block.Aligned(4096), 0)
			r.Plugged = true
			r.Done = func(_ *block.Request, err error) { ended <- err }
			f.Submit(r)
		}
		if async, _ := f.Async(); async && len(ended) != 0 {
			t.Errorf("%d requests ended before Unplug", len(ended))
		}
		f.Unplug()
		for range n {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	kinds(t, func(t *testing.T, f *File) {
		size := f.Geometry().SizeBytes
		for _, c := range []struct {
			r    *block.Request
			want error
		}{
			{read(size, make([]byte, 4096)), block.ErrRange},
			{write(size-4096, make([]byte, 8192), 0), block.ErrRange},
			{read(-4096, make([]byte, 4096)), block.ErrRange},
			{read(100, make([]byte, 4096)), block.ErrAlignment},
			{read(0, make([]byte, 2*mib)), block.ErrTooLong},
			{&block.Request{Op: 99, Length: 4096}, block.ErrNotSupp},
		} {
			if err := do(f, c.r); !errors.Is(err, c.want) || !strings.Contains(err.Error(), f.Path()) {
				t.Errorf("%s: %v, want %v and the path", c.r, err, c.want)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		for _, r := range []*block.Request{read(0, make([]byte, 4096)), {Op: block.Flush}} {
			if err := do(f, r); !errors.Is(err, block.ErrClosed) {
				t.Errorf("%s on a closed disk: %v", r, err)
			}
		}
		if err := f.Close(); !errors.Is(err, block.ErrClosed) {
			t.Errorf("closed twice: %v", err)
		}
	})
}

func TestCloseWaits(t *testing.T) {
	f := opened(t, newFile(t, t.TempDir(), 8*mib), Options{Mode: Workers, Workers: 2})
	var answered sync.WaitGroup
	var mu sync.Mutex
	n := 0
	for i := range 100 {
		answered.Add(1)
		r := write(int64(i)*4096, block.Aligned(4096), 0)
		r.Done = func(_ *block.Request, err error) {
			mu.Lock()
			n++
			mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			answered.Done()
		}
		f.Submit(r)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if n != 100 {
		t.Errorf("Close returned with %d of 100 answered", n)
	}
	mu.Unlock()
	answered.Wait()
}

// Close waits for what is carried out inline, its Done included.
func TestCloseWaitsInline(t *testing.T) {
	path := newFile(t, t.TempDir(), mib)
	synctest.Test(t, func(t *testing.T) {
		f, err := Open(path, Options{Mode: Inline})
		if err != nil {
			t.Fatal(err)
		}
		gate, closed := make(chan struct{}), make(chan error, 1)
		r := read(0, block.Aligned(4096))
		r.Done = func(*block.Request, error) { <-gate }
		go f.Submit(r)
		synctest.Wait()
		go func() { closed <- f.Close() }()
		synctest.Wait()
		if len(closed) != 0 {
			t.Error("Close did not wait")
		}
		close(gate)
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}
