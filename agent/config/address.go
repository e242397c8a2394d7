package config

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"hapair/failover/vip"
	"hapair/failover/vip/frame"
)

// AddressService is a service address (VIP).
type AddressService struct {
	// IP carries the prefix length, as in 192.168.1.50/24.
	IP  netip.Prefix `yaml:"ip"`
	Dev string       `yaml:"dev"`
	// Announce tells the neighbours where the address is now.
	Announce bool `yaml:"announce"`
	// VirtualMAC moves with the address.
	VirtualMAC VirtualMAC `yaml:"virtual_mac"`
	// SourceFor is where what has no source of its own leaves with the address.
	SourceFor SourceFor `yaml:"source_for"`
}

// SourceFor is SourceForOff, SourceForDefault or a network.
type SourceFor string

// Nowhere, and wherever the default route leads.
const (
	SourceForOff     SourceFor = "off"
	SourceForDefault SourceFor = "default"
)

// VirtualMAC is VirtualMACOff, VirtualMACAuto or a MAC.
type VirtualMAC string

// No MAC of its own, and one that is derived.
const (
	VirtualMACOff  VirtualMAC = "off"
	VirtualMACAuto VirtualMAC = "auto"
)

func (a *AddressService) vip() *vip.Config {
	c := &vip.Config{Site: vip.Site{Prefix: a.IP, Dev: a.Dev, SourceFor: a.sourceFor()}}
	if !a.Announce {
		c.Announce = []time.Duration{}
	}
	return c
}

// sourceFor is the network; not valid: none.
func (a *AddressService) sourceFor() netip.Prefix {
	switch a.SourceFor {
	case SourceForOff, "":
		return netip.Prefix{}
	case SourceForDefault:
		return netip.PrefixFrom(a.IP.Addr(), 0).Masked()
	}
	p, _ := netip.ParsePrefix(string(a.SourceFor)) // anything else was refused
	return p
}

// VirtualMAC is the MAC of an address of a resource; zero: that of its device. A
// derived one is shared by all of the resource on that device.
func (c *Config) VirtualMAC(r *Resource, a *AddressService) frame.MAC {
	switch a.VirtualMAC {
	case VirtualMACOff, "":
		return frame.MAC{}
	case VirtualMACAuto:
		return vip.VirtualMAC(c.Cluster, r.Name, a.Dev, r.firstDerived(a.Dev))
	}
	m, _ := frame.ParseMAC(string(a.VirtualMAC)) // anything else was refused
	return m
}

// firstDerived is the address that a derived MAC comes from.
func (r *Resource) firstDerived(dev string) netip.Addr {
	for _, s := range r.Services {
		if s.Address != nil && s.Address.Dev == dev && s.Address.VirtualMAC == VirtualMACAuto {
			return s.Address.IP.Addr()
		}
	}
	return netip.Addr{}
}

func (c *checker) vip(at string, a *AddressService, vips map[netip.Addr]string) {
	ip := a.IP.Addr()
	if !a.IP.IsValid() || a.IP.Bits() == 0 || ip.IsUnspecified() || ip.IsMulticast() {
		c.fail(at+".ip", "as in 192.168.1.50/24", "%s cannot be a service address", a.IP)
		return
	}
	if first, twice := vips[ip]; twice {
		c.fail(at+".ip", "", "address %s is given twice, first on %s", ip, c.place(first))
	}
	vips[ip] = at + ".ip"
	for _, n := range c.cfg.Nodes {
		for _, x := range n.Addresses {
			if x.IP == ip {
				c.fail(at+".ip", "a service address belongs to no node", "%s is the address of node %q (%s)", ip, n.Name, c.line("nodes."+n.Name))
			}
		}
	}
	if w := c.cfg.Witness; w != nil && w.Address == ip {
		c.fail(at+".ip", "", "%s is the address of the witness", ip)
	}
	if a.Dev == "" || len(a.Dev) > 15 || strings.ContainsAny(a.Dev, "/ \t\n") {
		c.fail(at+".dev", "as in dev: eth0", "%q is not the name of a network device", a.Dev)
	}
	c.virtualMAC(at+".virtual_mac", a.VirtualMAC)
	c.sourceFor(at+".source_for", a)
}

func (c *checker) sourceFor(at string, a *AddressService) {
	if a.SourceFor == SourceForOff || a.SourceFor == SourceForDefault {
		return
	}
	p, err := netip.ParsePrefix(string(a.SourceFor))
	switch {
	case err != nil:
		c.fail(at, "", "%q: want off, default, or a network such as 10.0.0.0/8", a.SourceFor)
	case p.Bits() == 0:
		c.fail(at, "source_for: default", "%s is wherever the default route leads", p)
	case p.Addr().Is4() != a.IP.Addr().Is4():
		c.fail(at, "", "%s and %s are of two families: the one cannot be the source for the other", a.IP.Addr(), p)
	case p != p.Masked():
		c.fail(at, fmt.Sprintf("did you mean %s?", p.Masked()), "%s is an address, not a network", p)
	}
}

// sources refuses two sources for the same: both may be on one node. A network is more
// than what the default route leads to.
func (c *checker) sources() {
	type place struct {
		at string
		to netip.Prefix
	}
	var all []place
	for i := range c.cfg.Resources {
		r := &c.cfg.Resources[i]
		for j := range r.Services {
			a := r.Services[j].Address
			if a == nil || !a.sourceFor().IsValid() {
				continue
			}
			here := place{fmt.Sprintf("resources.%s.services[%d].address.source_for", r.Name, j), a.sourceFor()}
			for _, was := range all {
				if was.to.Overlaps(here.to) && (was.to.Bits() == 0) == (here.to.Bits() == 0) {
					c.fail(here.at, "one source for each: both may be on one node", "another address is the source for %s already, %s", was.to, c.place(was.at))
					break
				}
			}
			all = append(all, here)
		}
	}
}

func (c *checker) virtualMAC(at string, v VirtualMAC) {
	if v == VirtualMACOff || v == VirtualMACAuto {
		return
	}
	m, err := frame.ParseMAC(string(v))
	if err != nil {
		c.fail(at, "auto derives one", "%q: want off, auto, or a MAC such as 02:48:41:00:00:01", v)
		return
	}
	if err := m.Stations(); err != nil {
		c.fail(at, "auto derives one", "%v", err)
	}
}

// virtualMACs refuses one MAC in two places at once: two resources may be Primary on
// two nodes, and two devices may lead to one network.
func (c *checker) virtualMACs() {
	type place struct{ at, resource, dev string }
	first := map[frame.MAC]place{}
	for i := range c.cfg.Resources {
		r := &c.cfg.Resources[i]
		for j := range r.Services {
			a := r.Services[j].Address
			if a == nil {
				continue
			}
			m := c.cfg.VirtualMAC(r, a)
			here := place{fmt.Sprintf("resources.%s.services[%d].address.virtual_mac", r.Name, j), r.Name, a.Dev}
			switch was, twice := first[m]; {
			case m.IsZero():
			case !twice:
				first[m] = here
			case was.resource != here.resource:
				c.fail(here.at, "each resource needs a MAC of its own: it may be on another node", "%s is the virtual MAC of resource %q already, %s", m, was.resource, c.place(was.at))
			case was.dev != here.dev:
				c.fail(here.at, "each device needs a MAC of its own", "%s is a virtual MAC on %s already, %s", m, was.dev, c.place(was.at))
			}
		}
	}
}
