package vip

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// tagged is the VLAN device of these tests, on eth0 of the client and of both nodes.
const tagged = "vlan7"

// vlanLab is a lab whose client and nodes have addresses of their own in a VLAN, where
// the kernel has such devices. TestVLAN of test/vm runs these tests where they are.
func vlanLab(t *testing.T) *lab {
	t.Helper()
	t.Parallel()
	l := newLab(t)
	for ns, prefix := range map[netns.NsHandle]string{l.client: "10.7.0.9/24", l.one: "10.7.0.1/24", l.two: "10.7.0.2/24"} {
		l.vlan(ns, "eth0", tagged, 7)
		l.addrOn(ns, tagged, prefix)
	}
	return l
}

func (l *lab) tagged(prefix string, change func(*Config)) *Address {
	l.t.Helper()
	return l.address(prefix, func(c *Config) {
		c.Dev = tagged
		if change != nil {
			change(c)
		}
	})
}

// Addresses on a VLAN device, the second beside another of the same network. They move,
// and the client hears of it.
func TestVLAN(t *testing.T) {
	l := vlanLab(t)
	for _, prefix := range []string{"10.7.0.50/24", "10.7.0.51/24"} {
		a, b := l.tagged(prefix, nil), l.tagged(prefix, nil)
		if err := l.start(l.one, a); err != nil {
			t.Fatal(err)
		}
		if got := l.reachOn(tagged, prefix); got != "02:00:00:00:00:01" {
			t.Errorf("the client finds %s at %s", prefix, got)
		}
		var taken *ConflictError
		if err := l.start(l.two, b); !errors.As(err, &taken) {
			t.Errorf("%s is taken while it is held: %v", prefix, err)
		}
		l.remove(l.one, a)
		if err := l.start(l.two, b); err != nil {
			t.Fatal(err)
		}
		l.awaitOn(tagged, prefix, func(mac string) bool { return mac == "02:00:00:00:00:02" })
	}
}

// A virtual MAC over a VLAN device moves, and nothing is left behind.
func TestVLANVirtualMAC(t *testing.T) {
	l := vlanLab(t)
	const prefix = "10.7.0.50/24"
	for _, node := range []netns.NsHandle{l.one, l.two} {
		a := l.tagged(prefix, virtually)
		if err := l.start(node, a); err != nil {
			t.Fatal(err)
		}
		if got := l.reachOn(tagged, prefix); got != testMACText {
			t.Errorf("the client finds it at %s", got)
		}
		if err := l.converse(node, prefix); err != nil {
			t.Error(err)
		}
		l.remove(node, a)
		l.nothingLeft(node)
		l.in(node, func() error {
			ignore, err := get("ipv4", tagged, "arp_ignore")
			if err == nil && ignore != 0 {
				t.Errorf("arp_ignore of %s is %d, was 0", tagged, ignore)
			}
			return err
		})
	}
}

// What leaves by a default route over a VLAN device leaves with the address.
func TestVLANSource(t *testing.T) {
	x := away{lab: vlanLab(t), far: "172.16.0.1", near: "10.7.0.9", all: "0.0.0.0/0", own: "10.7.0.1"}
	x.addrOn(x.client, "lo", x.far+"/32")
	x.route(x.near, (*netlink.Handle).RouteAdd)
	a := x.tagged("10.7.0.50/24", func(c *Config) { c.SourceFor = netip.MustParsePrefix(x.all) })
	if err := x.start(x.one, a); err != nil {
		t.Fatal(err)
	}
	if far, near := x.from(x.far, ""), x.from(x.near, ""); far != "10.7.0.50" || near != x.own {
		t.Errorf("far from %s, near from %s", far, near)
	}
	x.remove(x.one, a)
	if far := x.from(x.far, ""); far != x.own || x.ruled() != 0 {
		t.Errorf("after it is removed: from %s, %d rules", far, x.ruled())
	}
}

// The device below goes down, and the VLAN device with it: nothing is taken there. It
// goes for good: the address is not there.
func TestVLANWithoutParent(t *testing.T) {
	l := vlanLab(t)
	a := l.tagged("10.7.0.50/24", nil)
	l.down(l.one, "eth0")
	if err := l.start(l.one, a); !errors.Is(err, ErrDeviceDown) {
		t.Errorf("with eth0 down: %v", err)
	}
	l.up(l.one, "eth0")
	l.up(l.one, tagged)
	if err := l.start(l.one, a); err != nil {
		t.Fatal(err)
	}
	l.link(l.one, "eth0", (*netlink.Handle).LinkDel)
	if there, err := a.Present(); there || err != nil {
		t.Errorf("present %v, %v", there, err)
	}
}
