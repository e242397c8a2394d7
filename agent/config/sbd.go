package config

import (
	"fmt"
	"time"

	"hapair/fencing/sbd"
)

// SBDOf is the path of the disk by which a node is fenced, which it therefore reads; ""
// for none.
func (c *Config) SBDOf(node string) string {
	for _, d := range c.devices(node) {
		if d.SBD != "" {
			return d.SBD
		}
	}
	return ""
}

// SBDOwner says whose the sbd disks of this file are.
func (c *Config) SBDOwner() sbd.Owner { return sbd.Owner{Cluster: c.Cluster, Nodes: c.NodeNames()} }

// sbdMonitorInterval is the default for sbd: to look at a disk costs nothing.
const sbdMonitorInterval = 10 * time.Second

// sbdTimeouts gives each sbd device that has none a time-out that fits the watchdog,
// and an interval of its own.
func (c *checker) sbdTimeouts() {
	if c.cfg.Watchdog == nil {
		return
	}
	for i := range c.cfg.Fencing {
		f := &c.cfg.Fencing[i]
		for j := range f.Devices {
			d := &f.Devices[j]
			given := func(key string) bool {
				_, is := c.src.at[fmt.Sprintf("fencing.%s[%d].%s", f.Node, j, key)]
				return is || d.SBD == ""
			}
			if !given("timeout") {
				d.Timeout = sbdTakes(c.cfg.Watchdog.Timeout)
			}
			if !given("monitor_interval") {
				d.MonitorInterval = sbdMonitorInterval
			}
		}
	}
}

// sbdTakes is what a fence by a pill takes, in whole seconds.
func sbdTakes(timeout time.Duration) time.Duration {
	return (sbd.Takes(timeout) + time.Second - 1) / time.Second * time.Second
}

// sbd wants the node that reads to have a watchdog, and the one that writes to wait for
// it.
func (c *checker) sbd(at string, dev FenceDevice) {
	c.absolute(at+".sbd", dev.SBD)
	w := c.cfg.Watchdog
	switch {
	case w == nil:
		c.fail(at+".sbd", "add watchdog: {device: /dev/watchdog, timeout: 5s} at the top", "a pill works by the watchdog of the node that reads it, and there is none")
	case dev.Timeout < sbd.Takes(w.Timeout):
		c.fail(at+".timeout", "leave it out, or make that of the watchdog shorter", "timeout is %s, and a node with a watchdog of %s (%s) is certainly down after %s",
			dev.Timeout, w.Timeout, c.line("watchdog.timeout"), sbdTakes(w.Timeout))
	}
}
