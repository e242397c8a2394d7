package heartbeat

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// wires is a network in memory that can be cut.
type wires struct {
	mu  sync.Mutex
	at  map[string]*wireEnd // by host:port
	cut map[string]bool     // host:port addresses that hear and say nothing
}

func newWires() *wires { return &wires{at: map[string]*wireEnd{}, cut: map[string]bool{}} }

func (w *wires) set(cut bool, addrs ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range addrs {
		w.cut[a] = cut
	}
}

// reach returns the end at addr, nil when there is none or a cut between.
func (w *wires) reach(from, addr string) *wireEnd {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut[from] || w.cut[addr] {
		return nil
	}
	return w.at[addr]
}

func (w *wires) open(addr netip.AddrPort) *wireEnd {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := &wireEnd{w: w, addr: addr, packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 64)}
	w.at[addr.String()] = e
	return e
}

// wireEnd is a memberlist.Transport. Packets to nowhere are lost; calls to
// nowhere time out.
type wireEnd struct {
	w       *wires
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func (e *wireEnd) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return e.addr.Addr().AsSlice(), int(e.addr.Port()), nil
}

func (e *wireEnd) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	if to := e.w.reach(e.addr.String(), addr); to != nil {
		p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(e.addr), Timestamp: now}
		select {
		case to.packets <- p:
		default: // lost, as on a full socket
		}
	}
	return now, nil
}

func (e *wireEnd) PacketCh() <-chan *memberlist.Packet { return e.packets }

var errNoAnswer = errors.New("no answer")

func (e *wireEnd) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to := e.w.reach(e.addr.String(), addr)
	if to == nil {
		time.Sleep(timeout)
		return nil, errNoAnswer
	}
	here, there := net.Pipe()
	select {
	case to.streams <- there:
		return here, nil
	default:
		return nil, errors.Join(errNoAnswer, here.Close(), there.Close())
	}
}

func (e *wireEnd) StreamCh() <-chan net.Conn { return e.streams }

func (e *wireEnd) Shutdown() error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if e.w.at[e.addr.String()] == e {
		delete(e.w.at, e.addr.String())
	}
	return nil
}
