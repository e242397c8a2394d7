package logstore

import (
	"bytes"
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
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil { // a test that failed has files open
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

// On a full filesystem a store goes on without end while most of it is dead, for it is
// rewritten in its ballast, and else for as long as its reserve lasts; it is whole then,
// and when there is room again it goes on in the same process.
func TestFullFilesystem(t *testing.T) {
	dir, fill := small(t)
	s, err := Open(filepath.Join(dir, "ledger"), Options{CompactBytes: 64 << 10})
	ok(t, err)
	ok(t, s.StoreLog(entry(1, 1)))
	fill()
	written := uint64(1)
	big := func(i uint64) *raft.Log { e := entry(i, 1); e.Data = make([]byte, 2000); return e }
	for written < 4*reserveBytes/2000 {
		written++
		ok(t, s.StoreLog(big(written)))
		ok(t, s.DeleteRange(1, written-1))
	}
	for err == nil {
		if err = s.StoreLog(big(written + 1)); err == nil {
			written++
		}
	}
	if !errors.Is(err, ErrNoRoom) || !errors.Is(err, unix.ENOSPC) || written < 4*reserveBytes/2000+reserveBytes/4/2000 {
		t.Fatalf("after %d entries of 2,000 bytes: %v", written, err)
	}
	want := read(t, s)
	ok(t, s.Close())
	s, err = Open(filepath.Join(dir, "ledger"), Options{CompactBytes: 64 << 10})
	ok(t, err)
	if got := read(t, s); !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, want %+v", got, want)
	}
	if err := s.SetUint64([]byte("term"), 7); err != nil && !errors.Is(err, ErrNoRoom) {
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

// With no room at all a snapshot is replaced again and again, and a log is thrown away:
// going alone and rejoining wait for nobody who makes room.
func TestReplacedOnAFullFilesystem(t *testing.T) {
	dir, fill := small(t)
	dir = filepath.Join(dir, "ledger")
	s, err := Open(dir, Options{})
	ok(t, err)
	snaps, err := OpenSnapshots(dir, Options{})
	ok(t, err)
	ok(t, s.StoreLog(entry(1, 1)))
	data := string(make([]byte, 100<<10))
	ok(t, snapshotOf(snaps, 1, data))
	fill()
	ok(t, snapshotOf(snaps, 1, data))
	var st unix.Stat_t
	if err := unix.Stat(snaps.path(), &st); err != nil || st.Blocks*512 > 2*int64(len(data)) {
		t.Errorf("the snapshot of %d bytes has %d blocks, %v", len(data), st.Blocks, err)
	}
	for i := uint64(2); i < 30; i++ {
		data += "more than it was"
		ok(t, snapshotOf(snaps, i, data))
		ok(t, s.Reset(map[string][]byte{"kept": {byte(i)}}))
	}
	ok(t, s.Close())
	s, err = Open(dir, Options{})
	ok(t, err)
	snaps, err = OpenSnapshots(dir, Options{})
	ok(t, err)
	if kept, err := s.Get([]byte("kept")); err != nil || !bytes.Equal(kept, []byte{29}) || snaps.meta.Index != 29 || string(snaps.data) != data {
		t.Errorf("%v, %v, snapshot %+v", kept, err, snaps.meta)
	}
	ok(t, s.Close())
}

// Without room for a ballast a ledger opens, a snapshot for which there is none leaves
// the one there is, and when there is room again it is kept.
func TestNoRoomForABallast(t *testing.T) {
	dir, fill := small(t)
	snaps, err := OpenSnapshots(dir, Options{})
	ok(t, err)
	ok(t, snapshotOf(snaps, 1, "one"))
	ok(t, os.Remove(snaps.ballast().path))
	fill()
	snaps, err = OpenSnapshots(dir, Options{})
	ok(t, err)
	if err := snaps.KeepRoom(); !errors.Is(err, ErrNoRoom) {
		t.Errorf("room is kept where there is none: %v", err)
	}
	if err := snapshotOf(snaps, 2, string(make([]byte, 200<<10))); !errors.Is(err, ErrNoRoom) || snaps.meta.Index != 1 {
		t.Errorf("written where there is no room: %v", err)
	}
	ok(t, os.Remove(filepath.Join(dir, "full")))
	ok(t, snaps.KeepRoom())
	fill()
	ok(t, snapshotOf(snaps, 2, string(make([]byte, 200<<10))))
}
