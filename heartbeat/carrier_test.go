package heartbeat

import (
	"context"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"hapair/heartbeat/detect"
)

func TestCarrier(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	here, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	defer func() {
		if err := netns.Set(home); err != nil {
			panic(err) // this thread is lost
		}
	}()
	nl := cable(t)

	h, err := New(Config{Self: "alpha", Key: key, Port: 7000, Detect: detect.Config{Grace: time.Hour}, Nodes: map[string]map[string]netip.Addr{
		"alpha": addrs("crossover", "10.8.0.1"), "beta": addrs("crossover", "10.8.0.2"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := newCarrier(h)
	c.open()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { c.run(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()

	awaitCode(t, h, detect.NotYetHeard)
	nl.set("box", false)
	awaitCode(t, h, detect.NoCarrier)
	nl.set("box", true)
	awaitCode(t, h, detect.NotYetHeard)
	nl.set("eth1", false)
	awaitCode(t, h, detect.DeviceOff)
	nl.set("eth1", true)
	awaitCode(t, h, detect.NotYetHeard)
	nl.addr("eth1", "10.8.0.1/30", netlink.AddrDel)
	awaitCode(t, h, detect.NoAddress)
	nl.addr("eth1", "10.8.0.1/30", netlink.AddrAdd)
	awaitCode(t, h, detect.NotYetHeard)
}

type cabling struct{ t *testing.T }

// cable makes eth1 with an address, connected to box.
func cable(t *testing.T) cabling {
	t.Helper()
	c := cabling{t}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1"}, PeerName: "box"}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	c.addr("eth1", "10.8.0.1/30", netlink.AddrAdd)
	c.set("eth1", true)
	c.set("box", true)
	return c
}

func (c cabling) set(dev string, up bool) {
	c.t.Helper()
	l, err := netlink.LinkByName(dev)
	if err != nil {
		c.t.Fatal(err)
	}
	f := netlink.LinkSetDown
	if up {
		f = netlink.LinkSetUp
	}
	if err := f(l); err != nil {
		c.t.Fatal(err)
	}
}

func (c cabling) addr(dev, text string, f func(netlink.Link, *netlink.Addr) error) {
	c.t.Helper()
	l, err := netlink.LinkByName(dev)
	if err != nil {
		c.t.Fatal(err)
	}
	a, err := netlink.ParseAddr(text)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := f(l, a); err != nil {
		c.t.Fatal(err)
	}
}

func awaitCode(t *testing.T, h *Heartbeat, want detect.Code) {
	t.Helper()
	for end := time.Now().Add(4 * time.Second); ; time.Sleep(time.Millisecond) {
		got := h.Snapshot().Nodes["beta"].Paths[0].Reasons[0].Code
		if got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s, want %s", got, want)
		}
	}
}
