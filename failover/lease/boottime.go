package lease

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Boottime returns the kernel's CLOCK_BOOTTIME: it counts suspend, never goes
// back and knows nothing of wall time. It stands still while a hypervisor keeps
// the whole machine paused, unless the guest is told of the pause.
func Boottime() Clock {
	return func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			// Linux since 2.6.39 cannot fail here; a clock that lies about
			// the lease is worse than no process.
			panic(fmt.Sprintf("lease: clock_gettime(CLOCK_BOOTTIME): %v", err))
		}
		return time.Duration(ts.Nano())
	}
}
