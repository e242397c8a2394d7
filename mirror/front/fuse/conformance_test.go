package fuse_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"hapair/mirror/front"
	"hapair/mirror/front/fronttest"
	"hapair/mirror/front/fuse"
)

func TestConformance(t *testing.T) {
	if err := fuse.Usable(); err != nil {
		t.Skipf("FUSE and loop devices: %v", err)
	}
	fronttest.Run(t, fronttest.Subject{
		New: func(t *testing.T) front.Frontend {
			dir := t.TempDir()
			t.Cleanup(func() { nothingLeft(t, dir) })
			return fuse.New(fuse.Config{Mountpoint: filepath.Join(dir, "fuse", "r0-0"), Link: filepath.Join(dir, "dev", "r0", "0")})
		},
		Open:            openDevice,
		FUAIsFlush:      true,
		DiscardIsZeroes: true,
		AbortErrno:      syscall.EIO,
		Errno: func(number syscall.Errno) syscall.Errno {
			// The loop device passes on what the block layer has a status for.
			if number == syscall.ENOSPC {
				return number
			}
			return syscall.EIO
		},
	})
}

// user does direct I/O on a block device.
type user struct{ file *os.File }

func openDevice(t *testing.T, path string) fronttest.Client {
	t.Helper()
	return user{openDirect(t, path)}
}

func (u user) Read(p []byte, offset int64) error {
	_, err := u.file.ReadAt(p, offset)
	return err
}

func (u user) Write(p []byte, offset int64, fua bool) error {
	if !fua {
		_, err := u.file.WriteAt(p, offset)
		return err
	}
	_, err := unix.Pwritev2(int(u.file.Fd()), [][]byte{p}, offset, unix.RWF_DSYNC)
	return err
}

func (u user) Flush() error { return u.file.Sync() }

// ranged makes an ioctl that takes offset and length.
func (u user) ranged(request uintptr, offset, length int64) error {
	arg := [2]uint64{uint64(offset), uint64(length)}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, u.file.Fd(), request, uintptr(unsafe.Pointer(&arg))); e != 0 {
		return e
	}
	return nil
}

func (u user) Discard(offset, length int64) error { return u.ranged(unix.BLKDISCARD, offset, length) }

func (u user) WriteZeroes(offset, length int64, keep bool) error {
	if keep {
		return u.ranged(unix.BLKZEROOUT, offset, length)
	}
	return unix.Fallocate(int(u.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
}

func (u user) Close() error { return u.file.Close() }
