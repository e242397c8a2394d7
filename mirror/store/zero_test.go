package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hapair/mirror/block"
)

// allocated is how many bytes the disk takes on the filesystem it is on.
func allocated(t *testing.T, f *File) int64 {
	t.Helper()
	if err := do(f, &block.Request{Op: block.Flush}); err != nil {
		t.Fatal(err)
	}
	path := f.Path()
	if f.IsBlockDevice() {
		backing, err := os.ReadFile("/sys/block/" + filepath.Base(path) + "/loop/backing_file")
		if err != nil {
			t.Fatal(err)
		}
		path = strings.TrimSpace(string(backing))
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// fillDisk writes the first MiB.
func fillDisk(t *testing.T, f *File) {
	t.Helper()
	if err := do(f, write(0, bytes.Repeat([]byte{7}, mib), 0)); err != nil {
		t.Fatal(err)
	}
}

// readsZero sees that the first MiB does.
func readsZero(t *testing.T, f *File) {
	t.Helper()
	back := make([]byte, mib)
	if err := do(f, read(0, back)); err != nil || bytes.Count(back, []byte{0}) != mib {
		t.Errorf("%d bytes of %d are zero, %v", bytes.Count(back, []byte{0}), mib, err)
	}
}

// Zeroes that may unmap, and discards, free what lies below; those that may not do not.
// All of them leave zeroes.
func TestHolesFree(t *testing.T) {
	kinds(t, func(t *testing.T, f *File) {
		if !f.Geometry().Discard {
			t.Skip("no holes can be made here")
		}
		for _, c := range []struct {
			op    block.Op
			flags block.Flags
			frees bool
		}{{block.WriteZeroes, 0, true}, {block.WriteZeroes, block.NoUnmap, false}, {block.WriteZeroes, block.FUA, true}, {block.Discard, 0, true}} {
			fillDisk(t, f)
			before := allocated(t, f)
			if err := do(f, &block.Request{Op: c.op, Flags: c.flags, Length: mib}); err != nil {
				t.Fatal(err)
			}
			if freed := before - allocated(t, f); c.frees != (freed >= mib) {
				t.Errorf("%s with flags %d frees %d bytes of %d", c.op, c.flags, freed, before)
			}
			readsZero(t, f)
		}
	})
}

// A device that rejects the command for a hole, or fails it, gets its zeroes otherwise; it
// is not given up, and not asked again if it does not know the command.
func TestHoleRejected(t *testing.T) {
	for _, c := range []struct {
		err  error
		asks int
	}{{unix.EREMOTEIO, 1}, {unix.EOPNOTSUPP, 1}, {unix.EIO, 4}} {
		f := opened(t, newFile(t, t.TempDir(), mib), Options{})
		asks := 0
		f.allocate = func(fd int, mode uint32, off, length int64) error {
			if mode&unix.FALLOC_FL_PUNCH_HOLE != 0 {
				asks++
				return c.err
			}
			return unix.Fallocate(fd, mode, off, length)
		}
		for _, op := range []block.Op{block.Discard, block.WriteZeroes, block.Discard, block.WriteZeroes} {
			fillDisk(t, f)
			if err := do(f, &block.Request{Op: op, Flags: block.FUA, Length: mib}); err != nil {
				t.Errorf("%s where holes fail with %v: %v", op, c.err, err)
			}
			readsZero(t, f)
		}
		if asks != c.asks {
			t.Errorf("%v: asked %d times, want %d", c.err, asks, c.asks)
		}
	}
}

// A disk whose zeroes cannot be had at all says so.
func TestZeroesFail(t *testing.T) {
	f := opened(t, newFile(t, t.TempDir(), mib), Options{})
	f.allocate = func(int, uint32, int64, int64) error { return unix.EIO }
	for _, op := range []block.Op{block.Discard, block.WriteZeroes} {
		if err := do(f, &block.Request{Op: op, Length: mib}); !errors.Is(err, block.ErrIO) {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// Whether a device frees anything goes by both of its limits.
func TestFrees(t *testing.T) {
	f := opened(t, loop(t, mib), Options{})
	discard, ok := queueAttribute(f.dev, "discard_max_bytes")
	zeroes, okToo := queueAttribute(f.dev, "write_zeroes_max_bytes")
	if !ok || !okToo {
		t.Fatal("the limits of a loop device cannot be read")
	}
	if want := discard != "0" && zeroes != "0"; f.Geometry().Discard != want {
		t.Errorf("discards at most %s bytes, zeroes at most %s: Discard is %t", discard, zeroes, f.Geometry().Discard)
	}
	if frees(unix.Mkdev(4095, 0)) {
		t.Error("a device that is not there frees something")
	}
}
