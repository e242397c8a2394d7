package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hapair/failover/vip/frame"
)

// flagNoPrefixRoute leaves the route to the address's network to reach.
const flagNoPrefixRoute = 0x200

// reachMetric is that of the route to the network of an address with a virtual MAC:
// worse than what a node has of its own, and the only one where it has none.
const reachMetric = 4096

// making has devices made, filled, emptied and deleted by one at a time in this
// process; what the deadman does at the same time is bearable, see DESIGN.md.
var making sync.Mutex

// ErrNoMacvlan is returned where the kernel cannot make a device for a virtual MAC.
var ErrNoMacvlan = errors.New("this kernel has no macvlan devices (CONFIG_MACVLAN, module macvlan), which virtual_mac needs")

// ForeignError is returned when the device for a virtual MAC cannot be made, or used,
// because of a device that is there.
type ForeignError struct {
	Dev string // the one that stands in the way
	Is  string // what is wrong with it, in words
}

// Error says which device, and why.
func (e *ForeignError) Error() string { return fmt.Sprintf("device %s %s", e.Dev, e.Is) }

// virtual looks the device of the virtual MAC up; nil when there is none. It fails
// with *ForeignError when one of that name is another's.
func (p *port) virtual() (netlink.Link, error) {
	l, err := p.named(p.dev)
	if l == nil || err != nil {
		return nil, err
	}
	if _, is := l.(*netlink.Macvlan); !is {
		return nil, &ForeignError{p.dev, fmt.Sprintf("is not a macvlan device but of type %s, and was not made by hapair: remove it", l.Type())}
	}
	if p.base != 0 && l.Attrs().ParentIndex != p.base {
		return nil, &ForeignError{p.dev, fmt.Sprintf("stands on %s, not on %s: remove it", p.nameOf(l.Attrs().ParentIndex), p.site.Dev)}
	}
	return l, nil
}

// whole reports whether a device is as bring leaves it: someone may have set it down,
// or given it another MAC.
func whole(l netlink.Link, s Site) bool {
	a := l.Attrs()
	return a.RawFlags&unix.IFF_UP != 0 && len(a.HardwareAddr) == len(s.MAC) && frame.MAC(a.HardwareAddr) == s.MAC
}

// bring makes the device of the virtual MAC, or takes the one that is there, and
// leaves it up, with nobody else answering for its addresses. Under making.
func (p *port) bring() error {
	base, err := p.baseLink()
	if err != nil {
		return err
	}
	if !hasNeighbours(base.Attrs()) {
		return &ForeignError{p.site.Dev, "is no Ethernet: it has no MAC, and nothing on it can have a virtual one"}
	}
	l, err := p.virtual()
	if err != nil {
		return err
	}
	if l == nil {
		if l, err = p.create(); err != nil {
			return err
		}
	}
	for _, step := range []func(netlink.Link) error{p.annotate, p.still, p.raise} {
		if err := step(l); err != nil {
			return errors.Join(err, p.discard(l))
		}
	}
	return p.use(l)
}

// create makes the device, down.
func (p *port) create() (netlink.Link, error) {
	if err := p.within(p.quietPossible); err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.HardwareAddr = p.dev, p.base, net.HardwareAddr(p.site.MAC[:])
	err := p.nl.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE})
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil, ErrNoMacvlan
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EINVAL):
		return nil, fmt.Errorf("%w (%w)", &ForeignError{p.site.Dev, "takes no macvlan device: is it a port of a bridge or a bond? Then dev is to name that"}, err)
	case err != nil:
		return nil, fmt.Errorf("make device %s on %s: %w", p.dev, p.site.Dev, err)
	}
	l, err := p.virtual()
	if err == nil && l == nil {
		err = &NoDeviceError{Dev: p.dev}
	}
	if err != nil { // on a macvlan device the kernel puts it on that one's parent
		if stray, _ := p.named(p.dev); stray != nil { // the first error is the one to report
			err = errors.Join(err, p.nl.LinkDel(stray))
		}
		return nil, err
	}
	return l, nil
}

// annotate has the device say whose it is, and what its parent's settings were. It
// comes before they are changed.
func (p *port) annotate(l netlink.Link) error {
	if _, ours := parseNote(l.Attrs().Alias); ours {
		return nil
	}
	before, err := p.noise()
	if err != nil {
		return err
	}
	text := note{p.owner, before}.String()
	if err := p.nl.LinkSetAlias(l, text); err != nil {
		return fmt.Errorf("note on %s what was before: %w", p.dev, err)
	}
	l.Attrs().Alias = text
	return nil
}

// raise gives the device its MAC and sets it up.
func (p *port) raise(l netlink.Link) error {
	if whole(l, p.site) {
		return nil
	}
	if mac := net.HardwareAddr(p.site.MAC[:]); l.Attrs().HardwareAddr.String() != mac.String() {
		if err := p.nl.LinkSetHardwareAddr(l, mac); err != nil {
			return fmt.Errorf("give %s the MAC %s: %w", p.dev, p.site.MAC, err)
		}
	}
	err := p.nl.LinkSetUp(l)
	if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w (%w)", &ForeignError{p.site.Dev, fmt.Sprintf("has another device with the MAC %s already, or has it itself", p.site.MAC)}, err)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", p.dev, err)
	}
	return nil
}

// reach has a route lead to the address's network where the node has none of its own.
func (p *port) reach(l netlink.Link, prefix netip.Prefix) error {
	if prefix.IsSingleIP() {
		return nil
	}
	net4 := prefix.Masked()
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Priority: reachMetric, Src: prefix.Addr().AsSlice(), Protocol: unix.RTPROT_KERNEL,
		Dst: &net.IPNet{IP: net4.Addr().AsSlice(), Mask: net.CIDRMask(net4.Bits(), net4.Addr().BitLen())}}
	if prefix.Addr().Is4() {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := p.nl.RouteAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add the route to %s on %s: %w", net4, p.dev, err)
	}
	return nil
}

// removeVirtual takes the address off the device of its virtual MAC, and the device
// away with its last one.
func (p *port) removeVirtual(prefix netip.Prefix) error {
	making.Lock()
	defer making.Unlock()
	l, err := p.virtual()
	if l == nil || err != nil {
		return err
	}
	if err := p.drop(l, prefix); err != nil {
		return err
	}
	return p.discard(l)
}

// discard deletes the device when no address is left on it, and undoes its parent's
// settings after the last one there. It leads the routes of those that are left.
func (p *port) discard(l netlink.Link) error {
	left, err := p.addresses(l, unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	empty := true
	for _, x := range left {
		have, _ := prefixOf(x)
		if have.Addr().IsLinkLocalUnicast() && have.Addr().Is6() {
			continue
		}
		empty = false
		if err := p.reach(l, have); err != nil {
			return err
		}
	}
	if !empty {
		return nil
	}
	return p.delete(l)
}

// delete deletes a device that was made here.
func (p *port) delete(l netlink.Link) error {
	err := p.nl.LinkDel(l)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete device %s: %w", l.Attrs().Name, err)
	}
	return p.loud(l)
}

// Sweep deletes the devices that were made for owners whose names begin with prefix,
// with the addresses on them, and all that has an address be a source: for an agent that
// begins, and has no lease. It returns the names of what it deleted.
func Sweep(prefix string) (swept []string, err error) {
	p, err := bare()
	if err != nil {
		return nil, err
	}
	defer p.close()
	making.Lock()
	defer making.Unlock()
	all, err := p.made(0)
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		n, _ := parseNote(l.Attrs().Alias) // made has read it
		if !strings.HasPrefix(n.owner, prefix) {
			continue
		}
		swept = append(swept, l.Attrs().Name)
		err = errors.Join(err, p.delete(l))
	}
	tables, serr := p.sweepSources()
	swept, err = append(swept, tables...), errors.Join(err, serr)
	if err != nil {
		return swept, fmt.Errorf("remove what an earlier life left: %w", err)
	}
	return swept, nil
}

// mend sets right what somebody changed about the device of a virtual MAC, or its
// parent, without a message of it: settings and routes.
func (p *port) mend() error {
	if !p.site.Virtual() {
		return nil
	}
	making.Lock()
	defer making.Unlock()
	l, err := p.link()
	if err == nil {
		err = p.still(l)
	}
	if err == nil {
		err = p.reach(l, p.site.Prefix)
	}
	return err
}

// made lists the devices of virtual MACs on a parent; 0: on any.
func (p *port) made(parent int) (found []netlink.Link, err error) {
	var all []netlink.Link
	for try := 0; ; try++ {
		if all, err = p.nl.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) || try == 10 {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	for _, l := range all {
		_, macvlan := l.(*netlink.Macvlan)
		_, ours := parseNote(l.Attrs().Alias)
		if macvlan && ours && strings.HasPrefix(l.Attrs().Name, devicePrefix) && (parent == 0 || l.Attrs().ParentIndex == parent) {
			found = append(found, l)
		}
	}
	return found, nil
}
