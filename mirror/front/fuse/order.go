package fuse

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// order keeps the numbers of descriptors in the order in which they must go if
// the process is killed. The kernel lets go of the highest number first: that
// must be /dev/fuse, which ends the connection. Whoever comes before it could
// wait for its answers: the last close of the loop device writes what the page
// cache has for it, and the end of a mount namespace unmounts the file systems
// on it. So our share in both has a lower number.
type order struct {
	home  int // our mount namespace, which cannot end while this is open
	share int // of the loop device to come; -1: the device has it
}

func newOrder() (order, error) {
	o := order{home: -1, share: -1}
	var err error
	if o.home, err = unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return o, fmt.Errorf("open our mount namespace: %w", err)
	}
	if o.share, err = unix.FcntlInt(uintptr(o.home), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return o, fmt.Errorf("take a number for the loop device: %w", err)
	}
	return o, nil
}

// above gives a descriptor a number above the others'.
func (o *order) above(fd int) (int, error) {
	floor := max(o.home, o.share) + 1
	if fd >= floor {
		return fd, nil
	}
	up, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, floor)
	if err != nil {
		err = fmt.Errorf("take a number for /dev/fuse: %w", err)
	}
	if cerr := unix.Close(fd); cerr != nil {
		err = errors.Join(err, fmt.Errorf("close /dev/fuse: %w", cerr))
	}
	return up, err
}

// put moves a descriptor to the number taken for the loop device.
func (o *order) put(fd int) error {
	if err := unix.Dup3(fd, o.share, unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("keep the loop device: %w", err)
	}
	return unix.Close(fd)
}

// empty takes back what was put.
func (o *order) empty() error {
	if err := unix.Dup3(o.home, o.share, unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("let go of the loop device: %w", err)
	}
	return nil
}

// release gives the numbers back.
func (o *order) release() error {
	var err error
	if o.share >= 0 {
		err = unix.Close(o.share)
	}
	if o.home >= 0 {
		err = errors.Join(err, unix.Close(o.home))
	}
	o.home, o.share = -1, -1
	return err
}
