package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dropping has addresses taken off devices by one at a time in this process: what
// another takes off at the same time must not be taken for lost, and put back.
var dropping sync.Mutex

// drop takes the address off a device, and no other: the kernel drops the secondary
// addresses of an IPv4 network with its first one, unless it is told to promote one of them.
func (p *port) drop(l netlink.Link, prefix netip.Prefix) error {
	dropping.Lock()
	defer dropping.Unlock()
	others, err := p.below(l, prefix)
	if err != nil {
		return err
	}
	promotes := len(others) == 0 || p.promote(l) == nil
	err = p.nl.AddrDel(l, netlinkAddr(prefix))
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete address: %w", err)
	}
	if promotes {
		return nil
	}
	return p.restoreOthers(l, prefix, others)
}

// below are the addresses that would go with another.
func (p *port) below(l netlink.Link, prefix netip.Prefix) ([]netlink.Addr, error) {
	if prefix.Addr().Is6() {
		return nil, nil
	}
	all, err := p.addresses(l, unix.AF_INET)
	return dependents(prefix, all), err
}

// promote has a device keep the secondary addresses of a network whose first one goes, from now
// on. If they went with it, a device without any other would be without an address until
// they are put back, and the kernel deletes all routes of such a device, the node's default one too.
func (p *port) promote(l netlink.Link) error {
	return p.within(func() error { return put("ipv4", l.Attrs().Name, "promote_secondaries", 1) })
}

// dependents are the addresses that go with another when that is taken off: those that are
// secondary, in the network of a first one. All others stay, or go by another's hand.
func dependents(of netip.Prefix, all []netlink.Addr) (found []netlink.Addr) {
	secondary := func(x *netlink.Addr) bool { return x.Flags&unix.IFA_F_SECONDARY != 0 }
	first := slices.ContainsFunc(all, func(x netlink.Addr) bool {
		have, _ := prefixOf(x)
		return have == of && !secondary(&x)
	})
	if !first {
		return nil
	}
	for i := range all {
		if have, _ := prefixOf(all[i]); have != of && have.Masked() == of.Masked() && secondary(&all[i]) {
			found = append(found, all[i])
		}
	}
	return found
}

// restoreOthers puts back those of others that went with the removed one, where no address could be promoted
// (/proc/sys is not writable). What routes went with them is lost.
func (p *port) restoreOthers(l netlink.Link, removed netip.Prefix, others []netlink.Addr) error {
	if len(others) == 0 {
		return nil
	}
	after, err := p.addresses(l, unix.AF_INET)
	if err != nil {
		return err
	}
	kept := map[netip.Prefix]bool{}
	for _, x := range after {
		have, _ := prefixOf(x)
		kept[have] = true
	}
	var failed error
	for _, x := range others {
		lost, _ := prefixOf(x)
		if kept[lost] {
			continue
		}
		x.Flags &^= unix.IFA_F_SECONDARY
		if err := p.nl.AddrAdd(l, &x); err != nil && !errors.Is(err, unix.EEXIST) {
			failed = errors.Join(failed, fmt.Errorf("put back address %s, dropped with %s: %w", lost, removed, err))
		}
	}
	return failed
}
