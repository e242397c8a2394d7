package fuse

import (
	"context"
	"fmt"
	"syscall"
	"unsafe"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"hapair/kernel/apart"
	"hapair/mirror/block"
)

// notifyInvalInode is the code of the message by which the kernel is told that
// what it knows of a file is out of date.
const notifyInvalInode = 2

// Resize has the loop device take the size of the file, which is g's from now on.
// A file system on it grows by its own means.
func (f *Fuse) Resize(ctx context.Context, g block.Geometry) error {
	f.acquire()
	defer f.release()
	d := f.device
	if d == nil || d.loop == nil {
		return fmt.Errorf("fuse %s: resize: %w", f.config.Mountpoint, block.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("fuse %s: resize: %w", f.config.Mountpoint, err)
	}
	// From here on it waits for the kernel alone, which asks for the size of the
	// file: the readers answer that.
	d.server.geometry.Store(&g)
	err := d.server.invalidate()
	if err == nil {
		err = d.loop.setCapacity(d.point)
	}
	if err != nil {
		return fmt.Errorf("fuse %s: resize to %d bytes: %w", f.config.Mountpoint, g.SizeBytes, err)
	}
	f.log.Info("device resized", zap.String("device", d.loop.path()), zap.Int64("bytes", g.SizeBytes))
	return nil
}

// invalidate has the kernel ask for the attributes of the file again.
func (s *server) invalidate() error {
	var b [replyHeadBytes + 24]byte
	native.PutUint32(b[:], uint32(len(b)))
	native.PutUint32(b[4:], notifyInvalInode)
	native.PutUint64(b[replyHeadBytes:], rootNode)
	native.PutUint64(b[replyHeadBytes+8:], ^uint64(0)) // a negative offset: the attributes alone
	for {
		_, _, e := unix.Syscall(unix.SYS_WRITE, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch e {
		case 0, syscall.ENOENT: // it knows nothing of the file yet
			return nil
		case unix.EINTR:
			continue
		}
		return fmt.Errorf("tell the kernel of another size: %w", e)
	}
}

// setCapacity: older kernels take the size that they have heard last, so they
// are made to ask first.
func (l *loop) setCapacity(file string) error {
	err := apart.Do(func() error {
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil {
			return fmt.Errorf("stat %s: %w", file, err)
		}
		return unix.IoctlSetInt(l.fd, unix.LOOP_SET_CAPACITY, 0)
	}, l.fd)
	if err != nil {
		return fmt.Errorf("set the size of %s: %w", l.path(), err)
	}
	return nil
}
