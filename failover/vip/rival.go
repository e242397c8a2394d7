package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/packet"

	"hapair/failover/vip/frame"
)

// rivalEvery is how often it is told, at most, that another station claims an
// address that is held.
const rivalEvery = time.Minute

// watchman hears who else claims an address that is held: it is told, not fought
// over.
type watchman struct {
	conn   *packet.Conn
	rivals chan frame.MAC // capacity 1: what finds it full is told the next time
	done   chan struct{}
}

// listenForRivals opens one. On a device without neighbours it is nil.
func (p *port) listenForRivals(ip netip.Addr) (*watchman, error) {
	if p.out == nil {
		return nil, nil //nolint:nilnil // nobody to hear
	}
	l, err := p.link()
	if err != nil {
		return nil, err
	}
	conn, err := p.listen(l.Attrs(), ip)
	if err != nil {
		return nil, fmt.Errorf("listen for other claims of %s on %s: %w", ip, p.dev, err)
	}
	w := &watchman{conn: conn, rivals: make(chan frame.MAC, 1), done: make(chan struct{})}
	go w.listen(frame.MAC(l.Attrs().HardwareAddr), ip)
	return w, nil
}

// listen ends with its socket, and for good when the device is gone.
func (w *watchman) listen(self frame.MAC, ip netip.Addr) {
	defer close(w.done)
	buf := make([]byte, 2048)
	for {
		n, _, err := w.conn.ReadFrom(buf)
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
		case w.rivals <- claim.MAC:
		default:
		}
	}
}

// close ends the listening and waits for that.
func (w *watchman) close() {
	_ = w.conn.Close() // nothing is written to it
	<-w.done
}

// claimOf reads a frame that may claim an address of ip's family.
func claimOf(b []byte, ip netip.Addr) (frame.Claim, bool) {
	if ip.Is4() {
		return frame.ParseARP(b)
	}
	return frame.ParseND(b)
}
