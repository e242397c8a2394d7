package service

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/zap"

	"hapair/failover/vip"
)

// ownNetwork gives the test's thread a network of its own with a device, until the test
// ends.
func ownNetwork(t *testing.T, dev string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	own, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(own.Close(), netns.Set(home), home.Close()); err != nil {
			panic(err) // this thread is lost
		}
		runtime.UnlockOSThread()
	})
	for _, name := range []string{"lo", dev, dev + "x"} {
		if name == dev {
			err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: dev}, PeerName: dev + "x"})
		}
		l, lookErr := netlink.LinkByName(name)
		if err = errors.Join(err, lookErr); err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A lease that lapses while the services start is waited for by the address, too: nothing
// is taken down again, and nothing has failed. Who stops it meanwhile is not held up.
func TestAddressWaitsForTheLease(t *testing.T) {
	ownNetwork(t, "eth0")
	var asked atomic.Int32
	leased := int32(5)
	a, err := newAddress(vip.Config{Site: vip.Site{Dev: "eth0", Prefix: netip.MustParsePrefix("10.9.0.50/24")},
		MayHold: func() bool { return asked.Add(1) > leased }}, Deps{Resource: "pg", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if running, err := a.Monitor(t.Context()); !running || err != nil {
		t.Fatal(running, err)
	}
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	leased = 1 << 30
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := a.Start(ctx); err == nil {
		t.Fatal("taken without the lease")
	}
	if running, _ := a.Monitor(t.Context()); running {
		t.Fatal("it is there without the lease")
	}
}
