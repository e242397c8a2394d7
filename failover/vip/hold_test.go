package vip

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hapair/failover/vip/frame"
)

// permit is what a lease says to an address.
type permit struct{ atomic.Bool }

func (p *permit) config(events chan Event) func(*Config) {
	return func(c *Config) {
		c.MayHold = p.Load
		c.Event = func(e Event) { events <- e }
	}
}

// held starts an address of node one that a permit allows.
func (l *lab) held(prefix string, may *permit, change func(*Config)) (*Address, chan Event) {
	l.t.Helper()
	events := make(chan Event, 64)
	a := l.address(prefix, func(c *Config) {
		may.config(events)(c)
		if change != nil {
			change(c)
		}
	})
	may.Store(true)
	if err := l.start(l.one, a); err != nil {
		l.t.Fatal(err)
	}
	return a, events
}

// happens waits for an event, and fails at one that must not come.
func happens(t *testing.T, events chan Event, want, never Happening) Event {
	t.Helper()
	for {
		select {
		case e := <-events:
			if e.What == never {
				t.Fatalf("%+v", e)
			}
			if e.What == want {
				return e
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("not %s", want)
		}
	}
}

// onProbe calls f as soon as node one asks for the address.
func (l *lab) onProbe(prefix string, f func()) {
	l.t.Helper()
	c, ip := l.sniff(), netip.MustParsePrefix(prefix).Addr()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 2048)
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if claim, ok := claimOf(buf[:n], ip); ok && claim.Probe && claim.Addr == ip && claim.MAC == (frame.MAC{2, 0, 0, 0, 0, 1}) {
				f()
				return
			}
		}
	}()
	l.t.Cleanup(func() {
		_ = c.Close() // nothing is written to it
		<-ended
	})
}

// A lease that ends while it is asked whether another has the address: whoever takes
// addresses away then has done so, and nobody would a second time.
func TestNotTakenWhenTheLeaseEndsDuringTheProbe(t *testing.T) {
	for name, prefix := range families {
		t.Run(name+" start", func(t *testing.T) {
			l, may := newLab(t), &permit{}
			may.Store(true)
			l.onProbe(prefix, func() { may.Store(false) })
			err := l.start(l.one, l.address(prefix, func(c *Config) { c.MayHold, c.ProbeWait = may.Load, 300*time.Millisecond }))
			if !errors.Is(err, ErrMayNotHold) || l.has(l.one, prefix) {
				t.Errorf("%v; has it: %v", err, l.has(l.one, prefix))
			}
		})
		t.Run(name+" restore", func(t *testing.T) {
			l, may := newLab(t), &permit{}
			_, events := l.held(prefix, may, func(c *Config) { c.ProbeWait = 300 * time.Millisecond })
			l.onProbe(prefix, func() { may.Store(false) })
			l.strip(l.one, prefix)
			happens(t, events, Stripped, Restored)
			if e := happens(t, events, NotBack, Restored); !errors.Is(e.Err, ErrMayNotHold) || l.has(l.one, prefix) {
				t.Errorf("%+v; has it: %v", e, l.has(l.one, prefix))
			}
		})
	}
}

// present looks without the calling thread's namespace.
func present(t *testing.T, ns netns.NsHandle, prefix string) func() bool {
	t.Helper()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return func() bool {
		all, err := h.AddrList(nil, unix.AF_UNSPEC)
		if err != nil {
			t.Error(err)
		}
		for _, x := range all {
			if have, _ := prefixOf(x); have.String() == prefix {
				return true
			}
		}
		return false
	}
}

// A lease that ends between the last question and the address: it is taken off again.
func TestTakenBackWhenTheLeaseEndsMeanwhile(t *testing.T) {
	for name, site := range map[string]Site{
		"IPv4":        {Prefix: netip.MustParsePrefix(four), Dev: "eth0"},
		"IPv6":        {Prefix: netip.MustParsePrefix(six), Dev: "eth0"},
		"virtual MAC": {Prefix: netip.MustParsePrefix(four), Dev: "eth0", MAC: testMAC},
	} {
		t.Run(name, func(t *testing.T) {
			lab := newLab
			if site.Virtual() {
				lab = virtualLab
			}
			l := lab(t)
			there := present(t, l.one, site.Prefix.String())
			err := l.start(l.one, l.address(site.Prefix.String(), func(c *Config) { c.Site, c.MayHold = site, func() bool { return !there() } }))
			if !errors.Is(err, ErrMayNotHold) || there() {
				t.Errorf("%v; has it: %v", err, there())
			}
		})
	}
}

// An address that may be held again is back at once: a monitor that looks meanwhile
// would find it missing.
func TestBackAsSoonAsItMayBe(t *testing.T) {
	l, may := newLab(t), &permit{}
	_, events := l.held(four, may, func(c *Config) { c.Probes = -1 })
	for range 2 { // the second soon after the first: nobody is fought
		may.Store(false)
		l.strip(l.one, four)
		happens(t, events, Stripped, Restored)
		begin := time.Now()
		may.Store(true)
		happens(t, events, Restored, NotBack)
		if took := time.Since(begin); took > restoreEvery/2 {
			t.Errorf("back %s after it may be", took)
		}
	}
}

// The cable of a node that lost the address comes back: it claims nothing.
func TestCableBackWithoutTheAddress(t *testing.T) {
	for name, strip := range map[string]bool{"taken away": true, "still there": false} {
		t.Run(name, func(t *testing.T) {
			l, may := newLab(t), &permit{}
			_, events := l.held(four, may, func(c *Config) { c.Announce = []time.Duration{0} })
			may.Store(false)
			l.down(l.client, "one")
			happens(t, events, CarrierOff, Restored)
			if strip {
				l.strip(l.one, four)
				happens(t, events, Stripped, Restored)
			}
			c := l.sniff()
			l.up(l.client, "one")
			happens(t, events, CarrierUp, Restored)
			ip := netip.MustParsePrefix(four).Addr()
			if announced(t, c, ip, 300*time.Millisecond) {
				t.Error("announced by a node that may not have it")
			}
			if strip {
				may.Store(true) // and the client hears this node
				if !announced(t, c, ip, 5*time.Second) {
					t.Error("not announced when it is back")
				}
			}
		})
	}
}

// While the address is missing, an announcement that is due does not keep the goroutine
// turning.
func TestMissingWaits(t *testing.T) {
	a, err := New(Config{Site: Site{Prefix: netip.MustParsePrefix(four), Dev: "eth0"}})
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{a: a, since: time.Now().Add(-time.Hour), missing: true, denied: true, tried: time.Now().Add(time.Minute)}
	if got := w.wait(); got < time.Minute {
		t.Errorf("%s", got)
	}
}
