package config

import (
	"context"
	"fmt"
	"slices"
	"time"

	"hapair/fencing/device"
	"hapair/fencing/fenceagent"
	"hapair/fencing/handler"
	"hapair/fencing/sbd"
)

// NodeFencing holds the fence devices of one node.
type NodeFencing struct {
	Node    string        `yaml:",key"`
	Devices []FenceDevice `yaml:",value"`
}

// FenceDevice is one way to make sure that a node does not run. Exactly one of
// Agent, Exec, Manual, Watchdog and SBD is set.
type FenceDevice struct {
	// Agent is one of the fence agents, fence_NAME, or the absolute path of one.
	Agent string `yaml:"agent,omitempty"`
	// Options are handed to the agent; secrets go into files (password_file).
	Options map[string]string `yaml:"options,omitempty"`
	// Exec is a handler with the exit codes of DRBD's fence-peer handlers.
	Exec Command `yaml:"exec,omitempty"`
	// Manual is an operator, who says hactl fence-confirm.
	Manual bool `yaml:"manual,omitempty"`
	// Watchdog is the watchdog of the node itself; not implemented: nobody is told that
	// it has bitten.
	Watchdog string `yaml:"watchdog,omitempty"`
	// SBD is a small disk that both nodes see, with poison pills.
	SBD string `yaml:"sbd,omitempty"`
	// Level orders the devices of a node: the levels are tried one after the other,
	// and all devices of one must confirm. 0: the one after the device before.
	Level int `yaml:"level,omitempty" unset:"the one after the device before"`
	// Timeout bounds one fence by this device, its proof included; an operator has all
	// the time.
	Timeout time.Duration `yaml:"timeout"`
	// MonitorInterval is the time between two looks whether the device can be used.
	MonitorInterval time.Duration `yaml:"monitor_interval"`
	// Delay is waited by the Secondary before it fences, so that the Primary
	// wins when both try; that of the node is the longest of its devices'.
	Delay time.Duration `yaml:"delay,omitempty" unset:"longer than a fence of the other node may take"`
}

// FenceLevels returns the devices of a node by level; nil for a node without.
func (c *Config) FenceLevels(node string) [][]FenceDevice {
	var out [][]FenceDevice
	last := 0
	for _, d := range c.devices(node) {
		if len(out) == 0 || d.Level == 0 || d.Level != last {
			out = append(out, nil)
		}
		last = levelAfter(last, d)
		out[len(out)-1] = append(out[len(out)-1], d)
	}
	return out
}

// levelAfter is the level of d where the device before had the level last.
func levelAfter(last int, d FenceDevice) int {
	if d.Level == 0 {
		return last + 1
	}
	return d.Level
}

func (c *Config) devices(node string) []FenceDevice {
	for _, f := range c.Fencing {
		if f.Node == node {
			return f.Devices
		}
	}
	return nil
}

// FenceTakes bounds how long a fence of node takes, an operator's part left out.
func (c *Config) FenceTakes(node string) time.Duration {
	var sum time.Duration
	for _, d := range c.devices(node) {
		if !d.Manual {
			sum += d.Timeout
		}
	}
	return sum
}

// fenceStrikes bounds how long it takes until node is off, if a fence of it succeeds at
// all. Who fences by a pill has to wait until that is certain, long after.
func (c *Config) fenceStrikes(node string) time.Duration {
	takes := c.FenceTakes(node)
	for _, d := range slices.Backward(c.devices(node)) {
		if d.Manual {
			continue
		}
		if d.SBD != "" {
			takes += min(sbd.Strikes-d.Timeout, 0)
		}
		break // after any other nobody is asked any more
	}
	return takes
}

// FenceDelay is how long a Secondary waits before it fences node, the Primary:
// longer than that one's fence of the Secondary may take to strike, so that not both are
// off, and by as much as one may find out later than the other.
func (c *Config) FenceDelay(node string) time.Duration {
	var longest time.Duration
	for _, d := range c.devices(node) {
		longest = max(longest, d.Delay)
	}
	if longest > 0 {
		return longest
	}
	return c.fenceDelayMin(node) + 10*c.Timing.Probe
}

// fenceDelayMin is what a delay has to be longer than.
func (c *Config) fenceDelayMin(node string) time.Duration {
	min := c.Timing.Lease
	if other := c.Peer(node); other != nil {
		min += c.fenceStrikes(other.Name)
	}
	return min
}

// devicesNotBuilt lists the devices that the file may describe but nothing makes yet.
func (c *Config) devicesNotBuilt() []error {
	var errs []error
	for _, f := range c.Fencing {
		for _, d := range f.Devices {
			if d.Watchdog != "" {
				errs = append(errs, &NotImplementedError{"watchdog as a fence device of " + f.Node,
					"who has lost that node cannot know whether its watchdog was armed: use a fence agent, or sbd, which tells; the section watchdog at the top has a node reset itself"})
			}
		}
	}
	return errs
}

// Device makes the device, for whoever fences from the node self; heard tells whether
// the node to be fenced runs. A manual one, and sbd, are not made here.
func (d *FenceDevice) Device(self string, heard fenceagent.Heard) (device.Device, error) {
	if len(d.Exec) > 0 {
		return handler.New(handler.Config{Self: self, Command: d.Exec})
	}
	cfg := d.agent()
	cfg.Heard = heard
	return fenceagent.New(cfg)
}

func (d *FenceDevice) agent() fenceagent.Config {
	return fenceagent.Config{Agent: d.Agent, Options: d.Options}
}

// fenceable wants a device for each node, and nobody else to decide.
func (c *checker) fenceable() {
	for _, n := range c.cfg.Nodes {
		if len(c.cfg.devices(n.Name)) == 0 {
			c.fail("arbitration", "list a device under fencing: "+n.Name+":", "arbitration by fencing, but node %q has no fence device", n.Name)
		}
	}
	if c.cfg.Witness != nil {
		c.fail("arbitration", "use arbitration: witness, or leave the witness out", "a witness is given, but arbitration is fencing: it would vote for nothing")
	}
}

func (c *checker) fencing() {
	if len(c.cfg.Fencing) > 0 && c.cfg.Arbitration != ArbitrateFencing {
		c.fail("fencing", "use arbitration: fencing, or leave the section out", "fence devices are given, but arbitration is %s: none of them would be used", c.cfg.Arbitration)
	}
	for _, f := range c.cfg.Fencing {
		at := "fencing." + f.Node
		if c.cfg.Node(f.Node) == nil {
			c.unknownNode(at, f.Node)
		}
		if len(f.Devices) == 0 || len(f.Devices) > MaxFenceDevices {
			c.fail(at, "", "node %q has %d fence devices; between 1 and %d", f.Node, len(f.Devices), MaxFenceDevices)
		}
		level, disks := 0, 0
		for i, dev := range f.Devices {
			if dev.SBD != "" {
				disks++
			}
			where := fmt.Sprintf("%s[%d]", at, i)
			if dev.Level < 0 || dev.Level != 0 && (dev.Level < level || dev.Level > level+1) {
				c.fail(where+".level", "number the levels from 1, in the order they are tried", "level %d comes after level %d", dev.Level, level)
			}
			level = levelAfter(level, dev)
			c.fenceDevice(where, dev)
		}
		if disks > 1 {
			c.fail(at, "keep one of them", "node %q has %d sbd disks: it reads one", f.Node, disks)
		}
		if c.cfg.Arbitration == ArbitrateFencing && c.cfg.Node(f.Node) != nil {
			c.fenceDelay(at, f)
		}
	}
}

func (c *checker) fenceDevice(at string, dev FenceDevice) {
	kinds := 0
	for _, is := range []bool{dev.Agent != "", len(dev.Exec) > 0, dev.Manual, dev.Watchdog != "", dev.SBD != ""} {
		if is {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		c.fail(at, "as in {agent: fence_ipmilan, options: {ip: 192.168.1.91}}", "a fence device is one of agent, exec, sbd and manual; this one has %d of them", kinds)
		return
	case dev.Agent == "" && len(dev.Options) > 0:
		c.fail(at+".options", "", "options are for an agent")
	}
	secret := false
	for _, k := range sortedKeys(dev.Options) {
		if fenceagent.Secret(k) {
			secret = true
			c.fail(at+".options."+k, "put it into a file only root can read and give "+k+"_file", "a secret stands in the configuration")
			c.errs[len(c.errs)-1].Source = "" // the line would show it
		}
	}
	if (dev.Agent != "" || len(dev.Exec) > 0) && !secret {
		if _, err := dev.Device("", fenceagent.Heard{}); err != nil {
			c.fail(at, "", "%v", err)
		}
	}
	c.fenceTimes(at, dev)
	if dev.SBD != "" {
		c.sbd(at, dev)
	}
}

func (c *checker) fenceTimes(at string, dev FenceDevice) {
	if dev.Timeout < MinFenceTimeout || dev.Timeout > MaxFenceTimeout {
		c.fail(at+".timeout", "", "timeout is %s; between %s and %s", dev.Timeout, MinFenceTimeout, MaxFenceTimeout)
	}
	if dev.MonitorInterval < MinFenceMonitor || dev.MonitorInterval > MaxFenceMonitor {
		c.fail(at+".monitor_interval", "", "monitor_interval is %s; between %s and %s", dev.MonitorInterval, MinFenceMonitor, MaxFenceMonitor)
	}
	if dev.Delay < 0 || dev.Delay > MaxFenceTimeout {
		c.fail(at+".delay", "", "delay is %s; between 0 and %s", dev.Delay, MaxFenceTimeout)
	}
}

// fenceDelay wants the Secondary to wait until the Primary has fenced it.
func (c *checker) fenceDelay(at string, f NodeFencing) {
	longest := -1
	for i, d := range f.Devices {
		if d.Delay > 0 && (longest < 0 || d.Delay > f.Devices[longest].Delay) {
			longest = i
		}
	}
	other := c.cfg.Peer(f.Node)
	if longest < 0 || other == nil {
		return
	}
	delay, min := f.Devices[longest].Delay, c.cfg.fenceDelayMin(f.Node)
	if delay <= min {
		c.fail(fmt.Sprintf("%s[%d].delay", at, longest), fmt.Sprintf("leave it out, or make the time-outs of the devices of %s shorter", other.Name),
			"who is to fence %s waits %s, and %s may take %s to fence the other (%s, and the lease, %s): both could be off",
			f.Node, delay, f.Node, min, c.line("fencing."+other.Name), c.cfg.Timing.Lease)
	}
}

// fenceDevices asks the agents for the other node what they are.
func (c *checker) fenceDevices(ctx context.Context, self string) {
	for _, f := range c.cfg.Fencing {
		for i := range f.Devices {
			d := &f.Devices[i]
			var err error
			switch {
			case d.SBD != "":
				err = sbd.Check(d.SBD, c.cfg.SBDOwner())
			case f.Node == self: // others fence this node
			case d.Agent != "":
				err = fenceagent.Check(ctx, d.agent())
			case len(d.Exec) > 0:
				err = checkHandler(d.Exec)
			}
			if err != nil {
				c.fail(fmt.Sprintf("fencing.%s[%d]", f.Node, i), "", "%v", err)
			}
		}
	}
}

func checkHandler(command Command) error {
	h, err := handler.New(handler.Config{Command: command})
	if err != nil {
		return err
	}
	return h.Check()
}
