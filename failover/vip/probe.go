package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"

	"hapair/failover/vip/frame"
)

// probe asks count times, wait apart, whether another station has ip. It asks from
// the site's device, with that one's MAC: a question from the virtual MAC would draw
// the switches to this node before it is decided, and a twin's answer would come to
// the twin.
func (p *port) probe(ctx context.Context, ip netip.Addr, count int, wait time.Duration) error {
	l, err := p.baseLink()
	if err != nil {
		return err
	}
	if !hasNeighbours(l.Attrs()) {
		return ctx.Err()
	}
	c, err := p.listen(l.Attrs(), ip)
	if err != nil {
		return fmt.Errorf("open packet socket on %s: %w", p.site.Dev, err)
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
			return fmt.Errorf("probe for %s on %s: %w", ip, p.site.Dev, err)
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
			return fmt.Errorf("listen on %s: %w", p.site.Dev, err)
		}
		claim, ok := claimOf(buf[:n], ip)
		if ok && claim.Addr == ip && claim.MAC != self {
			return &ConflictError{Addr: ip, Dev: p.site.Dev, MAC: claim.MAC, Probing: claim.Probe, Twin: claim.MAC == p.site.MAC}
		}
	}
	return ctx.Err()
}
