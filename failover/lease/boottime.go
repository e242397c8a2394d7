package lease

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Boottime returns the kernel's CLOCK_BOOTTIME: it counts suspend, never goes
// back and knows nothing of wall time. It may stand still while a hypervisor keeps
// the whole machine stopped (KVM's clock does, over a pause, a snapshot with memory
// and the end of a migration). A lease then holds for what was left of it when the
// machine goes on, whatever others have done meanwhile: docs/safety.md, Virtual
// machines.
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
