package vip

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"hapair/failover/vip/frame"
)

// insistFor is how long an address is announced more often of which nobody is seen
// to make use: whoever needs it has not heard, or nobody needs it.
const insistFor = 5 * time.Minute

// ear listens on a socket of its own. A nil ear hears nothing.
type ear struct {
	conn  *packet.Conn
	heard chan frame.MAC // capacity 1: whose frame it was
	done  chan struct{}
}

// newEar takes over conn; listen, which runs until done, ends with it.
func newEar(conn *packet.Conn, listen func(*ear)) *ear {
	e := &ear{conn: conn, heard: make(chan frame.MAC, 1), done: make(chan struct{})}
	go func() {
		defer close(e.done)
		listen(e)
	}()
	return e
}

// macs is nil for a nil ear.
func (e *ear) macs() <-chan frame.MAC {
	if e == nil {
		return nil
	}
	return e.heard
}

// close ends the listening and waits for that.
func (e *ear) close() {
	if e == nil {
		return
	}
	_ = e.conn.Close() // nothing is written to it
	<-e.done
}

// listenForUse opens an ear for the first frame that a neighbour sends for an
// address to the MAC of this node: then the neighbours know where it is. On a device
// without neighbours it is nil.
func (p *port) listenForUse(ip netip.Addr) (*ear, error) {
	if p.out == nil {
		return nil, nil //nolint:nilnil // nobody to hear
	}
	l, err := p.link()
	if err != nil {
		return nil, err
	}
	filter, err := bpf.Assemble(useOf(frame.MAC(l.Attrs().HardwareAddr), ip))
	if err != nil {
		return nil, err
	}
	conn, err := p.inside(func() (*packet.Conn, error) {
		return packet.Listen(netInterface(l.Attrs()), packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: filter})
	})
	if err != nil {
		return nil, fmt.Errorf("listen for the use of %s on %s: %w", ip, p.dev, err)
	}
	return newEar(conn, (*ear).first), nil
}

func (e *ear) first() {
	buf := make([]byte, 64)
	if n, _, err := e.conn.ReadFrom(buf); err == nil && n >= 12 {
		e.heard <- frame.MAC(buf[6:12])
	}
}

// useOf accepts frames to self that carry a packet to ip, or an ARP message about
// it; of IPv6 neighbour discovery is such a packet.
func useOf(self frame.MAC, ip netip.Addr) []bpf.Instruction {
	raw := ip.AsSlice()
	var words []uint32
	for i := 0; i < len(raw); i += 4 {
		words = append(words, binary.BigEndian.Uint32(raw[i:]))
	}
	type field struct{ off, size, want uint32 }
	to := []field{{0, 4, binary.BigEndian.Uint32(self[:4])}, {4, 2, uint32(binary.BigEndian.Uint16(self[4:]))}}
	forms := [][]field{{{12, 2, uint32(frame.EtherIPv6)}}}
	if ip.Is4() {
		forms = [][]field{{{12, 2, unix.ETH_P_IP}, {30, 4, words[0]}}, {{12, 2, uint32(frame.EtherARP)}, {38, 4, words[0]}}}
	} else {
		for i, w := range words {
			forms[0] = append(forms[0], field{38 + 4*uint32(i), 4, w})
		}
	}
	var out []bpf.Instruction
	for _, form := range forms { // each ends in an acceptance, or goes on with the next
		all := append(append([]field(nil), to...), form...)
		for i, f := range all {
			out = append(out, bpf.LoadAbsolute{Off: f.off, Size: int(f.size)},
				bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: f.want, SkipTrue: uint8(2*(len(all)-i-1) + 1)})
		}
		out = append(out, bpf.RetConstant{Val: 64})
	}
	return append(out, bpf.RetConstant{Val: 0})
}
