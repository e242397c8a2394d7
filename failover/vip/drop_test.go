package vip

import (
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
