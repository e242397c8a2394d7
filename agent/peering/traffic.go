package peering

import (
	"time"

	"golang.org/x/sys/unix"
)

// Traffic is what went over a path to a node since this Net was made, by the
// kernel's count: all streams, for whatever purpose, headers of TCP not included.
type Traffic struct {
	Streams           int           // that live
	BytesOut, BytesIn uint64        // acknowledged by the peer; received in order
	Retransmits       uint64        // segments that were sent again
	RoundTrip         time.Duration // of the stream of the smallest, smoothed by the kernel; 0 without one
}

func (t *Traffic) add(i *unix.TCPInfo) {
	t.BytesOut += i.Bytes_acked
	t.BytesIn += i.Bytes_received
	t.Retransmits += uint64(i.Total_retrans)
}

// Traffic returns the counters of each path to a node.
func (n *Net) Traffic(node string) map[string]Traffic {
	n.mu.Lock()
	out := map[string]Traffic{}
	for key, t := range n.mu.traffic {
		if key.node == node {
			out[key.path] = t
		}
	}
	var live []*Conn
	for c := range n.mu.conns {
		if c.Node == node {
			live = append(live, c)
		}
	}
	n.mu.Unlock()
	for _, c := range live {
		i := c.info()
		if i == nil {
			continue // it has just ended
		}
		t := out[c.Path]
		t.Streams++
		t.add(i)
		if rtt := time.Duration(i.Rtt) * time.Microsecond; t.RoundTrip == 0 || rtt < t.RoundTrip {
			t.RoundTrip = rtt
		}
		out[c.Path] = t
	}
	return out
}

// info is what the kernel knows of the stream; nil when it is closed.
func (c *Conn) info() (i *unix.TCPInfo) {
	raw, err := c.raw.SyscallConn()
	if err != nil {
		return nil
	}
	var get error
	if err := raw.Control(func(fd uintptr) { i, get = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil || get != nil {
		return nil
	}
	return i
}

// SegmentBytes is how much goes into one frame of the path, 0 when that is not
// known.
func (c *Conn) SegmentBytes() int {
	if i := c.info(); i != nil {
		return int(i.Snd_mss)
	}
	return 0
}
