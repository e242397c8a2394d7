package fuse

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// apart runs fn, a system call that waits for our own device, on a thread of
// its own that has only the descriptors in keep, and not /dev/fuse. If the
// process is killed meanwhile, /dev/fuse is closed with the other threads, the
// connection ends, and the call fails; a thread that had /dev/fuse would wait
// for itself for ever. Descriptors that fn opens end with it. fn must only
// make system calls. Where the kernel refuses a private table fn runs with the
// common one.
func apart(keep []int, fn func() error) error {
	// The runtime makes its poller with the first timer: it must be there
	// before the table is copied, as a collection on the thread may poll.
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
			err = apart(keep, fn)
			runtime.UnlockOSThread()
			return
		}
		if unix.Unshare(unix.CLONE_FILES) != nil {
			err = fn()
			return
		}
		if err = closeOthers(keep); err == nil {
			err = fn()
		}
		// Whoever waits for fn may rely on its descriptors being closed.
		err = errors.Join(err, closeOthers(nil))
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
	return err
}

// closeOthers closes all descriptors of the calling thread's private table but
// the standard ones, keep, and those of the runtime's poller.
func closeOthers(keep []int) error {
	all, err := os.ReadDir("/proc/thread-self/fd")
	if err != nil {
		return fmt.Errorf("list descriptors: %w", err)
	}
	for _, e := range all {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 || slices.Contains(keep, fd) {
			continue
		}
		to, err := os.Readlink("/proc/thread-self/fd/" + e.Name())
		if err == nil && (strings.HasSuffix(to, "[eventpoll]") || strings.HasSuffix(to, "[eventfd]")) {
			continue
		}
		if err := unix.Close(fd); err != nil && err != unix.EBADF { // EBADF: the listing's own
			return fmt.Errorf("close descriptor %d: %w", fd, err)
		}
	}
	return nil
}
