package vip

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hapair/failover/vip/frame"
)

func parseMAC(s string) (net.HardwareAddr, error) { return net.ParseMAC(s) }

const (
	four = "10.9.0.50/24"
	six  = "fd09::50/64"
)

var families = map[string]string{"IPv4": four, "IPv6": six}

func (l *lab) address(prefix string, change func(*Config)) *Address {
	l.t.Helper()
	cfg := Config{Site: Site{Prefix: netip.MustParsePrefix(prefix), Dev: "eth0"}}
	if change != nil {
		change(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(a.Close)
	return a
}

func (l *lab) start(ns netns.NsHandle, a *Address) (err error) {
	l.t.Helper()
	l.in(ns, func() error {
		err = a.Start(l.t.Context())
		return nil
	})
	return err
}

func (l *lab) remove(ns netns.NsHandle, a *Address) {
	l.t.Helper()
	l.in(ns, a.Remove)
}

// reach makes the client talk to the address and returns where it believes it
// to be.
func (l *lab) reach(prefix string) string {
	l.t.Helper()
	return l.reachOn("eth0", prefix)
}

func (l *lab) reachOn(dev, prefix string) string {
	l.t.Helper()
	l.in(l.client, func() error {
		c, err := net.Dial("udp", net.JoinHostPort(netip.MustParsePrefix(prefix).Addr().String(), "9"))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	})
	return l.awaitOn(dev, prefix, func(mac string) bool { return mac != "" })
}

// await waits until the client's neighbour cache satisfies ok.
func (l *lab) await(prefix string, ok func(mac string) bool) string {
	l.t.Helper()
	return l.awaitOn("eth0", prefix, ok)
}

func (l *lab) awaitOn(dev, prefix string, ok func(mac string) bool) string {
	l.t.Helper()
	want := netip.MustParsePrefix(prefix).Addr()
	ctx, cancel := context.WithTimeout(l.t.Context(), 5*time.Second)
	defer cancel()
	for {
		mac := ""
		l.link(l.client, dev, func(h *netlink.Handle, x netlink.Link) error {
			all, err := h.NeighList(x.Attrs().Index, family(want))
			for _, n := range all {
				got, _ := netip.AddrFromSlice(n.IP)
				if got.Unmap() == want && n.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) == 0 {
					mac = n.HardwareAddr.String()
				}
			}
			return err
		})
		if ok(mac) {
			return mac
		}
		select {
		case <-ctx.Done():
			l.t.Fatalf("neighbour cache for %s says %q", want, mac)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestMoveIsLearnt(t *testing.T) {
	for name, prefix := range families {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			a, b := l.address(prefix, nil), l.address(prefix, nil)
			if err := l.start(l.one, a); err != nil {
				t.Fatal(err)
			}
			if got := l.reach(prefix); got != "02:00:00:00:00:01" {
				t.Fatalf("client finds the first at %s", got)
			}
			l.remove(l.one, a)
			begin := time.Now()
			if err := l.start(l.two, b); err != nil {
				t.Fatal(err)
			}
			l.await(prefix, func(mac string) bool { return mac == "02:00:00:00:00:02" })
			t.Logf("learnt %s after the move began", time.Since(begin))
			if l.has(l.one, prefix) || !l.has(l.two, prefix) {
				t.Error("the address is not where it should be")
			}
		})
	}
}

func TestConflictIsReported(t *testing.T) {
	for name, prefix := range families {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.addr(l.one, prefix)
			err := l.start(l.two, l.address(prefix, nil))
			var c *ConflictError
			if !errors.As(err, &c) || c.MAC.String() != "02:00:00:00:00:01" || c.Probing {
				t.Fatalf("a used address is taken: %v", err)
			}
			if l.has(l.two, prefix) {
				t.Error("added all the same")
			}
			forced := l.address(prefix, func(c *Config) {
				c.MayTake = func(c *ConflictError) bool { return c.MAC.String() == "02:00:00:00:00:01" }
			})
			if err := l.start(l.two, forced); err != nil || !l.has(l.two, prefix) {
				t.Errorf("not taken although told to: %v", err)
			}
		})
	}
}

func TestTwoThatProbeAtOnceSeeEachOther(t *testing.T) {
	for name, prefix := range families {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			slow := func(c *Config) { c.ProbeWait = 300 * time.Millisecond }
			a, b := l.address(prefix, slow), l.address(prefix, slow)
			first := make(chan error, 1)
			go func() { first <- l.start(l.one, a) }()
			second := l.start(l.two, b)
			var c *ConflictError
			if one := <-first; !errors.As(errors.Join(one, second), &c) {
				t.Fatalf("both took it: %v, %v", one, second)
			}
		})
	}
}

func TestStrippedAddressComesBack(t *testing.T) {
	for name, prefix := range families {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			events := make(chan Event, 16)
			a := l.address(prefix, func(c *Config) { c.Event = func(e Event) { events <- e } })
			if err := l.start(l.one, a); err != nil {
				t.Fatal(err)
			}
			l.strip(l.one, prefix)
			for _, want := range []Happening{Stripped, Restored} {
				if e := <-events; e.What != want || e.Err != nil {
					t.Fatalf("%+v, want %s", e, want)
				}
			}
			if !l.has(l.one, prefix) {
				t.Error("not back")
			}
			l.remove(l.one, a)
			if l.has(l.one, prefix) {
				t.Error("still there after Remove")
			}
		})
	}
}

func TestCableBackIsAnnounced(t *testing.T) {
	l := newLab(t)
	events := make(chan Event, 16)
	a := l.address(four, func(c *Config) { c.Event = func(e Event) { events <- e } })
	if err := l.start(l.one, a); err != nil {
		t.Fatal(err)
	}
	l.down(l.client, "one")
	if e := <-events; e.What != CarrierOff {
		t.Fatalf("%+v", e)
	}
	l.up(l.client, "one")
	if e := <-events; e.What != CarrierUp {
		t.Fatalf("%+v", e)
	}
}

func TestEnsure(t *testing.T) {
	l := newLab(t)
	a := l.address(four, nil)
	l.in(l.one, func() error {
		if did, err := a.Ensure(t.Context()); did || err != nil {
			t.Errorf("an address not held: %v %v", did, err)
		}
		if err := a.Start(t.Context()); err != nil {
			return err
		}
		if did, err := a.Ensure(t.Context()); did || err != nil {
			t.Errorf("nothing to do: %v %v", did, err)
		}
		return nil
	})
}

func TestIdempotent(t *testing.T) {
	l := newLab(t)
	a := l.address(four, nil)
	l.in(l.one, func() error {
		for range 2 {
			if err := a.Start(t.Context()); err != nil {
				return err
			}
		}
		if there, err := a.Present(); !there || err != nil {
			t.Errorf("present %v %v", there, err)
		}
		for range 2 {
			if err := a.Remove(); err != nil {
				return err
			}
		}
		if there, err := a.Present(); there || err != nil {
			t.Errorf("present %v %v after Remove", there, err)
		}
		return nil
	})
}

// The kernel drops an IPv4 network's secondary addresses with its first one.
func TestRemoveKeepsOtherAddresses(t *testing.T) {
	l := newLab(t)
	a := l.address(four, nil)
	if err := l.start(l.one, a); err != nil {
		t.Fatal(err)
	}
	l.addr(l.one, "10.9.0.1/24")
	l.remove(l.one, a)
	if l.has(l.one, four) || !l.has(l.one, "10.9.0.1/24") {
		t.Error("the node lost its own address, or kept the service's")
	}
}

func TestRefusals(t *testing.T) {
	l := newLab(t)
	var gone *NoDeviceError
	if err := l.start(l.one, l.address(four, func(c *Config) { c.Dev = "eth7" })); !errors.As(err, &gone) || gone.Dev != "eth7" {
		t.Errorf("missing device: %v", err)
	}
	l.addr(l.one, "10.9.0.50/16")
	var other *ElsewhereError
	if err := l.start(l.one, l.address(four, nil)); !errors.As(err, &other) || other.Have.String() != "10.9.0.50/16" {
		t.Errorf("another prefix length: %v", err)
	}
	l.down(l.two, "eth0")
	if err := l.start(l.two, l.address(four, nil)); !errors.Is(err, ErrDeviceDown) {
		t.Errorf("device down: %v", err)
	}
	l.in(l.two, l.address(four, func(c *Config) { c.Dev = "eth7" }).Remove)
}

func TestCanceledProbeTakesNothing(t *testing.T) {
	l := newLab(t)
	a := l.address(four, func(c *Config) { c.ProbeWait = 5 * time.Second })
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	begin := time.Now()
	l.in(l.one, func() error {
		if err := a.Start(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled start: %v", err)
		}
		return nil
	})
	if time.Since(begin) > 3*time.Second || l.has(l.one, four) {
		t.Errorf("after %s; has it: %v", time.Since(begin), l.has(l.one, four))
	}
}

func TestCheck(t *testing.T) {
	good := Config{Site: Site{Prefix: netip.MustParsePrefix(four), Dev: "eth0"}}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no prefix":       func(c *Config) { c.Prefix = netip.Prefix{} },
		"unspecified":     func(c *Config) { c.Prefix = netip.MustParsePrefix("0.0.0.0/24") },
		"multicast":       func(c *Config) { c.Prefix = netip.MustParsePrefix("ff02::5/64") },
		"loopback":        func(c *Config) { c.Prefix = netip.MustParsePrefix("127.0.0.1/8") },
		"mapped":          func(c *Config) { c.Prefix = netip.MustParsePrefix("::ffff:10.0.0.1/120") },
		"no device":       func(c *Config) { c.Dev = "" },
		"long device":     func(c *Config) { c.Dev = "a-device-name-too-long" },
		"many probes":     func(c *Config) { c.Probes = 21 },
		"long wait":       func(c *Config) { c.ProbeWait = time.Minute },
		"announce back":   func(c *Config) { c.Announce = []time.Duration{2, 1} },
		"announce before": func(c *Config) { c.Announce = []time.Duration{-1} },
		"group MAC":       func(c *Config) { c.MAC = frame.MAC{3} },
		"VRRP's MAC":      func(c *Config) { c.MAC = frame.MAC{0, 0, 0x5e, 0, 1, 51} },
		"two owners":      func(c *Config) { c.Owner = "a b" },
		"announce often":  func(c *Config) { c.Announce = make([]time.Duration, 65) },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
