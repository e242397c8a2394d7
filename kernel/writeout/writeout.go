// Package writeout readies a process that serves block devices for when memory is
// short. The kernel then writes dirty pages out, to devices that this very process
// serves: if it waited for memory, for pages of its own to be read back, or were
// ended by the kernel, nobody would go on. It needs CAP_SYS_RESOURCE and
// CAP_IPC_LOCK; what is refused is told, and the process goes on without.
package writeout

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// reenteredVariable is set in the environment from the first life of the process to
// the second.
const reenteredVariable = "HAPAIR_REENTERED"

// neverEnded is what the kernel reads as: not for want of memory.
const neverEnded = -1000

// Prepare is to be called before anything else is begun: it may load the program anew,
// so that all threads of the runtime are born as what the first one is then. What it
// returns is why something could not be had.
func Prepare() []error {
	var errs []error
	for _, step := range []func() error{becomeFlusher, lockMemory, staySafe} {
		if err := step(); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// becomeFlusher has the kernel give this process memory without waiting for writes,
// prctl(2) PR_SET_IO_FLUSHER: threads inherit it, and so it has to be set while there
// is only one. The program is loaded anew with it.
func becomeFlusher() error {
	reentered := os.Getenv(reenteredVariable) != ""
	if err := os.Unsetenv(reenteredVariable); err != nil {
		return fmt.Errorf("be an I/O flusher: %w", err)
	}
	if on, err := isFlusher(); on || err != nil {
		return err
	}
	if reentered {
		return errors.New("be an I/O flusher: the kernel forgot it when the program was loaded anew")
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("be an I/O flusher: find the program: %w", err)
	}
	runtime.LockOSThread() // whose state it is; unlocked only when it stays as it was
	defer runtime.UnlockOSThread()
	if err := setFlusher(true); err != nil {
		return err
	}
	err = unix.Exec(program, os.Args, append(os.Environ(), reenteredVariable+"=1"))
	return errors.Join(fmt.Errorf("be an I/O flusher: load %s anew: %w", program, err), setFlusher(false))
}

func isFlusher() (bool, error) {
	on, err := unix.PrctlRetInt(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0)
	if err != nil {
		return false, fmt.Errorf("be an I/O flusher: %w", needs(err, "CAP_SYS_RESOURCE and Linux 5.6"))
	}
	return on == 1, nil
}

func setFlusher(on bool) error {
	var value uintptr
	if on {
		value = 1
	}
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, value, 0, 0, 0); err != nil {
		return fmt.Errorf("be an I/O flusher: %w", needs(err, "CAP_SYS_RESOURCE and Linux 5.6"))
	}
	return nil
}

// needs says what a refusal may be for.
func needs(err error, what string) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("%w (it takes %s)", err, what)
	}
	return err
}

// lockMemory keeps what this process has in memory, the program included, and what it
// will come to use from when it does: a mapping that nobody has touched takes none.
func lockMemory() error {
	err := unix.Mlockall(unix.MCL_CURRENT)
	if err == nil {
		err = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	}
	if err != nil {
		return fmt.Errorf("lock the memory: %w", needs(err, "CAP_IPC_LOCK, or LimitMEMLOCK=infinity"))
	}
	return nil
}

// staySafe has the kernel end others when memory is short: dirty pages that wait for
// this process are not freed by its end.
func staySafe() error {
	if at, err := adjusted(); err == nil && at == neverEnded {
		return nil
	}
	if err := os.WriteFile(adjustFile, fmt.Appendf(nil, "%d", neverEnded), 0); err != nil {
		return fmt.Errorf("be spared by the OOM killer: %w", needs(err, "CAP_SYS_RESOURCE, or OOMScoreAdjust=-1000"))
	}
	return nil
}

// Ordinary calls start, which starts another program, so that it inherits none of
// this but the OOM killer's favour: that is the process's, and not the thread's.
func Ordinary(start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	on, err := isFlusher()
	if err != nil || !on { // a kernel that knows no flushers makes none
		return start()
	}
	if err := setFlusher(false); err != nil {
		return err
	}
	return errors.Join(start(), setFlusher(true))
}
