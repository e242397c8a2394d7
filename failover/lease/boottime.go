package lease

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Boottime returns the kernel's CLOCK_BOOTTIME: it counts suspend, never goes
// back and knows nothing of wall time. It stands still while a hypervisor keeps
// the whole machine paused, unless the guest is told of the pause.
//
// Each answer looks at it, so it does not tell the scheduler that it is in a
// system call: it never waits there, and telling wakes the runtime's monitor
// thread each time the process was idle, which costs more than the call.
func Boottime() Clock {
	return func() time.Duration {
		var ts unix.Timespec
		if _, _, e := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); e != 0 {
			// Linux since 2.6.39 cannot fail here; a clock that lies about
			// the lease is worse than no process.
			panic(fmt.Sprintf("lease: clock_gettime(CLOCK_BOOTTIME): %v", e))
		}
		return time.Duration(ts.Nano())
	}
}
