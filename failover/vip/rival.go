package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"hapair/failover/vip/frame"
)

// rivalEvery is how often it is told, at most, that another station claims an
// address that is held.
const rivalEvery = time.Minute

// listenForRivals opens an ear for who else claims an address that is held: it is
// told, not fought over. On a device without neighbours it is nil.
func (p *port) listenForRivals(ip netip.Addr) (*ear, error) {
	if p.out == nil {
		return nil, nil //nolint:nilnil // nobody to hear
	}
	l, err := p.baseLink()
	if err != nil {
		return nil, err
	}
	conn, err := p.listen(l.Attrs(), ip)
	if err != nil {
		return nil, fmt.Errorf("listen for other claims of %s on %s: %w", ip, p.site.Dev, err)
	}
	self := frame.MAC(l.Attrs().HardwareAddr) // that of a virtual MAC is a twin's: what is sent here is not heard
	return newEar(conn, func(e *ear) { e.claims(self, ip) }), nil
}

// claims ends with its socket, and for good when the device is gone.
func (e *ear) claims(self frame.MAC, ip netip.Addr) {
	buf := make([]byte, 2048)
	for {
		n, _, err := e.conn.ReadFrom(buf)
		var passing net.Error
		if errors.As(err, &passing) && passing.Timeout() {
			continue
		}
		if err != nil {
			return
		}
		claim, ok := claimOf(buf[:n], ip)
		if !ok || claim.Addr != ip || claim.MAC == self || claim.Probe {
			continue
		}
		select {
		case e.heard <- claim.MAC:
		default: // it is told the next time
		}
	}
}

// claimOf reads a frame that may claim an address of ip's family.
func claimOf(b []byte, ip netip.Addr) (frame.Claim, bool) {
	if ip.Is4() {
		return frame.ParseARP(b)
	}
	return frame.ParseND(b)
}
