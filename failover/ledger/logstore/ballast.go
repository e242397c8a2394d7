package logstore

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNoRoom says that the filesystem, or a quota, is full. What the disk held it still
// holds, and the next change may find room.
var ErrNoRoom = errors.New("no room left for the ledger")

// noRoom is for errors of a full filesystem, or of a quota.
func noRoom(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

const (
	ballastBytes = 1 << 20
	minBallast   = 64 << 10
)

// ballast is a file without contents that has been given room by the filesystem. Going
// alone is a new snapshot, and rejoining a new log: where somebody else has filled the
// filesystem they are written in the ballast, which takes their name. Each is used with
// the writer's token of what it is for.
type ballast struct{ path string }

// lay makes the ballast, or what is missing of it: as much as there is room for, and
// ErrNoRoom when that is not all. It need not be durable, for each open does it again.
func (b ballast) lay() error {
	if info, err := os.Stat(b.path); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Blocks*512 >= ballastBytes {
			return nil
		}
	}
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		defer f.Close() //nolint:errcheck // nothing was written
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, ballastBytes)
	}
	if !noRoom(err) {
		return nil // one that cannot, or has none, is none the worse for having been asked
	}
	for some := int64(ballastBytes / 2); f != nil && some >= minBallast; some /= 2 {
		if unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, some) == nil {
			break
		}
	}
	return fmt.Errorf("lay %s: %w: %w", b.path, ErrNoRoom, err)
}

// write makes the new file at path by fill, and of the ballast where there is no room
// for one. A file for which there was none at all is removed.
func (b ballast) write(path string, fill func(*os.File) error) (*os.File, error) {
	f, err := fillNew(path, os.O_CREATE|os.O_TRUNC, fill)
	if !noRoom(err) || os.Rename(b.path, path) != nil {
		return f, err
	}
	return fillNew(path, 0, fill)
}

func fillNew(path string, flags int, fill func(*os.File) error) (*os.File, error) {
	f, err := os.OpenFile(path, flags|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err = fill(f); err == nil {
		return f, nil
	}
	err = errors.Join(err, f.Close())
	if noRoom(err) {
		err = errors.Join(err, os.Remove(path))
	}
	return nil, err
}

// trim gives back what a file that was written in the ballast has beyond its n bytes: a
// size that changes does it, and one that stays does not everywhere.
func trim(f *os.File, n int64) error {
	if n >= ballastBytes {
		return nil
	}
	return errors.Join(f.Truncate(ballastBytes), f.Truncate(n))
}
