// Package awake keeps the runtime's monitor thread from falling asleep between
// the requests of a lone client.
//
// While all processors of the runtime are idle its monitor sleeps, and the next
// system call that may wait wakes it. It then looks around every 20 us until
// it sees them idle again. A client that has one request in flight makes the
// process idle between any two of its requests, so each request pays a futex
// call, some timers of a few us and their interrupts; in a virtual machine, where
// a timer is a call of the hypervisor, that was a third of the processor time
// of a write. A monitor that is awake looks around every 10 ms when there is
// nothing to do, and costs nothing in between.
//
// It sleeps when every processor is idle, and one whose goroutine is in a system
// call is not. So, while requests come, one goroutine is always in such a call,
// with a processor that Enable adds for it. A third must stay idle, or the
// monitor takes processors away from system calls at its second look.
package awake

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// turn is how long the occupant stays in a system call. The monitor takes a
	// processor away that has done nothing else for 10 ms (forcePreemptNS and
	// retake in runtime/proc.go).
	turn = 8 * time.Millisecond
	// restAfter is after how many turns without a Touch the occupant ends.
	restAfter = 12
	// processorsMin: the occupant's, the request's and an idle one.
	processorsMin = 3
)

var (
	enabled  atomic.Bool
	occupied atomic.Bool // there is an occupant
	touched  atomic.Bool // since it last looked
)

// Enable adds a processor for the occupant, once; the runtime does not follow a
// change of the cgroup's limit from then on. Without Enable, Touch does nothing.
// The main function of a program calls it.
func Enable() {
	if enabled.CompareAndSwap(false, true) {
		runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0)+1, processorsMin))
	}
}

// Touch says that a system call follows which tells the scheduler. It costs a
// few ns, may be called from any goroutine, and keeps the monitor awake for about
// restAfter turns.
func Touch() {
	if touched.Load() || !enabled.Load() {
		return
	}
	touched.Store(true)
	if occupied.CompareAndSwap(false, true) {
		go occupy()
	}
}

// occupy keeps a processor until nothing has been touched for a while.
func occupy() {
	ts := unix.NsecToTimespec(int64(turn))
	for idle := 0; idle < restAfter; idle++ {
		if touched.Swap(false) {
			idle = 0
		}
		unix.Nanosleep(&ts, nil) //nolint:errcheck // cut short is as good
		runtime.Gosched()        // seen by the monitor as work
	}
	occupied.Store(false) // a Touch that came since is answered by the next
	if touched.Swap(false) {
		Touch()
	}
}
