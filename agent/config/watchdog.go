package config

import (
	"time"

	"hapair/kernel/watchdog"
)

// Watchdog is the watchdog of each data node: the machine is reset when its agent
// does not pet it.
type Watchdog struct {
	// Device is the kernel's, on every data node.
	Device string `yaml:"device"`
	// Timeout is the time from the last pet to the reset.
	Timeout time.Duration `yaml:"timeout"`
	// OnNoQuorum says what becomes of a Primary that holds no lease.
	OnNoQuorum WatchdogOnNoQuorum `yaml:"on_no_quorum"`
}

// WatchdogOnNoQuorum is what the watchdog does to a Primary without a lease.
type WatchdogOnNoQuorum string

// The two ways.
const (
	WatchdogWait  WatchdogOnNoQuorum = "wait"  // it is petted: I/O waits, and may go on
	WatchdogReset WatchdogOnNoQuorum = "reset" // it is not: the machine is reset, as Pacemaker's users expect
)

// The default device and time-out, and the bounds of the latter: an agent that was
// killed is running again within a second or two.
const (
	DefaultWatchdogDevice  = "/dev/watchdog"
	DefaultWatchdogTimeout = 10 * time.Second
	MinWatchdogTimeout     = 2 * time.Second
	MaxWatchdogTimeout     = 10 * time.Minute
)

func (w *Watchdog) setDefaults() {
	*w = Watchdog{Device: DefaultWatchdogDevice, Timeout: DefaultWatchdogTimeout, OnNoQuorum: WatchdogWait}
}

func (c *checker) watchdog() {
	w := c.cfg.Watchdog
	if w == nil {
		return
	}
	c.absolute("watchdog.device", w.Device)
	if w.Timeout < MinWatchdogTimeout || w.Timeout > MaxWatchdogTimeout || w.Timeout%time.Second != 0 {
		c.fail("watchdog.timeout", "as in 10s", "timeout is %s; whole seconds between %s and %s", w.Timeout, MinWatchdogTimeout, MaxWatchdogTimeout)
	}
	c.oneOf("watchdog.on_no_quorum", string(w.OnNoQuorum), string(WatchdogWait), string(WatchdogReset))
	if w.OnNoQuorum == WatchdogReset && c.cfg.Arbitration != ArbitrateWitness {
		c.fail("watchdog.on_no_quorum", "leave it out", "with arbitration %s a Primary holds no lease until it goes on alone: it would be reset instead", c.cfg.Arbitration)
	}
}

// watchdogDevice looks whether the device is there; to open it would arm it.
func (c *checker) watchdogDevice() {
	if w := c.cfg.Watchdog; w != nil {
		if err := watchdog.Look(w.Device); err != nil {
			c.fail("watchdog.device", "", "watchdog %s: %v", w.Device, err)
		}
	}
}
