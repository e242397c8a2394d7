package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hapair/failover/vip/frame"
)

// away is a lab whose client is a router to something far, of one family.
type away struct {
	*lab
	vip, far, near, all, own string // own is the address of node one
}

var aways = map[string]away{
	"IPv4": {vip: four, far: "172.16.0.1", near: "10.9.0.9", all: "0.0.0.0/0", own: "10.9.0.1"},
	"IPv6": {vip: six, far: "fd09:0:0:3::1", near: "fd09:0:0:2::9", all: "::/0", own: "fd09:0:0:2::1"}, // what the kernel would choose, by its longest match
}

func newAway(t *testing.T, x away) away {
	t.Helper()
	t.Parallel()
	x.lab = newLab(t)
	bits := netip.MustParseAddr(x.far).BitLen()
	x.addrOn(x.client, "lo", fmt.Sprintf("%s/%d", x.far, bits))
	if x.near != "10.9.0.9" { // the lab has that one
		x.addr(x.client, x.near+"/64")
	}
	x.addr(x.one, x.own+"/"+strings.Split(x.vip, "/")[1])
	x.route(x.near, (*netlink.Handle).RouteAdd)
	return x
}

// route changes the default route of node one.
func (x away) route(via string, change func(*netlink.Handle, *netlink.Route) error) {
	x.t.Helper()
	x.ip(x.one, func(h *netlink.Handle) error {
		return change(h, &netlink.Route{Dst: ipNet(netip.MustParsePrefix(x.all)), Gw: netip.MustParseAddr(via).AsSlice()})
	})
}

// main is the default route of the node's own routing table.
func (x away) main() string {
	x.t.Helper()
	var out string
	x.ip(x.one, func(h *netlink.Handle) error {
		all, err := h.RouteListFiltered(family(netip.MustParseAddr(x.own)), &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		for _, r := range all {
			if r.Dst == nil || r.Dst.String() == x.all {
				out += r.String() + "\n"
			}
		}
		return err
	})
	return out
}

// ruled counts the rules that were made here.
func (x away) ruled() (n int) {
	x.t.Helper()
	x.ip(x.one, func(h *netlink.Handle) error {
		for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
			all, err := h.RuleList(fam)
			if err != nil {
				return err
			}
			for _, r := range all {
				if r.Protocol == sourceProtocol {
					n++
				}
			}
		}
		return nil
	})
	return n
}

// from is the address that the client sees when node one connects to one of its own,
// with a source or with "".
func (x away) from(to, source string) string {
	x.t.Helper()
	var server net.Listener
	x.in(x.client, func() (err error) {
		server, err = net.Listen("tcp", net.JoinHostPort(to, "0"))
		return err
	})
	defer server.Close()
	var local string
	x.in(x.one, func() error {
		d := net.Dialer{Timeout: 20 * time.Second}
		if source != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
		}
		c, err := d.Dial("tcp", server.Addr().String())
		if err != nil {
			local = err.Error()
			return nil
		}
		defer c.Close()
		local = c.LocalAddr().(*net.TCPAddr).IP.String()
		return nil
	})
	return local
}

// asked is the routing table that says the way to what is far.
func (x away) asked(source net.IP) (table int) {
	x.t.Helper()
	x.ip(x.one, func(h *netlink.Handle) error {
		all, err := h.RouteGetWithOptions(net.ParseIP(x.far), &netlink.RouteGetOptions{SrcAddr: source})
		if err == nil {
			table = all[0].Table
		}
		return err
	})
	return table
}

func (x away) ipOf() string { return netip.MustParsePrefix(x.vip).Addr().String() }

// until waits for what changes in the background.
func (x away) until(what string, ok func() bool) {
	x.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			x.t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func eachFamily(t *testing.T, f func(*testing.T, away)) {
	for name, x := range aways {
		t.Run(name, func(t *testing.T) { f(t, newAway(t, x)) })
	}
}

func (x away) led(change func(*Config)) *Address {
	return x.address(x.vip, func(c *Config) {
		c.SourceFor = netip.MustParsePrefix(x.all)
		if change != nil {
			change(c)
		}
	})
}

// What leaves by the default route leaves with the address, while it is held: but not
// what has a source already, nor what stays near. The node's own routes are never touched.
func TestSource(t *testing.T) {
	eachFamily(t, func(t *testing.T, x away) {
		before := x.main()
		a := x.led(nil)
		if err := x.start(x.one, a); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ to, source, want string }{{x.far, "", x.ipOf()}, {x.far, x.own, x.own}, {x.near, "", x.own}} {
			if got := x.from(c.to, c.source); got != c.want {
				t.Errorf("to %s by %q from %s, want %s", c.to, c.source, got, c.want)
			}
		}
		if now := x.main(); now != before {
			t.Errorf("the node's routes were\n%sand are\n%s", before, now)
		}
		if x.all == "0.0.0.0/0" {
			if without, with := x.asked(nil), x.asked(net.ParseIP(x.own)); without != a.cfg.table() || with != unix.RT_TABLE_MAIN {
				t.Errorf("without a source table %d is asked, with one table %d", without, with)
			}
		}
		x.remove(x.one, a)
		if got := x.from(x.far, ""); got != x.own || x.ruled() != 0 || x.main() != before {
			t.Errorf("after it is removed: from %s, %d rules, routes\n%s", got, x.ruled(), x.main())
		}
	})
}

// The node does not choose the address of IPv6 for what it opens, though it is the newest:
// that would end when the address goes. It does where it has no other.
func TestServiceAddressIsNotPreferred(t *testing.T) {
	t.Parallel()
	x := away{lab: newLab(t)}
	const near, own = "fd09::9", "fd09::1/64"
	x.addr(x.one, own)
	a := x.address(six, nil)
	if err := x.start(x.one, a); err != nil {
		t.Fatal(err)
	}
	if got := x.from(near, ""); got != "fd09::1" {
		t.Errorf("from %s", got)
	}
	x.strip(x.one, six)
	if mac := x.reach(six); mac != "02:00:00:00:00:01" { // it was put back
		t.Errorf("the address is at %s", mac)
	}
	if got := x.from(near, ""); got != "fd09::1" {
		t.Errorf("from %s, after it was put back", got)
	}
	x.strip(x.one, own)
	if got := x.from(near, ""); got != "fd09::50" {
		t.Errorf("from %s, which is not there", got)
	}
}

// A network that is named, the node's own, has the address as its source too; with a
// virtual MAC as without.
func TestSourceForANetwork(t *testing.T) {
	for _, mac := range []frame.MAC{{}, testMAC} {
		t.Run(mac.String(), func(t *testing.T) {
			if !mac.IsZero() {
				virtualLab(t) // skips
			}
			eachFamily(t, func(t *testing.T, x away) {
				a := x.led(func(c *Config) {
					c.MAC, c.SourceFor = mac, netip.MustParsePrefix(x.own+"/"+strings.Split(x.vip, "/")[1]).Masked()
				})
				if err := x.start(x.one, a); err != nil {
					t.Fatal(err)
				}
				if near, far := x.from(x.near, ""), x.from(x.far, ""); near != x.ipOf() || far != x.own {
					t.Errorf("near from %s, far from %s", near, far)
				}
				x.remove(x.one, a)
				if x.ruled() != 0 {
					t.Error("rules are left")
				}
			})
		})
	}
}

// The way follows the node's default route: replaced, lost, and back. What somebody
// strips is put back.
func TestSourceFollows(t *testing.T) {
	eachFamily(t, func(t *testing.T, x away) {
		other := netip.MustParseAddr(x.near).Next().String()
		x.addr(x.client, other+"/"+strings.Split(x.vip, "/")[1])
		a := x.led(nil)
		if err := x.start(x.one, a); err != nil {
			t.Fatal(err)
		}
		gateway := func() string {
			var gw string
			x.ip(x.one, func(h *netlink.Handle) error {
				all, err := h.RouteListFiltered(family(a.ip), &netlink.Route{Table: a.cfg.table()}, netlink.RT_FILTER_TABLE)
				if len(all) == 1 && all[0].Src.String() == a.ip.String() {
					gw = all[0].Gw.String()
				}
				if errors.Is(err, unix.ENOENT) {
					return nil
				}
				return err
			})
			return gw
		}
		x.route(other, (*netlink.Handle).RouteReplace)
		x.until("the other router is taken", func() bool { return gateway() == other })
		x.route(other, (*netlink.Handle).RouteDel)
		x.until("there is no way", func() bool { return gateway() == "" })
		x.route(x.near, (*netlink.Handle).RouteAdd)
		x.until("the first router is taken again", func() bool { return gateway() == x.near })
		x.ip(x.one, func(h *netlink.Handle) error {
			return h.RouteDel(&netlink.Route{Table: a.cfg.table(), Dst: ipNet(a.cfg.SourceFor)})
		})
		x.until("the route is back", func() bool { return gateway() == x.near })
		x.strip(x.one, x.vip)
		x.until("the address is back, and the source", func() bool { return x.has(x.one, x.vip) && gateway() == x.near })
		if got := x.from(x.far, ""); got != x.ipOf() {
			t.Errorf("from %s", got)
		}
	})
}

// A rule that is stripped is back with the next refresh: of those nobody is told.
func TestSourceRuleIsPutBack(t *testing.T) {
	eachFamily(t, func(t *testing.T, x away) {
		a := x.led(func(c *Config) { c.Refresh, c.Announce = 30*time.Millisecond, []time.Duration{0} })
		if err := x.start(x.one, a); err != nil {
			t.Fatal(err)
		}
		specific, own := a.cfg.rules()
		for _, r := range []*netlink.Rule{specific, own} {
			x.ip(x.one, func(h *netlink.Handle) error { return h.RuleDel(r) })
			x.until("the rule is back", func() bool { return x.ruled() == 2 })
		}
		if got := x.from(x.far, ""); got != x.ipOf() {
			t.Errorf("from %s", got)
		}
	})
}

// An address that may not come back takes with it what made it a source: the node's
// connections would have the source of nobody, and none would come about.
func TestSourceOfAStrippedAddress(t *testing.T) {
	eachFamily(t, func(t *testing.T, x away) {
		var may atomic.Bool
		may.Store(true)
		a := x.led(func(c *Config) { c.MayHold = may.Load })
		if err := x.start(x.one, a); err != nil {
			t.Fatal(err)
		}
		may.Store(false)
		x.strip(x.one, x.vip)
		x.until("the rules are gone", func() bool { return x.ruled() == 0 })
		if got := x.from(x.far, ""); got != x.own {
			t.Errorf("from %s", got)
		}
	})
}

// What a crash left is held by the next life, or swept by it.
func TestSourceAfterACrash(t *testing.T) {
	eachFamily(t, func(t *testing.T, x away) {
		before := x.main()
		a := x.led(nil)
		if err := x.start(x.one, a); err != nil {
			t.Fatal(err)
		}
		a.Close()
		b := x.led(nil)
		if err := x.start(x.one, b); err != nil { // a next life that holds it
			t.Fatal(err)
		}
		b.Close()
		x.strip(x.one, x.vip)
		x.in(x.one, func() error {
			swept, err := Sweep("shop/")
			if len(swept) != 1 {
				t.Errorf("swept %q", swept)
			}
			return err
		})
		if got := x.from(x.far, ""); x.ruled() != 0 || x.main() != before || got != x.own {
			t.Errorf("%d rules are left; from %s by\n%s", x.ruled(), got, x.main())
		}
	})
}

func TestSourceRefusals(t *testing.T) {
	eachFamily(t, func(t *testing.T, x away) {
		a := x.led(nil)
		x.ip(x.one, func(h *netlink.Handle) error {
			return h.RouteAdd(&netlink.Route{Table: a.cfg.table(), Dst: ipNet(a.cfg.SourceFor), Gw: netip.MustParseAddr(x.near).AsSlice()})
		})
		var f *ForeignError
		if err := x.start(x.one, a); !errors.As(err, &f) || !strings.HasPrefix(f.Dev, "routing table 12") {
			t.Errorf("a table of somebody else: %v", err)
		}
		if x.has(x.one, x.vip) || x.ruled() != 0 {
			t.Error("the address is taken all the same, or rules are left")
		}
	})
}
