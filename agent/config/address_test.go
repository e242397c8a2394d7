package config

import (
	"net/netip"
	"testing"

	"hapair/failover/vip/frame"
)

// A derived MAC is shared by a resource's addresses on one device, and by nothing else;
// a rendered file says the same.
func TestVirtualMAC(t *testing.T) {
	cfg := mustParse(t, `nodes: {alpha: 10.99.0.1, beta: 10.99.0.2}
resources:
  pg:
    volumes: [{disk: /dev/vdb}]
    services:
      - address: {ip: 192.168.1.49/24, dev: eth0}
      - address: {ip: 192.168.1.50/24, dev: eth0, virtual_mac: auto}
      - address: {ip: "fd00::50/64", dev: eth0, virtual_mac: auto}
      - address: {ip: 192.168.2.50/24, dev: eth1, virtual_mac: auto}
      - address: {ip: 192.168.1.51/24, dev: eth0, virtual_mac: 02:48:41:00:00:0a}
  mail: {volumes: [{disk: /dev/vdc}], services: [address: {ip: 192.168.1.60/24, dev: eth0, virtual_mac: auto}]}
`)
	pg, mail := cfg.Resource("pg"), cfg.Resource("mail")
	mac := func(r *Resource, i int) frame.MAC { return cfg.VirtualMAC(r, r.Services[i].Address) }
	if !mac(pg, 0).IsZero() {
		t.Errorf("one that nobody asked for: %s", mac(pg, 0))
	}
	shared := mac(pg, 1)
	if shared.IsZero() || mac(pg, 2) != shared {
		t.Errorf("%s and %s", shared, mac(pg, 2))
	}
	if mac(pg, 4).String() != "02:48:41:00:00:0a" {
		t.Errorf("given, and got %s", mac(pg, 4))
	}
	seen := map[frame.MAC]bool{shared: true, mac(pg, 3): true, mac(pg, 4): true, mac(mail, 0): true}
	if len(seen) != 4 {
		t.Errorf("shared by what is not together: %v", seen)
	}
	again := mustParse(t, cfg.Render())
	if got := again.VirtualMAC(again.Resource("pg"), again.Resource("pg").Services[4].Address); got != mac(pg, 4) {
		t.Errorf("rendered, it is %s:\n%s", got, cfg.Render())
	}
}

func TestSourceFor(t *testing.T) {
	cfg := mustParse(t, `nodes: {alpha: 10.99.0.1, beta: 10.99.0.2}
resources:
  pg:
    volumes: [{disk: /dev/vdb}]
    services:
      - address: {ip: 192.168.1.50/24, dev: eth0}
      - address: {ip: 192.168.1.51/24, dev: eth0, source_for: default}
      - address: {ip: "fd00::51/64", dev: eth0, source_for: default}
      - address: {ip: 192.168.1.52/24, dev: eth0, source_for: 10.0.0.0/8}
`)
	again := mustParse(t, cfg.Render())
	for i, want := range []netip.Prefix{{}, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"), netip.MustParsePrefix("10.0.0.0/8")} {
		for _, c := range []*Config{cfg, again} {
			if got := c.Resources[0].Services[i].Spec().Address.SourceFor; got != want {
				t.Errorf("service %d: %s, want %s", i, got, want)
			}
		}
	}
}
