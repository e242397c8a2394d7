package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hapair/failover/vip/frame"
)

var testMAC = frame.MAC{2, 0x48, 0x41, 0, 0, 1}

const testMACText = "02:48:41:00:00:01"

// virtualLab is a lab whose nodes have addresses of their own, where the kernel has
// macvlan devices.
func virtualLab(t *testing.T) *lab {
	t.Helper()
	t.Parallel()
	l := newLab(t)
	l.ip(l.client, func(h *netlink.Handle) error {
		x, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		err = h.LinkAdd(&netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "asked", ParentIndex: x.Attrs().Index}})
		if errors.Is(err, unix.EOPNOTSUPP) {
			t.Skip("this kernel has no macvlan devices (CONFIG_MACVLAN)")
		}
		return nil // on lo it is refused in another way
	})
	for i, ns := range []netns.NsHandle{l.one, l.two} {
		l.addr(ns, fmt.Sprintf("10.9.0.%d/24", i+1))
		l.addr(ns, fmt.Sprintf("fd09::%d/64", i+1))
	}
	return l
}

func virtually(c *Config) { c.MAC, c.Owner = testMAC, "shop/pg" }

// devices lists what was made in a namespace.
func (l *lab) devices(ns netns.NsHandle) (names []string) {
	l.t.Helper()
	l.ip(ns, func(h *netlink.Handle) error {
		all, err := h.LinkList()
		for _, x := range all {
			if strings.HasPrefix(x.Attrs().Name, devicePrefix) {
				names = append(names, x.Attrs().Name)
			}
		}
		return err
	})
	return names
}

// settings are those of a parent: arp_ignore and arp_announce.
func (l *lab) settings(ns netns.NsHandle) (both [2]int) {
	l.t.Helper()
	l.in(ns, func() (err error) {
		if both[0], err = get("ipv4", "eth0", "arp_ignore"); err == nil {
			both[1], err = get("ipv4", "eth0", "arp_announce")
		}
		return err
	})
	return both
}

func (l *lab) set(ns netns.NsHandle, dev, key string, value int) {
	l.t.Helper()
	l.in(ns, func() error { return put("ipv4", dev, key, value) })
}

// nothingLeft checks that a node is as before: no device, the old settings.
func (l *lab) nothingLeft(ns netns.NsHandle) {
	l.t.Helper()
	if got := l.devices(ns); len(got) > 0 {
		l.t.Errorf("left: %q", got)
	}
	if got := l.settings(ns); got != [2]int{} {
		l.t.Errorf("the parent's arp_ignore and arp_announce are %d, were 0", got)
	}
}

// pinned has the client know the address's MAC once and for all: it heeds nothing.
func (l *lab) pinned(prefix string) {
	l.t.Helper()
	l.link(l.client, "eth0", func(h *netlink.Handle, x netlink.Link) error {
		ip := netip.MustParsePrefix(prefix).Addr()
		return h.NeighSet(&netlink.Neigh{LinkIndex: x.Attrs().Index, IP: ip.AsSlice(), HardwareAddr: net.HardwareAddr(testMAC[:]), State: netlink.NUD_PERMANENT, Family: family(ip)})
	})
}

// converse has the client talk to the address by TCP, and a node answer.
func (l *lab) converse(node netns.NsHandle, prefix string) error {
	l.t.Helper()
	var server net.Listener
	l.in(node, func() (err error) {
		server, err = net.Listen("tcp", net.JoinHostPort(netip.MustParsePrefix(prefix).Addr().String(), "0"))
		return err
	})
	defer server.Close()
	var err error
	l.in(l.client, func() error {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", server.Addr().String(), 20*time.Second); err == nil {
			c.Close()
		}
		return nil
	})
	return err
}

// The client has the virtual MAC, before and after the address moves, also when it
// heeds no announcement. Nothing is left behind.
func TestVirtualMACMoves(t *testing.T) {
	for name, prefix := range families {
		t.Run(name, func(t *testing.T) {
			l := virtualLab(t)
			l.set(l.one, "all", "rp_filter", 1) // as many systems have it
			l.set(l.two, "all", "rp_filter", 1)
			a, b := l.address(prefix, virtually), l.address(prefix, virtually)
			if err := l.start(l.one, a); err != nil {
				t.Fatal(err)
			}
			if got := l.reach(prefix); got != testMACText {
				t.Fatalf("the client finds it at %s", got)
			}
			l.pinned(prefix)
			if err := l.converse(l.one, prefix); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			l.remove(l.one, a)
			t.Logf("removed in %s", time.Since(begin))
			l.nothingLeft(l.one)
			begin = time.Now()
			if err := l.start(l.two, b); err != nil {
				t.Fatal(err)
			}
			if err := l.converse(l.two, prefix); err != nil {
				t.Error(err)
			}
			t.Logf("moved in %s", time.Since(begin))
			l.remove(l.two, b)
			l.nothingLeft(l.two)
		})
	}
}

// All addresses with one MAC share a device, which goes with the last one; the parent
// gets its settings back after the last device.
func TestVirtualMACShared(t *testing.T) {
	l := virtualLab(t)
	const second = "10.9.0.51/24"
	a, b, c := l.address(four, virtually), l.address(second, virtually), l.address(six, virtually)
	d := l.address("10.9.0.60/24", func(c *Config) { c.MAC = frame.MAC{2, 0x48, 0x41, 0, 0, 9} })
	for _, x := range []*Address{a, b, c, d} {
		if err := l.start(l.one, x); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.devices(l.one); len(got) != 2 {
		t.Fatalf("made %q", got)
	}
	if got := l.settings(l.one); got != [2]int{ignoreForeign, announceForeign} {
		t.Fatalf("settings %v", got)
	}
	l.remove(l.one, a)
	for _, prefix := range []string{second, six} {
		if got := l.reach(prefix); got != testMACText {
			t.Errorf("%s is at %s", prefix, got)
		}
		if err := l.converse(l.one, prefix); err != nil {
			t.Error(err)
		}
	}
	l.remove(l.one, b)
	l.remove(l.one, c)
	if got := l.devices(l.one); !slices.Equal(got, []string{d.cfg.Device()}) {
		t.Errorf("left %q", got)
	}
	if got := l.settings(l.one); got != [2]int{ignoreForeign, announceForeign} {
		t.Errorf("the settings are back while a device is left: %v", got)
	}
	l.remove(l.one, d)
	l.nothingLeft(l.one)
}

// A node that has no address of its own in the network answers as well.
func TestVirtualMACOnBareDevice(t *testing.T) {
	for name, prefix := range families {
		t.Run(name, func(t *testing.T) {
			l := virtualLab(t)
			l.strip(l.one, "10.9.0.1/24")
			l.strip(l.one, "fd09::1/64")
			first, second := l.address(prefix, virtually), l.address(netip.PrefixFrom(netip.MustParsePrefix(prefix).Addr().Next(), netip.MustParsePrefix(prefix).Bits()).String(), virtually)
			for _, a := range []*Address{first, second} {
				if err := l.start(l.one, a); err != nil {
					t.Fatal(err)
				}
				if err := l.converse(l.one, a.Prefix().String()); err != nil {
					t.Error(err)
				}
			}
			l.remove(l.one, first) // the kernel drops the route that has it as source
			if err := l.converse(l.one, second.Prefix().String()); err != nil {
				t.Error(err)
			}
		})
	}
}

// The node's own connections leave by its own device, also after that one was down.
func TestVirtualMACIsNotTheWayOut(t *testing.T) {
	l := virtualLab(t)
	a := l.address(four, virtually)
	if err := l.start(l.one, a); err != nil {
		t.Fatal(err)
	}
	l.down(l.one, "eth0")
	l.up(l.one, "eth0")
	l.ip(l.one, func(h *netlink.Handle) error {
		routes, err := h.RouteGet(net.IP{10, 9, 0, 9})
		if err == nil && (len(routes) != 1 || !routes[0].Src.Equal(net.IP{10, 9, 0, 1})) {
			t.Errorf("the way to the client is %v", routes)
		}
		return err
	})
}

// What somebody does to the device is undone.
func TestVirtualMACComesBack(t *testing.T) {
	for name, hurt := range map[string]func(*netlink.Handle, netlink.Link) error{
		"deleted":  (*netlink.Handle).LinkDel,
		"set down": (*netlink.Handle).LinkSetDown,
		"other MAC": func(h *netlink.Handle, x netlink.Link) error {
			return h.LinkSetHardwareAddr(x, net.HardwareAddr{2, 0, 0, 0, 0, 77})
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := virtualLab(t)
			events := make(chan Event, 16)
			a := l.address(four, func(c *Config) { virtually(c); c.Event = func(e Event) { events <- e } })
			if err := l.start(l.one, a); err != nil {
				t.Fatal(err)
			}
			l.link(l.one, a.cfg.Device(), hurt)
			for _, want := range []Happening{Stripped, Restored} {
				select {
				case e := <-events:
					if e.What != want || e.Err != nil {
						t.Fatalf("%+v, want %s", e, want)
					}
				case <-time.After(20 * time.Second):
					t.Fatalf("not told: %s", want)
				}
			}
			if got := l.reach(four); got != testMACText {
				t.Errorf("the client finds it at %s", got)
			}
			if there, err := a.Present(); !there || err != nil {
				t.Errorf("present %v, %v", there, err)
			}
			l.remove(l.one, a)
			l.nothingLeft(l.one)
		})
	}
}

// A twin is found though it has the same MAC, and before the switch is confused; one
// that comes later is told.
func TestVirtualMACOfATwin(t *testing.T) {
	for name, prefix := range families {
		t.Run(name, func(t *testing.T) {
			l := virtualLab(t)
			events := make(chan Event, 16)
			a := l.address(prefix, func(c *Config) { virtually(c); c.Event = func(e Event) { events <- e } })
			if err := l.start(l.one, a); err != nil {
				t.Fatal(err)
			}
			err := l.start(l.two, l.address(prefix, virtually))
			var c *ConflictError
			if !errors.As(err, &c) || c.MAC != testMAC || !c.Twin || c.Probing {
				t.Fatalf("a twin is not found: %v", err)
			}
			l.nothingLeft(l.two)
			again := l.address(prefix, func(c *Config) { virtually(c); c.MayTake = func(c *ConflictError) bool { return c.Twin } })
			if err := l.start(l.two, again); err != nil {
				t.Fatal(err)
			}
			within := time.After(20 * time.Second)
			for told := false; !told; {
				select {
				case e := <-events:
					told = e.What == Contested && e.MAC == testMAC
				case <-within:
					t.Fatal("a twin that came later is not told")
				}
			}
		})
	}
}

// What a crash left is taken over by the next life, or swept by it, and the settings
// are put back that were there before the crash.
func TestVirtualMACAfterACrash(t *testing.T) {
	l := virtualLab(t)
	a, other := l.address(four, virtually), l.address(six, func(c *Config) { c.MAC, c.Owner = frame.MAC{2, 0, 0, 0, 9, 9}, "club/pg" })
	for _, x := range []*Address{a, other} {
		if err := l.start(l.one, x); err != nil {
			t.Fatal(err)
		}
		x.Close()
	}
	b := l.address(four, virtually)
	if err := l.start(l.one, b); err != nil {
		t.Fatal(err)
	}
	b.Close()
	l.in(l.one, func() error {
		swept, err := Sweep("shop/")
		if !slices.Equal(swept, []string{a.cfg.Device()}) || err != nil {
			t.Errorf("swept %q, %v", swept, err)
		}
		return nil
	})
	if got := l.devices(l.one); !slices.Equal(got, []string{other.cfg.Device()}) {
		t.Errorf("left %q", got)
	}
	l.in(l.one, other.cfg.Clear)
	l.nothingLeft(l.one)
}

func TestVirtualMACRefusals(t *testing.T) {
	l := virtualLab(t)
	a := l.address(four, virtually)
	refused := func(what, dev, words string) {
		t.Helper()
		var f *ForeignError
		if err := l.start(l.one, a); !errors.As(err, &f) || f.Dev != dev || !strings.Contains(f.Is, words) {
			t.Errorf("%s: %v", what, err)
		}
	}
	l.ip(l.one, func(h *netlink.Handle) error {
		return h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: a.cfg.Device(), MTU: 1500}})
	})
	refused("a bridge of that name", a.cfg.Device(), "type bridge")
	l.link(l.one, a.cfg.Device(), (*netlink.Handle).LinkDel)
	l.set(l.one, "all", "arp_ignore", 3)
	refused("a parent that answers for all", "eth0", "all.arp_ignore is 3")
	l.set(l.one, "all", "arp_ignore", 0)
	l.ip(l.one, func(h *netlink.Handle) error {
		x, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		twin := netlink.LinkAttrs{Name: "mine", ParentIndex: x.Attrs().Index, HardwareAddr: net.HardwareAddr(testMAC[:]), MTU: 1500}
		if err := h.LinkAdd(&netlink.Macvlan{LinkAttrs: twin, Mode: netlink.MACVLAN_MODE_BRIDGE}); err != nil {
			return err
		}
		return h.LinkSetUp(&netlink.Macvlan{LinkAttrs: twin})
	})
	refused("another device with that MAC", "eth0", "has another device")
	l.link(l.one, "mine", (*netlink.Handle).LinkDel)
	l.nothingLeft(l.one)
	l.ip(l.one, func(h *netlink.Handle) error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", MTU: 1500}}
		if err := h.LinkAdd(br); err != nil {
			return err
		}
		x, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		return h.LinkSetMaster(x, br)
	})
	refused("a port of a bridge", "eth0", "takes no macvlan")
	l.link(l.one, "eth0", (*netlink.Handle).LinkSetNoMaster)
	l.down(l.one, "eth0")
	if err := l.start(l.one, a); !errors.Is(err, ErrDeviceDown) {
		t.Errorf("parent down: %v", err)
	}
	a = l.address(four, func(c *Config) { virtually(c); c.Dev = "lo" })
	refused("no Ethernet", "lo", "no Ethernet")
	l.in(l.one, l.address(four, func(c *Config) { virtually(c); c.Dev = "eth7" }).Remove)
	l.nothingLeft(l.one)
}

// The parent goes, and the device with it.
func TestVirtualMACWithoutParent(t *testing.T) {
	l := virtualLab(t)
	a := l.address(four, virtually)
	if err := l.start(l.one, a); err != nil {
		t.Fatal(err)
	}
	l.link(l.one, "eth0", (*netlink.Handle).LinkDel)
	if there, err := a.Present(); there || err != nil {
		t.Errorf("present %v, %v", there, err)
	}
	l.join("one", l.one, "02:00:00:00:00:01")
	l.up(l.one, "eth0")
	if err := l.start(l.one, a); err != nil { // as the agent does when a check finds it gone
		t.Fatal(err)
	}
	if got := l.reach(four); got != testMACText {
		t.Errorf("the client finds it at %s", got)
	}
}
