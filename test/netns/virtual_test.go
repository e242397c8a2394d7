package netns

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"hapair/test/lab"
)

// newVirtualPair has the service address, with more words about it.
func newVirtualPair(t *testing.T, words string) *pair {
	t.Helper()
	return newPair(t, true, func(o *lab.Options) {
		last := len(o.Services) - 1
		o.Services[last] = "address: {ip: " + lab.ServiceAddress + "/24, dev: eth0" + words + "}"
	})
}

// serviceMAC is where the client believes the service address to be.
func (p *pair) serviceMAC() string {
	p.t.Helper()
	out, err := p.Run(p.ctx, lab.Client, "ip", "neigh", "show", lab.ServiceAddress, "dev", "eth0")
	p.must(err)
	_, rest, found := strings.Cut(out, "lladdr ")
	if !found {
		p.t.Fatalf("the client knows no MAC of the service address: %q", out)
	}
	return strings.Fields(rest)[0]
}

// pin has the client heed no announcement any more.
func (p *pair) pin(mac string) {
	p.t.Helper()
	_, err := p.Run(p.ctx, lab.Client, "ip", "neigh", "replace", lab.ServiceAddress, "lladdr", mac, "dev", "eth0", "nud", "permanent")
	p.must(err)
}

// noVirtualMAC waits until a node has no device of a virtual MAC.
func (p *pair) noVirtualMAC(node string) {
	p.t.Helper()
	p.eventually(node+" has no virtual MAC", func() error {
		out, err := p.Run(p.ctx, node, "ip", "-o", "link", "show")
		if err == nil && strings.Contains(out, "hapair-") {
			err = errors.New(out)
		}
		return err
	})
}

// sourceIs waits until what a node opens towards the client has a source.
func (p *pair) sourceIs(node, want string) {
	p.t.Helper()
	p.eventually(node+" sends from "+want, func() error {
		out, err := p.Run(p.ctx, node, "ip", "route", "get", p.Address(lab.Client, lab.LAN))
		if err == nil && !strings.Contains(out, " src "+want+" ") {
			err = errors.New(out)
		}
		return err
	})
}

// The agent of the Primary hangs. The virtual MAC leaves that node without it, and is
// at the other one: a client that heeds no announcement goes on, and knows the same
// MAC as before. So with what the nodes open without a source: it comes from the service
// address where that is.
func TestVirtualMAC(t *testing.T) {
	p := newVirtualPair(t, ", virtual_mac: auto, source_for: 192.168.1.0/24")
	primary, survivor := p.settle()
	p.noVirtualMAC(survivor)
	p.sourceIs(primary, lab.ServiceAddress)
	w := p.write()
	w.progress(steady)
	mac := p.serviceMAC()
	out, err := p.Run(p.ctx, primary, "ip", "-o", "link", "show")
	p.must(err)
	for _, l := range strings.Split(out, "\n") {
		if strings.Contains(l, mac) != strings.Contains(l, "hapair-") {
			t.Errorf("the client has %s, and the Primary %s", mac, l)
		}
	}
	p.pin(mac)
	p.must(p.Pause(primary))
	p.takeover(survivor)
	p.noVirtualMAC(primary) // while its agent hangs
	p.sourceIs(primary, p.Address(primary, lab.LAN))
	p.sourceIs(survivor, lab.ServiceAddress)
	w.progress(steady)
	p.must(p.Resume(primary))
	p.rejoined(primary)
	p.say("with a virtual MAC: %s without an answer", w.stop().Round(time.Millisecond))
}

// How long a client is without answers when the power of the Primary is cut, in the
// ways in which it may learn where the address is.
func TestVirtualMACOutage(t *testing.T) {
	if os.Getenv("HAPAIR_LONG") == "" {
		t.Skip("takes long: HAPAIR_LONG=1")
	}
	for _, way := range []struct {
		name, words string
		pin         bool
	}{{"announced", "", false}, {"virtual MAC, announced", ", virtual_mac: auto", false}, {"virtual MAC, heeding nothing", ", virtual_mac: auto", true}} {
		t.Run(way.name, func(t *testing.T) {
			p := newVirtualPair(t, way.words)
			victim, _ := p.settle()
			var gaps []string
			for i := range 4 {
				w := p.write()
				w.progress(steady)
				if way.pin && i == 0 {
					p.pin(p.serviceMAC())
				}
				p.must(p.PowerOff(victim))
				survivor := p.other(victim)
				p.takeover(survivor)
				w.progress(steady)
				gap := w.stop()
				if gap > 10*time.Second {
					t.Errorf("%s without an answer", gap)
				}
				gaps = append(gaps, fmt.Sprint(gap.Round(time.Millisecond)))
				p.must(p.PowerOn(victim))
				p.rejoined(victim)
				p.noVirtualMAC(victim)
				victim = survivor
			}
			p.say("%s: %s", way.name, strings.Join(gaps, ", "))
			p.finish()
		})
	}
}
