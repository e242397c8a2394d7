package bubble

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	path        = "main"
	gossipPort  = 7791
	gossip      = "gossip" // purpose of membership's streams
	dialTimeout = 3 * time.Second
)

// address of a node, by its place in allNodes.
func address(node string) netip.Addr {
	for i, n := range allNodes {
		if n == node {
			return netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
		}
	}
	panic("no node " + node)
}

func nodeAt(hostport string) string {
	for _, n := range allNodes {
		if netip.AddrPortFrom(address(n), gossipPort).String() == hostport {
			return n
		}
	}
	return ""
}

// end is a memberlist.Transport: datagrams that get lost, streams of a port.
type end struct {
	p       *port
	packets chan *memberlist.Packet
	streams chan net.Conn
}

// end opens the membership of a process; that of an earlier one on the node
// hears nothing any more.
func (p *port) end() *end {
	e := &end{p: p, packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 64)}
	p.f.mu.Lock()
	p.f.ends[p.node] = e
	p.f.mu.Unlock()
	p.Handle(gossip, func(_ string, c net.Conn) {
		select {
		case e.streams <- c:
		default:
			_ = c.Close() // refused: nobody is told
		}
	})
	return e
}

// membership opens the end of the only path.
func (p *port) membership(string) (memberlist.Transport, error) { return p.end(), nil }

func (e *end) isDead() bool {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	return e.p.dead
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (e *end) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return address(e.p.node).AsSlice(), gossipPort, nil
}

// WriteTo implements memberlist.Transport.
func (e *end) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	f, from, to := e.p.f, e.p.node, nodeAt(addr)
	if e.isDead() {
		return now, errDead
	}
	f.mu.Lock()
	lost := f.blocked(from, to) || f.rng.Float64() < f.loss
	travels := quickest + time.Duration(f.rng.Int63n(int64(f.slow)))
	f.mu.Unlock()
	if !lost {
		p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(netip.AddrPortFrom(address(from), gossipPort))}
		time.AfterFunc(travels, func() { f.arrive(from, to, p) })
	}
	return now, nil
}

func (f *fabric) arrive(from, to string, p *memberlist.Packet) {
	f.mu.Lock()
	e := f.ends[to]
	if f.blocked(from, to) {
		e = nil
	}
	f.mu.Unlock()
	if e == nil || e.isDead() {
		return
	}
	p.Timestamp = time.Now()
	select {
	case e.packets <- p:
	default: // lost, as on a full socket
	}
}

// PacketCh implements memberlist.Transport.
func (e *end) PacketCh() <-chan *memberlist.Packet { return e.packets }

// DialTimeout implements memberlist.Transport.
func (e *end) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return e.p.Dial(ctx, nodeAt(addr), gossip)
}

// StreamCh implements memberlist.Transport.
func (e *end) StreamCh() <-chan net.Conn { return e.streams }

// Shutdown implements memberlist.Transport.
func (e *end) Shutdown() error {
	f := e.p.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ends[e.p.node] == e {
		delete(f.ends, e.p.node)
	}
	return nil
}
