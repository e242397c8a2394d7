package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	fuseDevice  = "/dev/fuse"
	loopControl = "/dev/loop-control"
	loopMajor   = 7
)

// loop is an attached loop device. It is set to clear itself on its last
// close, and fd is our own share in it: if this process dies, the device goes
// as soon as nobody uses it.
type loop struct {
	number int
	fd     int
	made   bool // we made the node
}

func (l *loop) path() string { return fmt.Sprintf("/dev/loop%d", l.number) }
func (l *loop) dev() uint64  { return unix.Mkdev(loopMajor, uint32(l.number)) }

// attach puts a loop device on an open file. Free numbers are a race with
// everybody else on the kernel, so it tries until one is won. The descriptor
// kept is numbered floor or above. No order of numbers makes a killed process
// close /dev/fuse first: calls that wait for our own device run apart.
func attach(ctx context.Context, file int, name string, blockBytes, floor int) (*loop, error) {
	ctl, _, err := node(loopControl, unix.S_IFCHR, unix.Mkdev(10, 237), unix.O_RDWR)
	if err != nil {
		return nil, err
	}
	defer unix.Close(ctl) // nothing was written to it
	for range loopTriesMax {
		n, err := unix.IoctlRetInt(ctl, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		l, err := attachTo(n, file, name, blockBytes, floor)
		if !errors.Is(err, unix.EBUSY) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("find a free loop device: %w", ctx.Err())
		case <-time.After(loopTryPause):
		}
	}
	return nil, fmt.Errorf("no loop device stayed free long enough in %d tries: %w", loopTriesMax, unix.EBUSY)
}

// attachTo tries one number; an error that is EBUSY says somebody was faster.
func attachTo(number, file int, name string, blockBytes, floor int) (*loop, error) {
	l := &loop{number: number, fd: -1}
	fd, made, err := node(l.path(), unix.S_IFBLK, l.dev(), unix.O_RDWR)
	l.made = made
	if err != nil {
		return nil, errors.Join(err, l.removeNode())
	}
	defer unix.Close(fd) // its share is passed to l.fd; nothing was written
	c := unix.LoopConfig{Fd: uint32(file), Size: uint32(blockBytes)}
	c.Info.Flags = unix.LO_FLAGS_DIRECT_IO | unix.LO_FLAGS_AUTOCLEAR
	copy(c.Info.File_name[:len(c.Info.File_name)-1], name)
	// The kernel flushes and looks at the file, which is our own service.
	if err := apart([]int{fd, file}, func() error { return unix.IoctlLoopConfigure(fd, &c) }); err != nil {
		return nil, errors.Join(fmt.Errorf("attach %s: %w", l.path(), err), l.removeNode())
	}
	// From here on the device detaches itself with its last descriptor.
	got, err := unix.IoctlLoopGetStatus64(fd)
	if err == nil && got.Flags&unix.LO_FLAGS_DIRECT_IO == 0 {
		err = errors.New("the kernel refuses direct I/O on it")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach %s: %w", l.path(), err), l.removeNode())
	}
	// Kept open for reading alone: a second writer would stand in the way of
	// a mount on kernels that forbid writing to mounted devices.
	low, err := unix.Open(l.path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keep %s: %w", l.path(), err), l.removeNode())
	}
	defer unix.Close(low) // only a duplicate is kept
	if l.fd, err = unix.FcntlInt(uintptr(low), unix.F_DUPFD_CLOEXEC, floor); err != nil {
		return nil, errors.Join(fmt.Errorf("keep %s: %w", l.path(), err), l.removeNode())
	}
	return l, nil
}

func (l *loop) removeNode() error {
	if !l.made {
		return nil
	}
	l.made = false
	if err := os.Remove(l.path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the node made for the loop device: %w", err)
	}
	return nil
}

// sync writes out what the page cache has for the device.
func (l *loop) sync() error {
	if err := apart([]int{l.fd}, func() error { return unix.Fsync(l.fd) }); err != nil {
		return fmt.Errorf("flush %s: %w", l.path(), err)
	}
	return nil
}

// clear asks the kernel to detach with the last close. free says that ours is
// the last: from then on the kernel refuses newcomers.
func (l *loop) clear() (free bool, err error) {
	if err := unix.IoctlSetInt(l.fd, unix.LOOP_CLR_FD, 0); err != nil && err != unix.ENXIO {
		return false, fmt.Errorf("detach %s: %w", l.path(), err)
	}
	_, err = unix.IoctlLoopGetStatus64(l.fd)
	return err == unix.ENXIO, nil
}

// close gives our share up.
func (l *loop) close() error {
	if l.fd < 0 {
		return nil
	}
	fd := l.fd
	l.fd = -1
	var err error
	if cerr := unix.Close(fd); cerr != nil {
		err = fmt.Errorf("close %s: %w", l.path(), cerr)
	}
	return errors.Join(err, l.removeNode())
}
