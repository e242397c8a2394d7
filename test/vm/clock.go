package vm

import (
	"fmt"
	"sync"
	"time"
)

// measureFor is long enough for one part in ten thousand.
const measureFor = 300 * time.Millisecond

// clockArguments are the kernel's for a clock that is right. A machine measures its
// time stamp counter by timers, which come late on a busy host: its clock is wrong
// then, by half as well, and leases are made for clocks that differ by less than
// 2 %. QEMU gives it this processor's counter, so it is told how fast that is. What it
// measures later it believes only within 1 %. Without such a counter its time is the
// HPET's, which is right, and takes a fault to read.
var clockArguments = sync.OnceValue(func() string {
	khz := ticksPerMillisecond()
	if khz == 0 {
		return "tsc=unstable clocksource=hpet nolapic_timer"
	}
	return fmt.Sprintf("tsc_early_khz=%d tsc=reliable clocksource=tsc nolapic_timer", khz)
})

// ticksPerMillisecond measures the counter.
func ticksPerMillisecond() int64 {
	from, began := together()
	time.Sleep(measureFor)
	to, ended := together()
	return int64(float64(to-from)/float64(ended.Sub(began))*float64(time.Millisecond) + 0.5)
}

// together reads counter and clock at about one instant: the closest of some.
func together() (counter uint64, at time.Time) {
	closest := time.Hour
	for range 100 {
		before := time.Now()
		n := ticks()
		if d := time.Since(before); d < closest {
			closest, counter, at = d, n, before
		}
	}
	return counter, at
}
