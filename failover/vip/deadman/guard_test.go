package deadman

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"hapair/failover/lease"
	"hapair/failover/vip"
)

const (
	testPrefix = "10.9.0.50/24"
	testLease  = 2 * time.Second // long: this machine may be busy
)

// The test's program is the helper as well, and the agent that holds an address.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == Command {
		if err := Serve(os.Args[2]); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	if len(os.Args) == 4 && os.Args[1] == "holder" {
		if err := hold(os.Args[2], os.Args[3]); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// hold is an agent: it has an address, with a virtual MAC or with "", renews its lease
// until it gets SIGUSR1, and says so. With a line on its standard input it ends in order.
func hold(lock, mac string) error {
	ctx, cut := signal.NotifyContext(context.Background(), unix.SIGUSR1)
	defer cut()
	g, err := Start(Config{Program: "/proc/self/exe", Lock: lock, Resources: []string{"other", "pg"}, Log: zap.NewExample()})
	if err != nil {
		return err
	}
	mayHold, ended := renewals(ctx, g)
	h := Held{Resource: "pg", Site: vip.Site{Prefix: netip.MustParsePrefix(testPrefix), Dev: "eth0"}}
	if err := h.MAC.UnmarshalText([]byte(mac)); err != nil {
		return err
	}
	if err := g.Hold(h); err != nil {
		return err
	}
	address, err := vip.New(vip.Config{Site: h.Site, Probes: -1, Announce: []time.Duration{}, MayHold: mayHold})
	if err != nil {
		return err
	}
	if err := address.Start(context.Background()); err != nil {
		return err
	}
	g.mu.Lock()
	helper := g.helper.cmd.Process.Pid
	g.mu.Unlock()
	fmt.Println("holds", helper)
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // its end says as much
	if err := address.Remove(); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // a helper that was killed is replaced
		if err := g.Release(h); err == nil {
			break
		} else if time.Now().After(end) {
			return err
		}
	}
	cut()
	<-ended
	return g.Close(context.Background())
}

// renewals has a lease until ctx ends, and then until it runs out.
func renewals(ctx context.Context, g *Guard) (mayHold func() bool, ended chan struct{}) {
	clock, held := lease.Boottime(), &atomic.Pointer[lease.Lease]{}
	renew := func() {
		l := lease.Lease{Tenure: 1, Until: clock() + testLease}
		held.Store(&l)
		g.Renew("pg", l.Until)
	}
	renew()
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(testLease / 8)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				renew()
			}
		}
	}()
	return func() bool { return MayHold(*held.Load(), clock()) }, ended
}

// station is a network namespace with a device.
type station struct {
	t  *testing.T
	ns netns.NsHandle
	h  *netlink.Handle
}

func newStation(t *testing.T) *station {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	s := &station{t: t}
	s.apart(func() (err error) {
		s.ns, err = netns.New()
		return err
	})
	h, err := netlink.NewHandleAt(s.ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	s.h = h
	t.Cleanup(func() {
		h.Close()
		if err := s.ns.Close(); err != nil {
			t.Error(err)
		}
	})
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}
	if err := h.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	return s
}

// apart runs f on a thread that may change its namespace.
func (s *station) apart(f func() error) {
	s.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		s.t.Fatal(err)
	}
	defer home.Close() //nolint:errcheck // a copy
	ferr := f()
	if err := netns.Set(home); err != nil {
		panic(err) // this thread is lost
	}
	if ferr != nil {
		s.t.Fatal(ferr)
	}
}

// has reports whether a device carries the address.
func (s *station) has() bool {
	s.t.Helper()
	addrs, err := s.h.AddrList(nil, unix.AF_INET)
	if err != nil {
		s.t.Fatal(err)
	}
	return len(addrs) > 0
}

func (s *station) await(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// holder starts an agent that has the address, with a virtual MAC or with "".
func (s *station) holder(lock, mac string) (cmd *exec.Cmd, helper int, end func()) {
	s.t.Helper()
	cmd = exec.Command("/proc/self/exe", "holder", lock, mac)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.apart(func() error {
		if err := netns.Set(s.ns); err != nil {
			return err
		}
		return cmd.Start()
	})
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill() // mostly it has ended
		_ = cmd.Wait()
	})
	if _, err := fmt.Fscanf(out, "holds %d\n", &helper); err != nil {
		s.t.Fatalf("the holder does not say that it holds: %v", err)
	}
	return cmd, helper, func() { _ = in.Close() }
}

// gone reports whether a process has ended, reaped or not.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(b, []byte(") Z "))
}

func TestAddressOfAnAgentThatIsGone(t *testing.T) {
	for name, signal := range map[string]unix.Signal{"killed": unix.SIGKILL, "stopped": unix.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			s, lock := newStation(t), filepath.Join(t.TempDir(), "lock")
			cmd, helper, _ := s.holder(lock, "")
			for end := time.Now().Add(3 * testLease / 2); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if !s.has() {
					t.Fatal("the address is gone while its lease is renewed")
				}
			}
			if err := unix.Kill(helper, unix.SIGTERM); err != nil { // as systemd does to all of a unit
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			s.await("the address is gone", func() bool { return !s.has() })
			if signal == unix.SIGSTOP {
				if err := cmd.Process.Signal(unix.SIGCONT); err != nil { // a new lease arms it again
					t.Fatal(err)
				}
				s.await("the address is back", s.has)
				time.Sleep(2 * again) // a lease is renewed meanwhile
				if !s.has() {
					t.Error("an address is taken away under a new lease")
				}
				if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				s.await("the address is gone again", func() bool { return !s.has() })
				return
			}
			s.await("the helper has ended", func() bool { return gone(helper) })
		})
	}
}

// A virtual MAC must not be left behind either: with it on two nodes a switch sends now
// to the one, now to the other.
func TestVirtualMACOfAnAgentThatIsGone(t *testing.T) {
	s, lock := newStation(t), filepath.Join(t.TempDir(), "lock")
	err := s.h.LinkAdd(&netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "asked", ParentIndex: s.link().Attrs().Index}})
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this kernel has no macvlan devices (CONFIG_MACVLAN)")
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd, helper, _ := s.holder(lock, "02:48:41:00:00:01")
	made := vip.Site{Dev: "eth0", MAC: [6]byte{2, 0x48, 0x41, 0, 0, 1}}.Device()
	if _, err := s.h.LinkByName(made); err != nil || !s.has() {
		t.Fatalf("the address is not on %s: %v", made, err)
	}
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.await("the device is gone", func() bool {
		_, err := s.h.LinkByName(made)
		return errors.As(err, &netlink.LinkNotFoundError{})
	})
	if s.has() {
		t.Error("the address is left")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.await("the helper has ended", func() bool { return gone(helper) })
}

func (s *station) link() netlink.Link {
	link, err := s.h.LinkByName("eth0")
	if err != nil {
		s.t.Fatal(err)
	}
	return link
}

func (s *station) addr() *netlink.Addr {
	addr, err := netlink.ParseAddr(testPrefix)
	if err != nil {
		s.t.Fatal(err)
	}
	return addr
}

// An agent that comes back at once has its address guarded after the helper of
// its earlier life has ended, not taken away by it.
func TestAgentThatComesBack(t *testing.T) {
	s, lock := newStation(t), filepath.Join(t.TempDir(), "lock")
	first, old, _ := s.holder(lock, "")
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	second, helper, end := s.holder(lock, "") // waits for the old one
	s.await("the helper of the first life has ended", func() bool { return gone(old) })
	if !s.has() {
		t.Error("the address is gone under a new lease")
	}
	if err := unix.Kill(helper, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.await("a killed helper is reaped", func() bool { return gone(helper) })
	end()
	if err := second.Wait(); err != nil {
		t.Errorf("an orderly end: %v", err)
	}
	if s.has() {
		t.Error("the address is left after an orderly end")
	}
}
