package vip

import (
	"net/netip"
	"testing"

	"hapair/failover/vip/frame"
)

func TestVirtualMACIsDerived(t *testing.T) {
	ip := netip.MustParseAddr("10.9.0.50")
	m := VirtualMAC("hapair", "data", "eth0", ip)
	if m.String() != "aa:0c:8f:2e:65:7b" { // a release that derives another changes every user's
		t.Errorf("derived %s", m)
	}
	if err := m.Stations(); err != nil || m[0]&2 == 0 {
		t.Errorf("%s is not locally administered: %v", m, err)
	}
	seen := map[frame.MAC]bool{m: true}
	for _, x := range []frame.MAC{VirtualMAC("shop", "data", "eth0", ip), VirtualMAC("hapair", "pg", "eth0", ip), VirtualMAC("hapair", "data", "eth1", ip), VirtualMAC("hapair", "data", "eth0", ip.Next())} {
		if seen[x] {
			t.Errorf("%s twice", x)
		}
		seen[x] = true
	}
	s := Site{Dev: "enp0s31f6.4000", MAC: m}
	if name := s.Device(); len(name) != 15 || name == (Site{Dev: "eth0", MAC: m}).Device() {
		t.Errorf("device %q", name)
	}
}

func TestNote(t *testing.T) {
	for _, n := range []note{{"shop/pg", level{0, 0}}, {"", level{-1, 1}}, {"a", level{-1, -1}}} {
		if got, ours := parseNote(n.String()); !ours || got != n {
			t.Errorf("%q is read as %+v, %v", n, got, ours)
		}
	}
	for _, text := range []string{"", "uplink", "hapair", "hapair ", "hapairs x"} {
		if n, ours := parseNote(text); ours {
			t.Errorf("%q is read as %+v", text, n)
		}
	}
}

func FuzzNote(f *testing.F) {
	f.Add("hapair shop/pg arp_ignore=0 arp_announce=1")
	f.Fuzz(func(t *testing.T, text string) {
		n, ours := parseNote(text)
		if n.was.ignore < -1 || n.was.ignore >= ignoreForeign || n.was.announce < -1 || n.was.announce >= announceForeign {
			t.Errorf("%+v", n)
		}
		if again, _ := parseNote(n.String()); ours && again != n {
			t.Errorf("%+v is read as %+v", n, again)
		}
	})
}
