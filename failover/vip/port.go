package vip

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hapair/failover/vip/frame"
)

// flagNoDAD takes an IPv6 address at once; duplicates have been looked for.
const flagNoDAD = 0x02

const netlinkTimeout = 2 * time.Second

// port is the device of a site in the namespace of the thread that opened it.
type port struct {
	site  Site
	owner string
	dev   string         // has the address: the site's, or that of its virtual MAC
	base  int            // index of the site's device
	index int            // of dev; 0: it is not made yet, or has gone. Owned by who opened the port, then by the watcher
	ns    netns.NsHandle // where it was opened
	nl    *netlink.Handle
	out   *packet.Conn // sends only; nil on a device without neighbours; owned like index
	was   level        // of the site's device, before a device was made on it; under making
}

func openPort(site Site, owner string) (*port, error) {
	p, err := bare()
	if err != nil {
		return nil, err
	}
	p.site, p.owner, p.dev = site, owner, site.Device()
	if err := p.open(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// bare is a port of no site.
func bare() (*port, error) {
	ns, err := netns.GetFromPath("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err == nil {
		if err = nl.SetSocketTimeout(netlinkTimeout); err != nil {
			nl.Close()
		}
	}
	if err != nil {
		_ = ns.Close() // the first error is the one to report
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &port{ns: ns, nl: nl, was: level{-1, -1}}, nil
}

func (p *port) open() error {
	base, err := p.named(p.site.Dev)
	if err != nil {
		return err
	}
	if base == nil {
		return &NoDeviceError{Dev: p.site.Dev}
	}
	p.base = base.Attrs().Index
	if !p.site.Virtual() {
		return p.use(base)
	}
	l, err := p.virtual()
	if l == nil || err != nil {
		return err
	}
	return p.use(l)
}

// named looks a device up; nil when there is none.
func (p *port) named(dev string) (netlink.Link, error) {
	l, err := p.nl.LinkByName(dev)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, fmt.Errorf("look up device %s: %w", dev, err)
	}
	return l, nil
}

// use has the address on l.
func (p *port) use(l netlink.Link) error {
	if p.index == l.Attrs().Index {
		return nil
	}
	p.mute()
	p.index = l.Attrs().Index
	if !hasNeighbours(l.Attrs()) {
		return nil
	}
	out, err := p.inside(func() (*packet.Conn, error) { return packet.Listen(netInterface(l.Attrs()), packet.Raw, 0, nil) })
	if err != nil {
		return fmt.Errorf("open packet socket on %s: %w", p.dev, err)
	}
	p.out = out
	return nil
}

func (p *port) close() {
	p.nl.Close()
	_ = p.ns.Close() // a descriptor without contents
	p.mute()
}

func (p *port) mute() {
	if p.out != nil {
		_ = p.out.Close() // nothing is buffered in it
		p.out = nil
	}
}

// hasNeighbours tells an Ethernet from a loopback or dummy device, where there
// is nobody to ask or to tell.
func hasNeighbours(a *netlink.LinkAttrs) bool {
	return a.RawFlags&(unix.IFF_LOOPBACK|unix.IFF_NOARP) == 0 && len(a.HardwareAddr) == 6
}

func netInterface(a *netlink.LinkAttrs) *net.Interface {
	return &net.Interface{Index: a.Index, MTU: a.MTU, Name: a.Name, HardwareAddr: a.HardwareAddr}
}

// link reads the device anew: its address and flags may have changed.
func (p *port) link() (netlink.Link, error) { return p.numbered(p.index, p.dev) }

// baseLink is the site's own device, which has to be up.
func (p *port) baseLink() (netlink.Link, error) {
	l, err := p.numbered(p.base, p.site.Dev)
	if err == nil && l.Attrs().RawFlags&unix.IFF_UP == 0 {
		return nil, ErrDeviceDown
	}
	return l, err
}

func (p *port) numbered(index int, name string) (netlink.Link, error) {
	l, err := p.nl.LinkByIndex(index)
	var missing netlink.LinkNotFoundError
	if index == 0 || errors.As(err, &missing) {
		return nil, &NoDeviceError{Dev: name}
	}
	if err != nil {
		return nil, fmt.Errorf("look up device %s: %w", name, err)
	}
	return l, nil
}

// within runs f on a thread in the port's namespace: what is opened or read there
// belongs to it. The address may be put back from another thread than the first one.
func (p *port) within(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.GetFromPath("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer here.Close() //nolint:errcheck // a handle on the namespace, nothing is lost with it
	if here.Equal(p.ns) {
		return f()
	}
	if err := netns.Set(p.ns); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	err = f()
	if back := netns.Set(here); back != nil {
		runtime.LockOSThread() // never unlocked twice: the runtime ends the strayed thread
		return errors.Join(err, fmt.Errorf("return to network namespace: %w", back))
	}
	return err
}

// inside opens a socket in the port's namespace.
func (p *port) inside(open func() (*packet.Conn, error)) (c *packet.Conn, err error) {
	err = p.within(func() (err error) {
		c, err = open()
		return err
	})
	return c, err
}

// has reports whether the device has exactly prefix. It fails with
// *ElsewhereError when this node has the address in another way.
func (p *port) has(prefix netip.Prefix) (bool, error) {
	index, err := p.carrier()
	if err != nil {
		return false, err
	}
	all, err := p.addresses(nil, family(prefix.Addr()))
	if err != nil {
		return false, err
	}
	there := false
	for _, x := range all {
		have, ok := prefixOf(x)
		if !ok || have.Addr() != prefix.Addr() {
			continue
		}
		if on := p.nameOf(x.LinkIndex); on != p.dev || have != prefix {
			return false, &ElsewhereError{Want: prefix, Have: have, Dev: p.dev, On: on}
		}
		there = x.LinkIndex == index
	}
	return there, nil
}

// carrier is the index of the device that has the address; 0 when that one has to be
// made, or mended.
func (p *port) carrier() (int, error) {
	if !p.site.Virtual() {
		return p.base, nil
	}
	l, err := p.virtual()
	if l == nil || err != nil || !whole(l, p.site) {
		return 0, err
	}
	return l.Attrs().Index, nil
}

func (p *port) addresses(l netlink.Link, family int) ([]netlink.Addr, error) {
	for try := 0; ; try++ {
		all, err := p.nl.AddrList(l, family)
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < 10 {
			continue // changed while it was read
		}
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		return all, nil
	}
}

func (p *port) nameOf(index int) string {
	l, err := p.nl.LinkByIndex(index)
	if err != nil {
		return fmt.Sprintf("device %d", index)
	}
	return l.Attrs().Name
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func prefixOf(x netlink.Addr) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(x.IP)
	bits, _ := x.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits), ok
}

// netlinkAddr is a service address as it is put on a device. One of IPv6 is valid for
// ever and preferred never (RFC 4862: deprecated): it is answered for and listened on, but
// what the node opens has another source, unless a route names this one.
func netlinkAddr(p netip.Prefix) *netlink.Addr {
	mask := net.CIDRMask(p.Bits(), p.Addr().BitLen())
	x := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: mask}}
	if p.Addr().Is6() {
		x.Flags, x.ValidLft, x.PreferedLft = flagNoDAD, math.MaxUint32, 0
	}
	return x
}

// add puts the address on its device, which it makes for a virtual MAC.
func (p *port) add(prefix netip.Prefix) error {
	if !p.site.Virtual() {
		return p.put(prefix)
	}
	making.Lock()
	defer making.Unlock()
	if err := p.bring(); err != nil {
		return err
	}
	l, err := p.link()
	if err == nil {
		err = p.put(prefix)
	}
	if err == nil {
		err = p.reach(l, prefix)
	}
	if err != nil && l != nil {
		err = errors.Join(err, p.discard(l))
	}
	return err
}

// put adds the address.
func (p *port) put(prefix netip.Prefix) error {
	l, err := p.link()
	if err != nil {
		return err
	}
	if l.Attrs().RawFlags&unix.IFF_UP == 0 {
		return ErrDeviceDown
	}
	x := netlinkAddr(prefix)
	if p.site.Virtual() {
		x.Flags |= flagNoPrefixRoute
	}
	err = p.nl.AddrAdd(l, x)
	switch {
	case errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.EACCES) && prefix.Addr().Is6():
		return fmt.Errorf("add address (is IPv6 disabled on %s?): %w", p.dev, err)
	case err != nil:
		return fmt.Errorf("add address: %w", err)
	}
	return nil
}

// remove takes the address off, and what was made for it.
func (p *port) remove(prefix netip.Prefix) error {
	if p.site.Virtual() {
		return p.removeVirtual(prefix)
	}
	l, err := p.link()
	if err != nil {
		return err
	}
	return p.drop(l, prefix)
}

// announce tells the neighbours once, in every form they may heed.
func (p *port) announce(ip netip.Addr) error {
	if p.out == nil {
		return nil
	}
	l, err := p.link()
	if err != nil {
		return err
	}
	self := frame.MAC(l.Attrs().HardwareAddr)
	frames := [][]byte{frame.NAAnnounce(self, ip)}
	if ip.Is4() {
		frames = [][]byte{frame.ARPAnnounceRequest(self, ip), frame.ARPAnnounceReply(self, ip)}
	}
	for _, b := range frames {
		if err := send(p.out, b); err != nil {
			return fmt.Errorf("announce %s on %s: %w", ip, p.dev, err)
		}
	}
	return nil
}

func send(c *packet.Conn, b []byte) error {
	to := net.HardwareAddr(b[:6])
	_, err := c.WriteTo(b, &packet.Addr{HardwareAddr: to})
	return err
}
