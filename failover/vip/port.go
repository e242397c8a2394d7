package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"hapair/failover/vip/frame"
)

// flagNoDAD takes an IPv6 address at once; duplicates have been looked for.
const flagNoDAD = 0x02

const netlinkTimeout = 2 * time.Second

// port is one device in the namespace of the thread that opened it.
type port struct {
	dev   string
	index int
	ns    netns.NsHandle // where it was opened
	nl    *netlink.Handle
	out   *packet.Conn // sends only; nil on a device without neighbours
}

func openPort(dev string) (*port, error) {
	ns, err := netns.GetFromPath("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		_ = ns.Close() // the first error is the one to report
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	p := &port{dev: dev, ns: ns, nl: nl}
	if err := p.open(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *port) open() error {
	if err := p.nl.SetSocketTimeout(netlinkTimeout); err != nil {
		return fmt.Errorf("set netlink time-out: %w", err)
	}
	l, err := p.nl.LinkByName(p.dev)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return &NoDeviceError{Dev: p.dev}
	}
	if err != nil {
		return fmt.Errorf("look up device %s: %w", p.dev, err)
	}
	p.index = l.Attrs().Index
	if !hasNeighbours(l.Attrs()) {
		return nil
	}
	p.out, err = packet.Listen(netInterface(l.Attrs()), packet.Raw, 0, nil)
	if err != nil {
		return fmt.Errorf("open packet socket on %s: %w", p.dev, err)
	}
	return nil
}

func (p *port) close() {
	p.nl.Close()
	_ = p.ns.Close() // a descriptor without contents
	if p.out != nil {
		_ = p.out.Close() // nothing is buffered in it
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
func (p *port) link() (netlink.Link, error) {
	l, err := p.nl.LinkByIndex(p.index)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, &NoDeviceError{Dev: p.dev}
	}
	if err != nil {
		return nil, fmt.Errorf("look up device %s: %w", p.dev, err)
	}
	return l, nil
}

// has reports whether the device has exactly prefix. It fails with
// *ElsewhereError when this node has the address in another way.
func (p *port) has(prefix netip.Prefix) (bool, error) {
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
		if x.LinkIndex != p.index || have != prefix {
			return false, &ElsewhereError{Want: prefix, Have: have, Dev: p.dev, On: p.nameOf(x.LinkIndex)}
		}
		there = true
	}
	return there, nil
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

func netlinkAddr(p netip.Prefix) *netlink.Addr {
	mask := net.CIDRMask(p.Bits(), p.Addr().BitLen())
	x := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: mask}}
	if p.Addr().Is6() {
		x.Flags = flagNoDAD
	}
	return x
}

func (p *port) add(prefix netip.Prefix) error {
	l, err := p.link()
	if err != nil {
		return err
	}
	if l.Attrs().RawFlags&unix.IFF_UP == 0 {
		return ErrDeviceDown
	}
	err = p.nl.AddrAdd(l, netlinkAddr(prefix))
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

// remove takes the address off. The kernel drops the secondary addresses of an
// IPv4 network with its first one (unless promote_secondaries is set): those
// are not ours to lose and are put back.
func (p *port) remove(prefix netip.Prefix) error {
	l, err := p.link()
	if err != nil {
		return err
	}
	before, err := p.addresses(l, family(prefix.Addr()))
	if err != nil {
		return err
	}
	err = p.nl.AddrDel(l, netlinkAddr(prefix))
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete address: %w", err)
	}
	if prefix.Addr().Is6() {
		return nil
	}
	return p.restoreOthers(l, prefix, before)
}

func (p *port) restoreOthers(l netlink.Link, removed netip.Prefix, before []netlink.Addr) error {
	after, err := p.addresses(l, unix.AF_INET)
	if err != nil {
		return err
	}
	kept := map[netip.Prefix]bool{removed: true}
	for _, x := range after {
		have, _ := prefixOf(x)
		kept[have] = true
	}
	var failed error
	for _, x := range before {
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

// probe asks count times, wait apart, whether another station has ip.
func (p *port) probe(ctx context.Context, ip netip.Addr, count int, wait time.Duration) error {
	l, err := p.link()
	if err != nil {
		return err
	}
	if l.Attrs().RawFlags&unix.IFF_UP == 0 {
		return ErrDeviceDown
	}
	if !hasNeighbours(l.Attrs()) {
		return ctx.Err()
	}
	c, err := p.listen(l.Attrs(), ip)
	if err != nil {
		return fmt.Errorf("open packet socket on %s: %w", p.dev, err)
	}
	defer c.Close()                                                                   //nolint:errcheck // what was sent is sent
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) }) // fails only on a closed socket
	defer stop()
	self := frame.MAC(l.Attrs().HardwareAddr)
	ask := frame.NSProbe(self, ip)
	if ip.Is4() {
		ask = frame.ARPProbe(self, ip)
	}
	for range count {
		if err := send(c, ask); err != nil {
			return fmt.Errorf("probe for %s on %s: %w", ip, p.dev, err)
		}
		if err := p.hear(ctx, c, self, ip, wait); err != nil {
			return err
		}
	}
	return nil
}

// listen opens a socket that hears claims on ip, in the port's namespace: the
// address may be put back from another thread.
func (p *port) listen(a *netlink.LinkAttrs, ip netip.Addr) (c *packet.Conn, err error) {
	return p.inside(func() (*packet.Conn, error) { return listenHere(a, ip) })
}

// inside opens a socket in the port's namespace.
func (p *port) inside(open func() (*packet.Conn, error)) (c *packet.Conn, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.GetFromPath("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer here.Close() //nolint:errcheck // a handle on the namespace, nothing is lost with it
	if here.Equal(p.ns) {
		return open()
	}
	if err := netns.Set(p.ns); err != nil {
		return nil, fmt.Errorf("enter network namespace: %w", err)
	}
	c, err = open()
	if back := netns.Set(here); back != nil {
		runtime.LockOSThread() // never unlocked twice: the runtime ends the strayed thread
		return c, errors.Join(err, fmt.Errorf("return to network namespace: %w", back))
	}
	return c, err
}

func listenHere(a *netlink.LinkAttrs, ip netip.Addr) (*packet.Conn, error) {
	if ip.Is4() {
		return listenARP(a, ip)
	}
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 20, Size: 1}, // next header
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 58, SkipTrue: 3},
		bpf.LoadAbsolute{Off: 54, Size: 1}, // ICMPv6 type
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 135, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 136, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 2048},
	})
	if err != nil {
		return nil, err
	}
	c, err := packet.Listen(netInterface(a), packet.Raw, frame.EtherIPv6, &packet.Config{Filter: filter})
	if err != nil {
		return nil, err
	}
	_, group := frame.SolicitedNode(ip)
	if err := errors.Join(c.JoinGroup(group[:]), c.JoinGroup(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1})); err != nil {
		_ = c.Close() // the first error is the one to report
		return nil, err
	}
	return c, nil
}

// listenARP hears ARP messages whose sender has, or asks for, ip.
func listenARP(a *netlink.LinkAttrs, ip netip.Addr) (*packet.Conn, error) {
	addr := ip.As4()
	word := binary.BigEndian.Uint32(addr[:])
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 28, Size: 4}, // sender
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: word, SkipTrue: 2},
		bpf.LoadAbsolute{Off: 38, Size: 4}, // target: of a probe
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: word, SkipTrue: 1},
		bpf.RetConstant{Val: 2048},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil, err
	}
	return packet.Listen(netInterface(a), packet.Raw, frame.EtherARP, &packet.Config{Filter: filter})
}

func (p *port) hear(ctx context.Context, c *packet.Conn, self frame.MAC, ip netip.Addr, wait time.Duration) error {
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		n, _, err := c.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return fmt.Errorf("listen on %s: %w", p.dev, err)
		}
		claim, ok := claimOf(buf[:n], ip)
		if ok && claim.Addr == ip && claim.MAC != self {
			return &ConflictError{Addr: ip, Dev: p.dev, MAC: claim.MAC, Probing: claim.Probe}
		}
	}
	return ctx.Err()
}
