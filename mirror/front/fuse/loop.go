package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"hapair/kernel/apart"
)

const (
	fuseDevice  = "/dev/fuse"
	loopControl = "/dev/loop-control"
	loopMajor   = 7
)

// loop is a loop device. It is set to clear itself on its last close, and fd is
// our own share in it: if this process dies, the device goes as soon as nobody
// uses it.
type loop struct {
	number int
	fd     int
	made   bool // we made the node
}

func (l *loop) path() string { return fmt.Sprintf("/dev/loop%d", l.number) }
func (l *loop) dev() uint64  { return unix.Mkdev(loopMajor, uint32(l.number)) }

// attach puts a loop device on the file. Free numbers are a race with everybody
// else on the kernel, so it tries until one is won. A device that is attached,
// whatever comes after, is demolish's to take down.
func (d *device) attach(ctx context.Context, blockBytes int, readOnly bool) error {
	ctl, _, err := node(loopControl, unix.S_IFCHR, unix.Mkdev(10, 237), unix.O_RDWR)
	if err != nil {
		return err
	}
	defer unix.Close(ctl) //nolint:errcheck // nothing was written to it
	for range loopTriesMax {
		n, err := unix.IoctlRetInt(ctl, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("find a free loop device: %w", err)
		}
		if err := d.attachTo(n, blockBytes, readOnly); !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("find a free loop device: %w", ctx.Err())
		case <-time.After(loopTryPause):
		}
	}
	return fmt.Errorf("no loop device stayed free long enough in %d tries: %w", loopTriesMax, unix.EBUSY)
}

// attachTo tries one number; an error that is EBUSY says somebody was faster.
// Our share is opened first, while there is nothing to wait for, and for reading
// alone: a second writer would stand in the way of a mount on kernels that
// forbid writing to mounted devices.
func (d *device) attachTo(number, blockBytes int, readOnly bool) error {
	l := &loop{number: number, fd: -1}
	share, made, err := node(l.path(), unix.S_IFBLK, l.dev(), unix.O_RDONLY)
	l.made = made
	if err != nil {
		return errors.Join(err, l.removeNode())
	}
	if err := d.order.put(share); err != nil {
		return errors.Join(err, unix.Close(share), l.removeNode())
	}
	l.fd = d.order.share
	err = l.configure(d.point, blockBytes, readOnly)
	if errors.Is(err, unix.EBUSY) {
		l.fd = -1
		return errors.Join(err, d.order.empty(), l.removeNode())
	}
	d.loop, d.order.share = l, -1
	return err
}

// configure puts the device on the file. The kernel opens the file, flushes it
// and looks at it: it asks our own service.
func (l *loop) configure(file string, blockBytes int, readOnly bool) error {
	c := unix.LoopConfig{Size: uint32(blockBytes)}
	c.Info.Flags = unix.LO_FLAGS_DIRECT_IO | unix.LO_FLAGS_AUTOCLEAR
	if readOnly {
		c.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	copy(c.Info.File_name[:len(c.Info.File_name)-1], file)
	err := apart.Do(func() error {
		fd, err := unix.Open(l.path(), unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		backing, err := unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC|unix.O_DIRECT, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", file, err)
		}
		c.Fd = uint32(backing)
		if err := unix.IoctlLoopConfigure(fd, &c); err != nil {
			return err
		}
		got, err := unix.IoctlLoopGetStatus64(fd)
		if err == nil && got.Flags&unix.LO_FLAGS_DIRECT_IO == 0 {
			err = errors.New("the kernel refuses direct I/O on it")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("attach %s: %w", l.path(), err)
	}
	return nil
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
	if err := apart.Do(func() error { return unix.Fsync(l.fd) }, l.fd); err != nil {
		return fmt.Errorf("flush %s: %w", l.path(), err)
	}
	return nil
}

// clear asks the kernel to detach with the last close. free says that ours is
// the last: from then on the kernel refuses newcomers.
func (l *loop) clear() (free bool, err error) {
	err = apart.Do(func() error {
		if err := unix.IoctlSetInt(l.fd, unix.LOOP_CLR_FD, 0); err != nil && err != unix.ENXIO {
			return err
		}
		_, err := unix.IoctlLoopGetStatus64(l.fd) // looks at the file as well
		free = err == unix.ENXIO
		return nil
	}, l.fd)
	if err != nil {
		return false, fmt.Errorf("detach %s: %w", l.path(), err)
	}
	return free, nil
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
