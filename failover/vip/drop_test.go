package vip

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestDependents(t *testing.T) {
	list := func(all ...string) (out []netlink.Addr) { // one that ends in + is secondary
		for _, text := range all {
			flags := 0
			if text[len(text)-1] == '+' {
				text, flags = text[:len(text)-1], unix.IFA_F_SECONDARY
			}
			x := netlinkAddr(netip.MustParsePrefix(text))
			x.Flags |= flags
			out = append(out, *x)
		}
		return out
	}
	for _, c := range []struct {
		name, of string
		all      []netlink.Addr
		want     []string
	}{
		{"secondaries of the first", "10.0.0.1/24", list("10.0.0.1/24", "10.0.0.2/24+", "10.0.0.3/24+"), []string{"10.0.0.2/24", "10.0.0.3/24"}},
		{"a secondary has none", "10.0.0.2/24", list("10.0.0.1/24", "10.0.0.2/24+", "10.0.0.3/24+"), nil},
		{"other networks", "10.0.0.1/24", list("10.0.0.1/24", "10.0.1.1/24", "10.0.1.2/24+", "10.0.0.9/16", "10.0.0.8/16+"), nil},
		{"one that is not there", "10.0.0.7/24", list("10.0.0.1/24", "10.0.0.2/24+"), nil},
	} {
		var got []string
		for _, x := range dependents(netip.MustParsePrefix(c.of), c.all) {
			have, _ := prefixOf(x)
			got = append(got, have.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// Addresses of one device that are given up at the same time are all gone, and what is
// not given up stays, whichever of them is the first of the network.
func TestRemovedTogether(t *testing.T) {
	for name, own := range map[string]bool{"behind the node's own": true, "before all others": false} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			if own {
				l.addr(l.one, "10.9.0.1/24")
			}
			prefixes := []string{"10.9.0.50/24", "10.9.0.51/24", "10.9.0.52/24", "10.9.0.53/24"}
			for round := range 40 {
				for _, prefix := range prefixes {
					l.addr(l.one, prefix)
				}
				l.addr(l.one, "10.9.0.99/24")
				l.removeTogether(prefixes)
				for _, prefix := range prefixes {
					if l.has(l.one, prefix) {
						t.Fatalf("%s is left in round %d", prefix, round)
					}
				}
				if !l.has(l.one, "10.9.0.99/24") || own && !l.has(l.one, "10.9.0.1/24") {
					t.Fatalf("an address that was not given up is gone in round %d", round)
				}
				l.strip(l.one, "10.9.0.99/24")
			}
		})
	}
}

// A service address that is the first of its network goes alone: the node's own, which is secondary
// to it, stays, and so do the routes of the device. Whoever takes it off: the agent, or the deadman, which does it in two ways.
func TestRoutesOutliveTheFirstAddress(t *testing.T) {
	site := Site{Prefix: netip.MustParsePrefix("10.9.0.50/24"), Dev: "eth0"}
	for name, remove := range map[string]func(*lab) error{
		"by the agent":               func(l *lab) error { return l.address(site.Prefix.String(), nil).Remove() },
		"by the deadman":             func(*lab) error { return site.Clear() },
		"by the deadman, in a hurry": func(*lab) error { site.Silence(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.serviceFirst()
			l.in(l.one, func() error { return remove(l) })
			if l.has(l.one, "10.9.0.50/24") || !l.has(l.one, "10.9.0.1/24") {
				t.Error("not the service address alone is gone")
			}
			if got := l.gateways(); !slices.Equal(got, []string{"10.9.0.9"}) {
				t.Errorf("default routes by %q", got)
			}
		})
	}
}

// Where no address can be promoted, what went with the first one is put back.
func TestOthersArePutBack(t *testing.T) {
	l := newLab(t)
	l.serviceFirst()
	l.in(l.one, func() error {
		p, err := openPort(Site{Prefix: netip.MustParsePrefix("10.9.0.50/24"), Dev: "eth0"}, "")
		if err != nil {
			return err
		}
		defer p.close()
		dev, err := p.link()
		if err != nil {
			return err
		}
		others, err := p.below(dev, p.site.Prefix)
		if err != nil {
			return err
		}
		if err := p.nl.AddrDel(dev, netlinkAddr(p.site.Prefix)); err != nil {
			return err
		}
		return p.restoreOthers(dev, p.site.Prefix, others)
	})
	if l.has(l.one, "10.9.0.50/24") || !l.has(l.one, "10.9.0.1/24") {
		t.Error("not the service address alone is gone")
	}
}

// serviceFirst gives node one a service address and, secondary to it, one of its own, with
// a default route, on a kernel that promotes no address.
func (l *lab) serviceFirst() {
	l.t.Helper()
	l.set(l.one, "all", "promote_secondaries", 0)
	l.set(l.one, "eth0", "promote_secondaries", 0)
	l.addr(l.one, "10.9.0.50/24")
	l.addr(l.one, "10.9.0.1/24")
	l.ip(l.one, func(h *netlink.Handle) error { return h.RouteAdd(&netlink.Route{Gw: net.IPv4(10, 9, 0, 9)}) })
}

// gateways are those of the default routes of node one.
func (l *lab) gateways() (all []string) {
	l.t.Helper()
	l.ip(l.one, func(h *netlink.Handle) error {
		routes, err := h.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		for _, r := range routes {
			if r.Gw != nil {
				all = append(all, r.Gw.String())
			}
		}
		return err
	})
	return all
}

func (l *lab) removeTogether(prefixes []string) {
	l.t.Helper()
	var all sync.WaitGroup
	begin, errs := make(chan struct{}), make([]error, len(prefixes))
	for i, prefix := range prefixes {
		a := l.address(prefix, nil)
		all.Go(func() {
			<-begin
			l.in(l.one, func() error {
				errs[i] = a.Remove()
				return nil
			})
		})
	}
	close(begin)
	all.Wait()
	for i, err := range errs {
		if err != nil {
			l.t.Fatalf("remove %s: %v", prefixes[i], err)
		}
	}
}
