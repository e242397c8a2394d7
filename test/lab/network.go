package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The devices inside a node. The bridge has its own namespace: nothing of the
// lab is seen among the machine's devices.
const (
	lanDevice       = "eth0"
	crossoverDevice = "eth1"
	bridgeDevice    = "bridge"
	netnsDir        = "/run/netns"
)

func (l *Lab) nsPrefix() string           { return "halab-" + l.state.ID + "-" }
func (l *Lab) nsName(node string) string  { return l.nsPrefix() + node }
func portName(n *node) string             { return fmt.Sprintf("port%d", n.Index) }
func parkName(n *node, dev string) string { return fmt.Sprintf("park%d-%s", n.Index, dev) }

// Address is a node's address on a path.
func (l *Lab) Address(name, path string) string {
	n, err := l.node(name)
	if err != nil {
		return ""
	}
	return n.address(path)
}

func (n *node) address(path string) string {
	if path == Crossover {
		return fmt.Sprintf("10.99.0.%d", n.Index)
	}
	return fmt.Sprintf("192.168.1.%d", 10+n.Index)
}

func (n *node) devices() []string {
	if n.Kind == kindData {
		return []string{lanDevice, crossoverDevice}
	}
	return []string{lanDevice}
}

func deviceOf(path string) (string, error) {
	switch path {
	case LAN:
		return lanDevice, nil
	case Crossover:
		return crossoverDevice, nil
	}
	return "", fmt.Errorf("lab: no path %q; there are %s and %s", path, Crossover, LAN)
}

// cableEnd returns a node and the device at its end of a path's cable.
func (l *Lab) cableEnd(name, path string) (n *node, dev string, err error) {
	if n, err = l.node(name); err != nil {
		return nil, "", err
	}
	if dev, err = deviceOf(path); err != nil {
		return nil, "", err
	}
	if !slices.Contains(n.devices(), dev) {
		return nil, "", fmt.Errorf("lab: %s has no %s cable", name, path)
	}
	return n, dev, nil
}

// makeNamespace makes a named one, with its loopback up.
func makeNamespace(name string) error {
	err := onOwnThread(func() error {
		home, err := netns.Get()
		if err != nil {
			return err
		}
		defer home.Close() //nolint:errcheck // only a handle
		if err := shareNamespaces(); err != nil {
			return err
		}
		made, err := netns.NewNamed(name)
		if err != nil {
			return err
		}
		defer made.Close() //nolint:errcheck // only a handle
		// Addresses of the lab are nobody else's: no waiting for an answer.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return netns.Set(home)
	})
	if err != nil {
		return fmt.Errorf("make the network namespace %s: %w", name, err)
	}
	return inside(name, func(h *netlink.Handle) error { return setUp(h, "lo") })
}

// onOwnThread runs f on a thread that is thrown away, whatever f did to it.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go lockedTo(f, done)
	return <-done
}

func lockedTo(f func() error, done chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if unix.Gettid() != unix.Getpid() {
		done <- f()
		return
	}
	// The first thread of a process cannot end: it would stay, and with it the
	// process, in the namespaces of a node. It is held while f runs on another.
	other := make(chan error, 1)
	go lockedTo(f, other)
	err := <-other
	runtime.UnlockOSThread()
	done <- err
}

// inside runs f with a netlink handle of a namespace.
func inside(name string, f func(*netlink.Handle) error) error {
	ns, err := netns.GetFromName(name)
	if err != nil {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	defer ns.Close() //nolint:errcheck // only a handle
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	defer h.Close()
	if err := f(h); err != nil {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	return nil
}

func setUp(h *netlink.Handle, dev string) error   { return withLink(h, dev, h.LinkSetUp) }
func setDown(h *netlink.Handle, dev string) error { return withLink(h, dev, h.LinkSetDown) }

func withLink(h *netlink.Handle, dev string, f func(netlink.Link) error) error {
	link, err := h.LinkByName(dev)
	if err == nil {
		err = f(link)
	}
	if err != nil {
		return fmt.Errorf("device %s: %w", dev, err)
	}
	return nil
}

// makeLAN makes the bridge and every cable; the nodes' ends wait in its
// namespace until the nodes boot.
func (l *Lab) makeLAN() error {
	lan := l.nsName(LAN)
	if err := makeNamespace(lan); err != nil {
		return err
	}
	return inside(lan, func(h *netlink.Handle) error {
		if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs(bridgeDevice)}); err != nil {
			return fmt.Errorf("device %s: %w", bridgeDevice, err)
		}
		if err := setUp(h, bridgeDevice); err != nil {
			return err
		}
		var data []*node
		for i := range l.state.Nodes {
			n := &l.state.Nodes[i]
			if n.Kind == kindData {
				data = append(data, n)
			}
			if err := plug(h, n); err != nil {
				return err
			}
		}
		return cable(h, parkName(data[0], crossoverDevice), parkName(data[1], crossoverDevice))
	})
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

func cable(h *netlink.Handle, one, other string) error {
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs(one), PeerName: other}); err != nil {
		return fmt.Errorf("cable %s to %s: %w", one, other, err)
	}
	return nil
}

func plug(h *netlink.Handle, n *node) error {
	if err := cable(h, portName(n), parkName(n, lanDevice)); err != nil {
		return err
	}
	bridge, err := h.LinkByName(bridgeDevice)
	if err != nil {
		return err
	}
	if err := withLink(h, portName(n), func(p netlink.Link) error { return h.LinkSetMaster(p, bridge) }); err != nil {
		return err
	}
	return setUp(h, portName(n))
}

// plugIn makes a node's namespace and moves its cables' ends there.
func (l *Lab) plugIn(n *node) error {
	name := l.nsName(n.Name)
	if err := makeNamespace(name); err != nil {
		return err
	}
	ns, err := netns.GetFromName(name)
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // only a handle
	for _, dev := range n.devices() {
		parked := parkName(n, dev)
		err := inside(l.nsName(LAN), func(h *netlink.Handle) error {
			return withLink(h, parked, func(x netlink.Link) error { return h.LinkSetNsFd(x, int(ns)) })
		})
		if err != nil {
			return err
		}
		err = inside(name, func(h *netlink.Handle) error { return n.configure(h, parked, dev) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (n *node) configure(h *netlink.Handle, parked, dev string) error {
	path := LAN
	if dev == crossoverDevice {
		path = Crossover
	}
	addr, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", n.address(path), prefixBits))
	if err != nil {
		return err
	}
	return withLink(h, parked, func(x netlink.Link) error {
		if err := h.LinkSetName(x, dev); err != nil {
			return err
		}
		if err := h.AddrAdd(x, addr); err != nil {
			return err
		}
		if path == Crossover && n.Cut[path] {
			return nil
		}
		return h.LinkSetUp(x)
	})
}

// unplug moves the cables' ends away, which takes them down, and drops the
// namespace. Nothing of a dead node's sockets ever speaks again.
func (l *Lab) unplug(n *node) error {
	lan, err := netns.GetFromName(l.nsName(LAN))
	if errors.Is(err, fs.ErrNotExist) {
		return dropNamespace(l.nsName(n.Name))
	}
	if err != nil {
		return err
	}
	defer lan.Close() //nolint:errcheck // only a handle
	name := l.nsName(n.Name)
	if _, err := os.Stat(filepath.Join(netnsDir, name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err = inside(name, func(h *netlink.Handle) error {
		if err := dropStacked(h); err != nil {
			return err
		}
		for _, dev := range n.devices() {
			if err := park(h, dev, parkName(n, dev), lan); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, dropNamespace(name))
}

// dropStacked deletes the devices that a node's programs made on its cables' ends: a
// namespace lives as long as its last socket, one that tells its end to a dark cable for
// minutes, and such a device would speak by a cable that is plugged in again.
func dropStacked(h *netlink.Handle) error {
	all, err := h.LinkList()
	if err != nil {
		return err
	}
	for _, x := range all {
		if _, macvlan := x.(*netlink.Macvlan); !macvlan {
			continue
		}
		if err := h.LinkDel(x); err != nil && !errors.Is(err, unix.ENODEV) { // it went meanwhile
			return fmt.Errorf("device %s: %w", x.Attrs().Name, err)
		}
	}
	return nil
}

func park(h *netlink.Handle, dev, as string, lan netns.NsHandle) error {
	link, err := h.LinkByName(dev)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := h.LinkSetDown(link); err != nil {
		return err
	}
	if err := h.LinkSetName(link, as); err != nil {
		return err
	}
	return h.LinkSetNsFd(link, int(lan))
}

// darken takes a node's links down, in one go, while its processes still live.
func (l *Lab) darken(n *node) error {
	if _, err := os.Stat(filepath.Join(netnsDir, l.nsName(n.Name))); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return inside(l.nsName(n.Name), func(h *netlink.Handle) error {
		var errs []error
		for _, dev := range n.devices() {
			if _, err := h.LinkByName(dev); err == nil {
				errs = append(errs, setDown(h, dev))
			}
		}
		return errors.Join(errs...)
	})
}

func dropNamespace(name string) error {
	err := netns.DeleteNamed(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) { // gone, or a file that is not mounted
		err = os.Remove(filepath.Join(netnsDir, name))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// dropNamespaces removes every namespace of this lab.
func (l *Lab) dropNamespaces() error {
	if l.state.ID == "" {
		return nil
	}
	entries, err := os.ReadDir(netnsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), l.nsPrefix()) {
			errs = append(errs, dropNamespace(e.Name()))
		}
	}
	return errors.Join(errs...)
}

// Cut pulls a cable: both ends lose their carrier. The LAN cable is the one
// between the node and the bridge.
func (l *Lab) Cut(name, path string) error { return l.setCable(name, path, true) }

// Heal plugs the cable in again, and takes its ills away.
func (l *Lab) Heal(name, path string) error {
	return errors.Join(l.setCable(name, path, false), l.setIll(name, path, ""))
}

func (l *Lab) setCable(name, path string, cut bool) error {
	n, dev, err := l.cableEnd(name, path)
	if err != nil {
		return err
	}
	set := setUp
	if cut {
		set = setDown
	}
	ns := l.nsName(LAN)
	if path == LAN {
		dev = portName(n) // the far end: the node sees no carrier
	} else if n.Init.PID == 0 {
		ns = "" // no end to touch: remembered for the next boot
	} else {
		ns = l.nsName(name)
	}
	if ns != "" {
		if err := inside(ns, func(h *netlink.Handle) error { return set(h, dev) }); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	n.Cut[path] = cut
	l.log("link %s of %s: cut=%t", path, name, cut)
	return l.save()
}
