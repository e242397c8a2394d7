package store

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrShrunk: a disk is smaller than it was when it was opened.
var ErrShrunk = errors.New("the disk has become smaller")

// Measure looks how large the disk is now; Geometry says that from then on. The
// error wraps ErrShrunk, and the old size stays, where it has become smaller.
func (f *File) Measure() (sizeBytes int64, err error) {
	if f.isBlock {
		sizeBytes, err = unix.Seek(f.fd, 0, unix.SEEK_END)
	} else {
		var st unix.Stat_t
		err = unix.Fstat(f.fd, &st)
		unit := int64(f.geometry.LogicalBlockBytes)
		sizeBytes = st.Size / unit * unit
	}
	was := f.size.Load()
	if err == nil && sizeBytes < was {
		err = fmt.Errorf("%w: it had %d bytes and has %d", ErrShrunk, was, sizeBytes)
	}
	if err != nil {
		return was, fmt.Errorf("measure backing disk %s: %w", f.path, err)
	}
	f.size.Store(sizeBytes)
	return sizeBytes, nil
}

// Extend makes a regular file at least as large, durably. A device is as large
// as it is.
func (f *File) Extend(sizeBytes int64) error {
	if f.isBlock || f.size.Load() >= sizeBytes {
		return nil
	}
	err := unix.Ftruncate(f.fd, sizeBytes)
	if err == nil {
		err = unix.Fsync(f.fd)
	}
	if err == nil {
		_, err = f.Measure()
	}
	if err != nil {
		return fmt.Errorf("extend %s to %d bytes: %w", f.path, sizeBytes, err)
	}
	return nil
}
