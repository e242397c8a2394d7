package heartbeat

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"hapair/heartbeat/detect"
)

const carrierRetry = time.Second // after netlink failed; also how often the state is read in any case, times ten

// carrier watches this node's end of each path: the device that has the path's
// address, its switch, its cable. It only reports.
type carrier struct {
	h    *Heartbeat
	log  *zap.Logger
	addr map[string]netip.Addr // by path

	// owned by run after open
	nl    *netlink.Handle // nil while netlink fails
	links chan netlink.LinkUpdate
	addrs chan netlink.AddrUpdate
	done  chan struct{}
	index map[string]int // device that last had the path's address
	known map[string]endState
}

// endState is what is known of one end.
type endState struct {
	dev                    string
	address, up, connected bool
}

func newCarrier(h *Heartbeat) *carrier {
	c := &carrier{h: h, log: h.log, addr: map[string]netip.Addr{}, index: map[string]int{}, known: map[string]endState{}}
	for _, r := range h.rings {
		if !r.self.IsLoopback() { // every address of the loopback network is there without being listed
			c.addr[r.path] = r.self
		}
	}
	return c
}

// open subscribes, in the caller's network namespace, and reads the state.
func (c *carrier) open() {
	if len(c.addr) == 0 {
		return
	}
	if err := c.subscribe(); err != nil {
		c.log.Warn("carrier not watched", zap.Error(err))
		c.close()
		return
	}
	c.look()
}

func (c *carrier) subscribe() (err error) {
	c.done = make(chan struct{})
	if c.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	links, addrs := make(chan netlink.LinkUpdate, 64), make(chan netlink.AddrUpdate, 64)
	if err := netlink.LinkSubscribe(links, c.done); err != nil {
		return err
	}
	c.links = links
	if err := netlink.AddrSubscribe(addrs, c.done); err != nil {
		return err
	}
	c.addrs = addrs
	return nil
}

func (c *carrier) close() {
	if c.done != nil {
		close(c.done)
	}
	if c.links != nil {
		for range c.links { // the library's goroutine may be waiting to send
		}
	}
	if c.addrs != nil {
		for range c.addrs {
		}
	}
	if c.nl != nil {
		c.nl.Close()
	}
	c.nl, c.links, c.addrs, c.done = nil, nil, nil, nil
}

func (c *carrier) run(ctx context.Context) {
	if len(c.addr) == 0 {
		return
	}
	defer c.close()
	tick := time.NewTicker(carrierRetry)
	defer tick.Stop()
	for n := 1; ; n++ {
		ok := true
		select {
		case <-ctx.Done():
			return
		case _, ok = <-c.links:
		case _, ok = <-c.addrs:
		case <-tick.C:
			ok = c.nl != nil
			if ok && n%10 != 0 {
				continue
			}
		}
		if ok {
			c.look()
			continue
		}
		c.close() // messages were lost, or it never opened
		c.open()
	}
}

// look reads the state and reports what is new.
func (c *carrier) look() {
	for path, addr := range c.addr {
		now, err := c.read(path, addr)
		if err != nil {
			c.log.Warn("carrier not read", zap.String("path", path), zap.Error(err))
			continue
		}
		was, seen := c.known[path]
		if seen && was == now {
			continue
		}
		c.known[path] = now
		if err := c.h.observe(now.evidence(path, addr)...); err != nil {
			c.log.Warn("evidence not used", zap.Error(err)) // cannot be: every path here has a peer
		}
	}
}

// read finds the device by the address; one that lost it is still watched.
func (c *carrier) read(path string, addr netip.Addr) (endState, error) {
	var s endState
	all, err := c.nl.AddrList(nil, unix.AF_UNSPEC)
	for try := 0; errors.Is(err, netlink.ErrDumpInterrupted) && try < 10; try++ {
		all, err = c.nl.AddrList(nil, unix.AF_UNSPEC)
	}
	if err != nil {
		return s, err
	}
	for _, a := range all {
		if got, ok := netip.AddrFromSlice(a.IP); ok && got.Unmap() == addr {
			s.address, c.index[path] = true, a.LinkIndex
		}
	}
	if c.index[path] == 0 {
		return s, nil
	}
	l, err := c.nl.LinkByIndex(c.index[path])
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		delete(c.index, path)
		return s, nil
	}
	if err != nil {
		return s, err
	}
	flags := l.Attrs().RawFlags
	s.dev, s.up, s.connected = l.Attrs().Name, flags&unix.IFF_UP != 0, flags&unix.IFF_LOWER_UP != 0
	return s, nil
}

// evidence says the whole of a state. A device that is switched off has no
// carrier either, but that says nothing about the cable.
func (s endState) evidence(path string, addr netip.Addr) []detect.Evidence {
	pick := func(ok bool, yes, no detect.Kind, note string) detect.Evidence {
		if ok {
			return detect.Evidence{Kind: yes, Path: path}
		}
		return detect.Evidence{Kind: no, Path: path, Note: note}
	}
	all := []detect.Evidence{pick(s.dev == "" || s.up, detect.DeviceUp, detect.DeviceDown, s.dev),
		pick(s.connected || !s.up, detect.CarrierUp, detect.CarrierDown, s.dev)}
	return append(all, pick(s.address, detect.AddressThere, detect.AddressLost, addr.String()))
}
