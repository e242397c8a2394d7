package vip

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lab is a client with a bridge, and two nodes on it: device eth0 in each.
type lab struct {
	t                *testing.T
	client, one, two netns.NsHandle
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	l := &lab{t: t}
	l.client, l.one, l.two = l.namespace(), l.namespace(), l.namespace()
	l.ip(l.client, func(h *netlink.Handle) error {
		return h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0", MTU: 1500}})
	})
	l.join("one", l.one, "02:00:00:00:00:01")
	l.join("two", l.two, "02:00:00:00:00:02")
	for _, ns := range []netns.NsHandle{l.client, l.one, l.two} {
		l.up(ns, "lo")
		l.up(ns, "eth0")
	}
	l.addr(l.client, "10.9.0.9/24")
	l.addr(l.client, "fd09::9/64")
	return l
}

// namespace makes one; it goes with its last descriptor.
func (l *lab) namespace() netns.NsHandle {
	l.t.Helper()
	var ns netns.NsHandle
	l.threadly(func() error {
		var err error
		ns, err = netns.New()
		if err != nil {
			return err
		}
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644)
	})
	l.t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			l.t.Error(err)
		}
	})
	return ns
}

// threadly runs f on a thread of its own namespace and comes back.
func (l *lab) threadly(f func() error) {
	l.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		l.t.Fatal(err)
	}
	defer home.Close()
	ferr := f()
	if err := netns.Set(home); err != nil {
		panic(err) // this thread is lost
	}
	if ferr != nil {
		l.t.Fatal(ferr)
	}
}

func (l *lab) in(ns netns.NsHandle, f func() error) {
	l.t.Helper()
	l.threadly(func() error {
		if err := netns.Set(ns); err != nil {
			return err
		}
		return f()
	})
}

func (l *lab) ip(ns netns.NsHandle, f func(*netlink.Handle) error) {
	l.t.Helper()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		l.t.Fatal(err)
	}
	defer h.Close()
	if err := f(h); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) join(name string, node netns.NsHandle, mac string) {
	l.t.Helper()
	hw, err := parseMAC(mac)
	if err != nil {
		l.t.Fatal(err)
	}
	l.ip(l.client, func(h *netlink.Handle) error {
		v := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1500}, PeerName: "eth0",
			PeerHardwareAddr: hw, PeerNamespace: netlink.NsFd(node),
		}
		if err := h.LinkAdd(v); err != nil {
			return err
		}
		br, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := h.LinkSetMaster(v, br); err != nil {
			return err
		}
		return h.LinkSetUp(v)
	})
}

func (l *lab) up(ns netns.NsHandle, dev string) {
	l.t.Helper()
	l.link(ns, dev, (*netlink.Handle).LinkSetUp)
}

func (l *lab) down(ns netns.NsHandle, dev string) {
	l.t.Helper()
	l.link(ns, dev, (*netlink.Handle).LinkSetDown)
}

func (l *lab) link(ns netns.NsHandle, dev string, f func(*netlink.Handle, netlink.Link) error) {
	l.t.Helper()
	l.ip(ns, func(h *netlink.Handle) error {
		x, err := h.LinkByName(dev)
		if err != nil {
			return err
		}
		return f(h, x)
	})
}

// vlan makes a VLAN device on another.
func (l *lab) vlan(ns netns.NsHandle, on, name string, id int) {
	l.t.Helper()
	l.link(ns, on, func(h *netlink.Handle, x netlink.Link) error {
		v := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: name, ParentIndex: x.Attrs().Index, MTU: 1500}, VlanId: id, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
		err := h.LinkAdd(v)
		if errors.Is(err, unix.EOPNOTSUPP) {
			l.t.Skip("this kernel has no VLAN devices (CONFIG_VLAN_8021Q)")
		}
		if err != nil {
			return err
		}
		return h.LinkSetUp(v)
	})
}

func (l *lab) addr(ns netns.NsHandle, text string) {
	l.t.Helper()
	l.addrOn(ns, "eth0", text)
}

func (l *lab) addrOn(ns netns.NsHandle, dev, text string) {
	l.t.Helper()
	l.link(ns, dev, func(h *netlink.Handle, x netlink.Link) error {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if a.IP.To4() == nil {
			a.Flags = flagNoDAD
		}
		return h.AddrAdd(x, a)
	})
}

func (l *lab) strip(ns netns.NsHandle, text string) {
	l.t.Helper()
	l.link(ns, "eth0", func(h *netlink.Handle, x netlink.Link) error {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		return h.AddrDel(x, a)
	})
}

// has lists the addresses of eth0.
func (l *lab) has(ns netns.NsHandle, text string) bool {
	l.t.Helper()
	found := false
	l.link(ns, "eth0", func(h *netlink.Handle, x netlink.Link) error {
		all, err := h.AddrList(x, unix.AF_UNSPEC)
		for _, a := range all {
			found = found || a.IPNet.String() == text
		}
		return err
	})
	return found
}
