package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hapair/mirror/block"
)

func TestExclusive(t *testing.T) {
	path := newFile(t, t.TempDir(), mib)
	first := opened(t, path, Options{})
	if _, err := Open(path, Options{}); !errors.Is(err, ErrInUse) {
		t.Fatalf("a second open of a file: %v", err)
	}
	ro, err := Open(path, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := do(ro, write(0, make([]byte, 4096), 0)); !errors.Is(err, block.ErrNotSupp) {
		t.Errorf("a write on a read-only disk: %v", err)
	}
	if err := errors.Join(ro.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	opened(t, path, Options{})
}

// Who has a disk for a moment, as udev has one it looks at, is waited for; who keeps it is
// not.
func TestPatience(t *testing.T) {
	path := newFile(t, t.TempDir(), mib)
	other, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(other.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{Patience: 2 * busyPause}); !errors.Is(err, ErrInUse) {
		t.Errorf("a disk that somebody keeps: %v", err)
	}
	closed := make(chan error, 1)
	time.AfterFunc(300*time.Millisecond, func() { closed <- other.Close() })
	f := opened(t, path, Options{Patience: 20 * time.Second})
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if direct, why := f.Direct(); direct == (why != "") {
		t.Errorf("direct I/O: %t, %q", direct, why)
	}
}

func TestExclusiveDevice(t *testing.T) {
	dev := loop(t, 16*mib)
	first := opened(t, dev, Options{})
	if _, err := Open(dev, Options{}); !errors.Is(err, ErrInUse) {
		t.Fatalf("a second open of a device: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", dev).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v: %s", err, out)
	}
	dir := filepath.Join(t.TempDir(), "a b")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(dev, dir, "ext4", 0, ""); err != nil {
		t.Skip("mount:", err)
	}
	_, err := Open(dev, Options{})
	if umount := unix.Unmount(dir, 0); umount != nil {
		t.Error(umount)
	}
	if !errors.Is(err, ErrMounted) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("a mounted device: %v", err)
	}
}

func TestFileUnderLoopDevice(t *testing.T) {
	dev := loop(t, mib)
	backing, err := os.ReadFile("/sys/block/" + filepath.Base(dev) + "/loop/backing_file")
	if err != nil {
		t.Skip(err)
	}
	if _, err := Open(strings.TrimSpace(string(backing)), Options{}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dev) {
		t.Fatal(err)
	}
}

func TestOpenRefusals(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]error{
		dir:                             ErrKind,
		"/dev/null":                     ErrKind,
		filepath.Join(dir, "nothing"):   os.ErrNotExist,
		newFile(t, dir, 0):              nil,
		newFile(t, t.TempDir(), 511):    nil,
		filepath.Join(dir, "disk", "x"): unix.ENOTDIR,
	} {
		f, err := Open(path, Options{})
		if err == nil {
			t.Errorf("%s was opened, %+v", path, f.Geometry())
		} else if want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	if _, err := Open("/dev/null", Options{Workers: MaxWorkers + 1}); err == nil {
		t.Error("too many workers")
	}
}

// A full filesystem is ErrNoSpace; a failed flush stays failed.
func TestErrorsOfTheDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("mount tmpfs:", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	f := opened(t, newFile(t, dir, 4*mib), Options{})
	var err error
	for off := int64(0); off < 4*mib && err == nil; off += mib / 2 {
		err = do(f, write(off, bytes.Repeat([]byte{1}, mib/2), 0))
	}
	if !errors.Is(err, block.ErrNoSpace) || !strings.Contains(err.Error(), "write(") {
		t.Errorf("a full filesystem: %v", err)
	}
	failure := sentinel(unix.EIO)
	f.lost.Store(&failure)
	if err := do(f, &block.Request{Op: block.Flush}); !errors.Is(err, block.ErrIO) || !errors.Is(err, unix.EIO) {
		t.Errorf("a flush after a failed one: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestFallbacks(t *testing.T) {
	f := opened(t, newFile(t, t.TempDir(), mib), Options{})
	f.can.noDsync.Store(true)
	f.can.noPunch.Store(true)
	f.can.noZero.Store(true)
	data := bytes.Repeat([]byte{7}, mib)
	if err := do(f, write(0, data, block.FUA)); err != nil {
		t.Fatal(err)
	}
	if err := do(f, &block.Request{Op: block.WriteZeroes, Flags: block.FUA, Offset: 4096, Length: mib / 2}); err != nil {
		t.Fatal(err)
	}
	if err := do(f, &block.Request{Op: block.Discard, Offset: mib / 2, Length: mib/2 - 4096}); err != nil {
		t.Fatal(err)
	}
	clear(data[4096 : mib-4096])
	back := make([]byte, mib)
	if err := do(f, read(0, back)); err != nil || !bytes.Equal(back, data) {
		t.Fatalf("other data than was written, %v", err)
	}
}

func TestSection(t *testing.T) {
	f := opened(t, newFile(t, t.TempDir(), mib), Options{})
	s := Section(f, 64<<10, 128<<10)
	if s.Geometry().SizeBytes != 128<<10 {
		t.Fatalf("%+v", s.Geometry())
	}
	data := bytes.Repeat([]byte{5}, 4096)
	for _, r := range []*block.Request{write(128<<10-4096, data, 0), {Op: block.Flush}} {
		if err := do(s, r); err != nil {
			t.Fatal(err)
		}
	}
	back := make([]byte, 4096)
	if err := do(f, read(192<<10-4096, back)); err != nil || !bytes.Equal(back, data) {
		t.Fatalf("%v", err)
	}
	if err := do(s, write(128<<10, data, 0)); !errors.Is(err, block.ErrRange) {
		t.Fatalf("past the end of the section: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := do(s, read(0, back)); !errors.Is(err, block.ErrClosed) {
		t.Fatalf("a closed section: %v", err)
	}
	if err := do(f, read(0, back)); err != nil {
		t.Fatalf("closing the section closed the disk: %v", err)
	}
}

// cycle carries out one request after another without allocating.
type cycle struct {
	r    *block.Request
	done chan error
}

func newCycle(r *block.Request) *cycle {
	c := &cycle{r: r, done: make(chan error, 1)}
	r.Done = func(_ *block.Request, err error) { c.done <- err }
	return c
}

func (c *cycle) run(d block.Disk) error { d.Submit(c.r); return <-c.done }

var poolsForget bool

func TestNothingIsAllocated(t *testing.T) {
	if poolsForget {
		t.Skip("sync.Pool forgets at random under the race detector")
	}
	kinds(t, func(t *testing.T, f *File) {
		data := block.Aligned(8192)
		section := Section(f, 0, mib)
		for name, c := range map[string]*cycle{
			"read": newCycle(read(0, data[:4096])), "write": newCycle(write(0, data[:4096], 0)),
			"fua": newCycle(write(0, data[:4096], block.FUA)), "bounced": newCycle(write(0, data[512:][:4096], 0)),
			"flush": newCycle(&block.Request{Op: block.Flush}),
		} {
			n := testing.AllocsPerRun(50, func() {
				if err := c.run(section); err != nil {
					t.Error(err)
				}
			})
			if n >= 1 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
	})
}

func BenchmarkWrite4K(b *testing.B) {
	for _, dir := range []string{"", "/dev/shm"} {
		for name, mode := range map[string]Mode{"auto": Auto, "workers": Workers, "inline": Inline} {
			for _, depth := range []int{1, 4, 32} {
				b.Run(fmt.Sprintf("dir=%s/%s/qd=%d", dir, name, depth), func(b *testing.B) {
					tmp, err := os.MkdirTemp(dir, "store")
					if err != nil {
						b.Skip(err)
					}
					defer os.RemoveAll(tmp) // a leftover in a temporary directory
					f := opened(b, newFile(b, tmp, 64*mib), Options{Mode: mode})
					if err := f.writeZeroes(&block.Request{Length: 64 * mib}); err != nil {
						b.Fatal(err)
					}
					b.ResetTimer()
					var wg sync.WaitGroup
					for d := range depth {
						wg.Go(func() {
							rng := rand.New(rand.NewPCG(uint64(d), 1))
							c := newCycle(write(0, block.Aligned(4096), 0))
							for range b.N / depth {
								c.r.Offset = int64(rng.IntN(16384)) * 4096
								if err := c.run(f); err != nil {
									b.Error(err)
								}
							}
						})
					}
					wg.Wait()
				})
			}
		}
	}
}
