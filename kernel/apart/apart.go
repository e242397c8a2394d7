// Package apart makes system calls that may wait for a block device which this
// very process serves.
//
// A killed process is gone when its last thread is. A thread that waits for our
// own device waits for /dev/fuse to be closed, which is closed with the last
// thread that has it: one that has it and waits would wait for itself, for
// ever, and with it everybody who looks at the device. So whatever may wait for
// a device of ours is called on a thread that does not have /dev/fuse.
package apart

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Do runs fn on a thread of its own, with a table of descriptors of its own in
// which are only the standard ones and keep. If the process is killed while fn
// waits, the other threads close what they have, the connection of the device
// ends, and the call that waits fails.
//
// fn makes system calls, by package unix, and little else: package os hands
// descriptors to the runtime's poller, and what keeps a descriptor elsewhere,
// such as a logger, has none here. Descriptors that fn opens end with it, and so
// does the thread, which had other work before: what was started from it with a
// signal for the death of its parent (PR_SET_PDEATHSIG) gets that.
//
// Where the kernel (before 5.9) or a sandbox refuses a table of its own, fn
// runs with the common one.
func Do(fn func() error, keep ...int) error {
	// The runtime makes its poller with the first timer: it must be there
	// before the table is parted, as a collection on the thread may poll.
	time.AfterFunc(time.Hour, func() {}).Stop()
	var err error
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		runtime.LockOSThread() // never unlocked: the thread ends with its table
		if unix.Gettid() == unix.Getpid() {
			// The first thread does not end. While it is locked here,
			// another one takes the work.
			err = Do(fn, keep...)
			runtime.UnlockOSThread()
			return
		}
		err = onThread(fn, keep)
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
	return err
}

// onThread runs fn on the calling thread, whose table it parts from the others'.
func onThread(fn func() error, keep []int) error {
	own, err := partTable(keep)
	if err != nil {
		return err
	}
	if !own {
		return fn()
	}
	// Whoever waits for fn may rely on its descriptors being closed.
	return errors.Join(fn(), closeOthers(nil))
}

// partTable gives the calling thread a table of its own. What is numbered above
// all that stays never comes into it; the rest is closed at once.
func partTable(keep []int) (own bool, err error) {
	open, err := descriptors()
	if err != nil {
		return false, err
	}
	last := 2
	for _, fd := range open {
		if stays(fd, keep) {
			last = max(last, fd)
		}
	}
	if unix.CloseRange(uint(last+1), math.MaxUint32, unix.CLOSE_RANGE_UNSHARE) != nil {
		return false, nil
	}
	return true, closeOthers(keep)
}

// stays reports whether a descriptor is a standard one, in keep, or one of
// those that the runtime's poller works with.
func stays(fd int, keep []int) bool {
	if fd <= 2 || slices.Contains(keep, fd) {
		return true
	}
	var to [64]byte
	n, err := unix.Readlink(ownTable+"/"+strconv.Itoa(fd), to[:])
	what := string(to[:max(n, 0)])
	return err == nil && (what == "anon_inode:[eventpoll]" || what == "anon_inode:[eventfd]")
}

// closeOthers closes what does not stay in the calling thread's own table.
func closeOthers(keep []int) error {
	open, err := descriptors()
	if err != nil {
		return err
	}
	for _, fd := range open {
		if stays(fd, keep) {
			continue
		}
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("close descriptor %d: %w", fd, err)
		}
	}
	return nil
}

const ownTable = "/proc/thread-self/fd"

// descriptors lists the calling thread's table.
func descriptors() ([]int, error) {
	dir, err := unix.Open(ownTable, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("list descriptors: %w", err)
	}
	defer unix.Close(dir) //nolint:errcheck // only read from
	var names []string
	buf := make([]byte, 4096)
	for {
		n, err := unix.ReadDirent(dir, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list descriptors: %w", err)
		}
		if n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	var all []int
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd != dir {
			all = append(all, fd)
		}
	}
	return all, nil
}
