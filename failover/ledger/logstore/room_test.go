package logstore

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// small is a directory on a filesystem of a few MiB, and fill leaves nothing of it.
func small(t *testing.T) (dir string, fill func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a filesystem of its own")
	}
	dir = t.TempDir()
	ok(t, unix.Mount("none", dir, "tmpfs", 0, "size=4m"))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir, func() {
		t.Helper()
		f, err := os.Create(filepath.Join(dir, "full"))
		ok(t, err)
		if _, err := io.Copy(f, zeroes{}); !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		ok(t, f.Close())
	}
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// On a full filesystem a store goes on for as long as its reserve lasts, a rewrite
// included, for which there is no room; it is whole then, and when there is room again
// it goes on in the same process.
func TestFullFilesystem(t *testing.T) {
	dir, fill := small(t)
	s, err := Open(filepath.Join(dir, "ledger"), Options{CompactBytes: 64 << 10})
	ok(t, err)
	ok(t, s.StoreLog(entry(1, 1)))
	fill()
	written := uint64(1)
	big := func(i uint64) *raft.Log { e := entry(i, 1); e.Data = make([]byte, 2000); return e }
	for err == nil {
		if err = s.StoreLog(big(written + 1)); err == nil {
			written++
			err = s.DeleteRange(1, written-1) // most of it is dead: it would be rewritten
		}
	}
	if !errors.Is(err, unix.ENOSPC) || written < reserveBytes/2/4000 {
		t.Fatalf("after %d entries of 2,000 bytes: %v", written, err)
	}
	want := read(t, s)
	ok(t, s.Close())
	s, err = Open(filepath.Join(dir, "ledger"), Options{CompactBytes: 64 << 10})
	ok(t, err)
	if got := read(t, s); !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, want %+v", got, want)
	}
	if err := s.SetUint64([]byte("term"), 7); err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	ok(t, os.Remove(filepath.Join(dir, "full")))
	for i := want.Last; i < want.Last+reserveBytes/8/2000+2; i++ { // a rewrite is tried again soon
		ok(t, s.StoreLog(big(i+1)))
		ok(t, s.DeleteRange(1, i))
	}
	if info, err := s.f.Stat(); err != nil || info.Size() > 128<<10 {
		t.Errorf("it was not rewritten: %d bytes, %v", info.Size(), err)
	}
	ok(t, s.Close())
}
