package vip

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"hapair/failover/vip/frame"
)

// sniff hears every frame that reaches the client.
func (l *lab) sniff() *packet.Conn {
	l.t.Helper()
	var c *packet.Conn
	l.in(l.client, func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		c, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	})
	l.t.Cleanup(func() { _ = c.Close() })
	return c
}

// announced waits for an announcement of the address; false when none comes in time.
func announced(t *testing.T, c *packet.Conn, ip netip.Addr, within time.Duration) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := c.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		claim, ok := frame.ParseND(buf[:n])
		if ip.Is4() {
			claim, ok = frame.ParseARP(buf[:n])
		}
		if ok && claim.Addr == ip && !claim.Probe && claim.MAC == (frame.MAC{2, 0, 0, 0, 0, 1}) && buf[0]&1 != 0 { // to all
			return true
		}
	}
}

// An address that nobody uses is announced again and again, until a neighbour sends
// to it at its new place.
func TestAnnouncedUntilItIsUsed(t *testing.T) {
	for name, prefix := range families {
		t.Run(name, func(t *testing.T) {
			l, ip := newLab(t), netip.MustParsePrefix(prefix).Addr()
			learnt := make(chan Event, 4)
			c := l.sniff()
			a := l.address(prefix, func(c *Config) {
				c.Announce, c.Insist = []time.Duration{0}, 20*time.Millisecond
				c.Event = func(e Event) { learnt <- e }
			})
			if err := l.start(l.one, a); err != nil {
				t.Fatal(err)
			}
			for i := range 12 { // each time twice in IPv4: request and reply
				if !announced(t, c, ip, 5*time.Second) {
					t.Fatalf("announced %d times only", i)
				}
			}
			l.reach(prefix)
			e := <-learnt
			if e.What != Learnt || e.MAC == (frame.MAC{}) || e.MAC == (frame.MAC{2, 0, 0, 0, 0, 1}) {
				t.Errorf("%+v", e)
			}
			for announced(t, c, ip, 0) { // what is queued
			}
			if announced(t, c, ip, 300*time.Millisecond) {
				t.Error("announced though it is used")
			}
		})
	}
}
