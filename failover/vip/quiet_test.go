package vip

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hapair/failover/vip/frame"
)

// Nobody says that the address is at another MAC: neither who is asked for it, nor
// who asks in its name. The device has no address but those it was made for.
func TestVirtualMACAlone(t *testing.T) {
	l := virtualLab(t)
	c := l.sniff()
	a := l.address(four, virtually)
	if err := l.start(l.one, a); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		l.link(l.client, "eth0", func(h *netlink.Handle, x netlink.Link) error {
			_ = h.NeighDel(&netlink.Neigh{LinkIndex: x.Attrs().Index, IP: net.IP{10, 9, 0, 50}}) // there may be none
			return nil
		})
		l.reach(four)
	}
	for _, where := range []string{"10.9.0.2:9", "10.9.0.9:9"} { // nobody is known: it asks
		l.in(l.one, func() error {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IP{10, 9, 0, 50}}}
			u, err := d.Dial("udp", where)
			if err != nil {
				return err
			}
			defer u.Close()
			_, err = u.Write([]byte("x"))
			return err
		})
	}
	if !heardOf(t, c, netip.MustParseAddr("10.9.0.1"), testMAC) {
		t.Error("the node did not ask")
	}
	l.link(l.one, a.cfg.Device(), func(h *netlink.Handle, x netlink.Link) error {
		all, err := h.AddrList(x, unix.AF_UNSPEC)
		if len(all) != 1 || all[0].IPNet.String() != four {
			t.Errorf("the device has %v", all)
		}
		return err
	})
}

// heardOf reads what the client heard up to the first question that a node asks in its
// own name; an address of the virtual MAC may not be claimed by another until then.
func heardOf(t *testing.T, c interface {
	SetReadDeadline(time.Time) error
	ReadFrom([]byte) (int, net.Addr, error)
}, until netip.Addr, only frame.MAC) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return false
		}
		claim, ok := frame.ParseARP(buf[:n])
		if !ok || claim.Probe {
			continue
		}
		if claim.Addr == netip.MustParseAddr("10.9.0.50") && claim.MAC != only {
			t.Errorf("the address is said to be at %s", claim.MAC)
		}
		if claim.Addr == until {
			return true
		}
	}
}

// Settings that were there already, and those that an operator changed meanwhile, stay.
func TestVirtualMACKeepsSettings(t *testing.T) {
	l := virtualLab(t)
	l.set(l.one, "eth0", "arp_ignore", 2)
	a := l.address(four, virtually)
	if err := l.start(l.one, a); err != nil {
		t.Fatal(err)
	}
	if got := l.settings(l.one); got != [2]int{2, announceForeign} {
		t.Errorf("settings %v", got)
	}
	l.set(l.one, "eth0", "arp_announce", 1)
	l.remove(l.one, a)
	if got := l.settings(l.one); got != [2]int{2, 1} {
		t.Errorf("settings %v", got)
	}
}
