package service

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// ErrUnknownFilesystem is returned when a device carries no filesystem that is
// recognised, and the configuration names none.
var ErrUnknownFilesystem = errors.New("no known filesystem (ext2/3/4, xfs, btrfs or f2fs)")

const (
	extSuper      = 1024
	extMagic      = 0xef53
	extHasJournal = 0x4    // compatible feature
	extOnlyInExt4 = 0x2c0  // incompatible: extents, 64-bit, flexible groups
	extRoOnlyExt4 = 0x0478 // read-only compatible: huge files, checksums, link counts, inode size
	btrfsSuper    = 0x10040
	f2fsMagic     = 0xf2f52010
)

// detectType reads the filesystem type from its superblock.
func detectType(r io.ReaderAt) (string, error) {
	head := make([]byte, 2048)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	head = head[:n]
	if bytes.HasPrefix(head, []byte("XFSB")) {
		return "xfs", nil
	}
	if len(head) >= extSuper+0x68 {
		sb := head[extSuper:]
		if binary.LittleEndian.Uint16(sb[0x38:]) == extMagic {
			return extType(sb), nil
		}
		if binary.LittleEndian.Uint32(sb) == f2fsMagic {
			return "f2fs", nil
		}
	}
	magic := make([]byte, 8)
	if _, err := r.ReadAt(magic, btrfsSuper); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if string(magic) == "_BHRfS_M" {
		return "btrfs", nil
	}
	return "", ErrUnknownFilesystem
}

func extType(sb []byte) string {
	compat := binary.LittleEndian.Uint32(sb[0x5c:])
	incompat := binary.LittleEndian.Uint32(sb[0x60:])
	roCompat := binary.LittleEndian.Uint32(sb[0x64:])
	switch {
	case incompat&extOnlyInExt4 != 0 || roCompat&extRoOnlyExt4 != 0:
		return "ext4"
	case compat&extHasJournal != 0:
		return "ext3"
	default:
		return "ext2"
	}
}

// detectDevice reads the filesystem type from a device.
func detectDevice(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open %s to find its filesystem: %w", path, err)
	}
	defer unix.Close(fd) //nolint:errcheck // only read from
	kind, err := detectType(descriptor(fd))
	if err != nil {
		return "", fmt.Errorf("find the filesystem of %s: %w", path, err)
	}
	return kind, nil
}

// descriptor is an io.ReaderAt on a bare descriptor, which any thread may have.
type descriptor int

func (d descriptor) ReadAt(p []byte, at int64) (read int, err error) {
	for read < len(p) {
		n, err := unix.Pread(int(d), p[read:], at+int64(read))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return read, err
		case n == 0:
			return read, io.EOF
		default:
			read += n
		}
	}
	return read, nil
}
