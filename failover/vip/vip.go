// Package vip moves a service address between nodes: it looks whether another
// station has the address, takes it, tells the neighbours at once and again
// later, puts it back when something strips it, and gives it up.
//
// An Address belongs to the network namespace of the thread that calls Start:
// every socket is opened there and kept.
package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/failover/vip/frame"
)

// Defaults of Config.
const (
	DefaultProbes    = 3
	DefaultProbeWait = 25 * time.Millisecond
	DefaultRefresh   = time.Minute
	DefaultInsist    = 2 * time.Second

	probesMax    = 20
	probeWaitMax = 5 * time.Second
	announceMax  = 64
	restoreEvery = time.Second            // at most, when something keeps stripping the address
	askEvery     = 20 * time.Millisecond  // whether the node may have it again
	leadEvery    = 100 * time.Millisecond // at most, when routes keep changing
)

// DefaultAnnounce returns the instants after the take-over at which the
// neighbours are told: at once, and again for those that were not listening
// (a switch port still forwarding nothing, a lost frame, a rebooting router).
func DefaultAnnounce() []time.Duration {
	return []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 10 * time.Second}
}

// Config describes one service address. Only Prefix and Dev have no default.
type Config struct {
	Site
	Owner string // of devices that are made, for Sweep: a word, such as cluster/resource; 0 to 200 bytes

	Probes    int           // 0: DefaultProbes; below 0: do not look for another holder
	ProbeWait time.Duration // after each probe; 0: DefaultProbeWait
	// MayTake, when not nil, is asked when another station answers for the
	// address; true takes it all the same, and says so in the log. For a caller
	// that knows the other to be a former holder that may not write any more.
	MayTake func(*ConflictError) bool

	// MayHold, when not nil, says whether this node may have the address now. It is asked
	// directly before the address is put on the device, by Start and when it was stripped,
	// once more when it is there, and before each announcement. It is called from the
	// caller's and the address's own goroutine and must return at once.
	MayHold func() bool

	Announce []time.Duration // nil: DefaultAnnounce; empty: never
	Refresh  time.Duration   // repeat; 0: DefaultRefresh; below 0: never
	Insist   time.Duration   // repeat until a neighbour is seen to know; 0: DefaultInsist

	// Event, when not nil, is told what happens to the address in the
	// background. It is called from the address's own goroutine and must not
	// call back into the Address.
	Event  func(Event)
	Logger *zap.Logger // nil: silent
}

// Event is something that befell a held address.
type Event struct {
	What Happening
	MAC  frame.MAC // of Learnt and Contested: the other's
	Err  error     // why it could not be put back; nil otherwise
}

// Happening names an Event.
type Happening string

// The happenings.
const (
	Stripped   Happening = "stripped"    // something removed the address
	Restored   Happening = "restored"    // it was put back
	NotBack    Happening = "not back"    // putting it back failed; tried again
	CarrierUp  Happening = "carrier up"  // the cable is back: announced again
	CarrierOff Happening = "carrier off" // no neighbour can reach the address
	Learnt     Happening = "learnt"      // a neighbour sends to it at this node
	Contested  Happening = "contested"   // another station claims it; told once a minute
)

// Address is one service address. Its methods are safe for concurrent use and
// run one at a time.
type Address struct {
	cfg Config
	ip  netip.Addr
	log *zap.Logger

	mu   sync.Mutex
	port *port  // nil unless held
	loop func() // stops the background loop and waits for it; nil unless held
}

// New checks cfg. It touches nothing.
func New(cfg Config) (*Address, error) {
	if err := check(cfg); err != nil {
		return nil, fmt.Errorf("address %s on %q: %w", cfg.Prefix, cfg.Dev, err)
	}
	if cfg.Probes == 0 {
		cfg.Probes = DefaultProbes
	}
	if cfg.ProbeWait == 0 {
		cfg.ProbeWait = DefaultProbeWait
	}
	if cfg.Announce == nil {
		cfg.Announce = DefaultAnnounce()
	}
	if cfg.Refresh == 0 {
		cfg.Refresh = DefaultRefresh
	}
	if cfg.Insist == 0 {
		cfg.Insist = DefaultInsist
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	log := cfg.Logger.With(zap.Stringer("address", cfg.Prefix), zap.String("dev", cfg.Device()))
	return &Address{cfg: cfg, ip: cfg.Prefix.Addr(), log: log}, nil
}

func check(cfg Config) error {
	ip := cfg.Prefix.Addr()
	switch {
	case !cfg.Prefix.IsValid():
		return errors.New("not an address with a prefix length, such as 192.168.1.50/24")
	case ip.Is4In6():
		return fmt.Errorf("an IPv4 address in IPv6 spelling; write %s", ip.Unmap())
	case ip.IsUnspecified(), ip.IsMulticast(), ip.IsLoopback():
		return errors.New("not an address a neighbour could use")
	case ip.Is6() && ip.Zone() != "":
		return errors.New("must not carry a zone; dev names the device")
	case cfg.Dev == "" || len(cfg.Dev) > 15:
		return errors.New("device name must have 1 to 15 characters")
	case len(cfg.Owner) > ownerMax || strings.ContainsAny(cfg.Owner, " \n\x00"):
		return fmt.Errorf("owner %q, must be a word of at most %d bytes", cfg.Owner, ownerMax)
	case cfg.Probes > probesMax:
		return fmt.Errorf("%d probes, at most %d", cfg.Probes, probesMax)
	case cfg.ProbeWait < 0 || cfg.ProbeWait > probeWaitMax:
		return fmt.Errorf("probe wait %s, must be 0 to %s", cfg.ProbeWait, probeWaitMax)
	case cfg.Insist < 0 || cfg.Insist > 0 && cfg.Insist < 10*time.Millisecond:
		return fmt.Errorf("insist every %s, must be at least 10ms", cfg.Insist)
	case len(cfg.Announce) > announceMax:
		return fmt.Errorf("%d announcements, at most %d", len(cfg.Announce), announceMax)
	}
	if cfg.Virtual() {
		if err := cfg.MAC.Stations(); err != nil {
			return fmt.Errorf("virtual MAC: %w", err)
		}
	}
	if to := cfg.SourceFor; to.IsValid() && (to.Addr().Is4() != ip.Is4() || to != to.Masked()) {
		return fmt.Errorf("source for %s: must be a network of the address's family", to)
	}
	for i, at := range cfg.Announce {
		if at < 0 || i > 0 && at < cfg.Announce[i-1] {
			return fmt.Errorf("announcement %d at %s: must not go back", i+1, at)
		}
	}
	return nil
}

// Prefix returns the address as configured.
func (a *Address) Prefix() netip.Prefix { return a.cfg.Prefix }

// ErrDeviceDown is returned when the device is administratively down.
var ErrDeviceDown = errors.New("device is down")

// ErrMayNotHold is returned when MayHold says that this node may not have the address.
var ErrMayNotHold = errors.New("this node may not have the address now")

// NoDeviceError is returned when the device does not exist.
type NoDeviceError struct{ Dev string }

// Error names the device.
func (e *NoDeviceError) Error() string { return fmt.Sprintf("no network device %q", e.Dev) }

// ConflictError is returned when another station has the address.
type ConflictError struct {
	Addr    netip.Addr
	Dev     string
	MAC     frame.MAC // the other's
	Probing bool      // it is about to take the address as well
	Twin    bool      // it has the virtual MAC of the address as well
}

// Error says who has the address.
func (e *ConflictError) Error() string {
	verb := "is in use by"
	if e.Probing {
		verb = "is about to be taken by"
	}
	also := ""
	if e.Twin {
		also = ", which is its virtual MAC"
	}
	return fmt.Sprintf("%s %s %s on %s%s", e.Addr, verb, e.MAC, e.Dev, also)
}

// ElsewhereError is returned when this node has the address, but not as
// configured.
type ElsewhereError struct {
	Want, Have netip.Prefix
	Dev, On    string
}

// Error says where the address is.
func (e *ElsewhereError) Error() string {
	return fmt.Sprintf("%s wanted on %s, but this node already has %s on %s", e.Want, e.Dev, e.Have, e.On)
}

// Start looks whether another station has the address, takes it, announces it
// and keeps it until Remove. Starting a held address announces it again. It
// fails with *ConflictError, *NoDeviceError, *ElsewhereError, ErrDeviceDown or
// ErrMayNotHold, and then this node has the address only if it had it before.
func (a *Address) Start(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.start(ctx); err != nil {
		return fmt.Errorf("take address %s on %s: %w", a.cfg.Prefix, a.cfg.Dev, err)
	}
	return nil
}

func (a *Address) start(ctx context.Context) error {
	a.release()
	p, err := a.open()
	if err != nil {
		return err
	}
	if err := a.take(ctx, p); err != nil {
		p.close()
		return err
	}
	a.port = p
	a.loop = a.watch(p)
	return nil
}

// take probes and adds. It leaves an address that is there already.
//
// Whether the node may have it is asked after the probe, which may outlast a lease, and
// again when the address is there: whoever takes it away when the time is up may have
// looked just before. What is there while the answer is yes, that one meets.
func (a *Address) take(ctx context.Context, p *port) error {
	had, err := p.has(a.cfg.Prefix)
	if err != nil {
		return err
	}
	if err := a.probe(ctx, p); err != nil {
		return err
	}
	if !a.mayHold() {
		return ErrMayNotHold
	}
	err = p.add(a.cfg.Prefix) // also one that was there: it may have been taken during the probe
	if err == nil {
		if _, err = p.lead(); err != nil && !had {
			err = errors.Join(err, p.unlead(), p.remove(a.cfg.Prefix))
		}
	}
	if err == nil && !a.mayHold() {
		err = errors.Join(ErrMayNotHold, p.unlead(), p.remove(a.cfg.Prefix))
	}
	return err
}

func (a *Address) mayHold() bool { return a.cfg.MayHold == nil || a.cfg.MayHold() }

func (a *Address) open() (*port, error) { return openPort(a.cfg.Site, a.cfg.Owner) }

func (a *Address) probe(ctx context.Context, p *port) error {
	if a.cfg.Probes < 0 {
		return ctx.Err()
	}
	err := p.probe(ctx, a.ip, a.cfg.Probes, a.cfg.ProbeWait)
	var conflict *ConflictError
	if a.cfg.MayTake != nil && errors.As(err, &conflict) && a.cfg.MayTake(conflict) {
		a.log.Warn("taking an address another station has",
			zap.Stringer("other", conflict.MAC), zap.Bool("probing", conflict.Probing))
		return nil
	}
	return err
}

// Probe looks whether another station has the address; it fails with
// *ConflictError then. It changes nothing.
func (a *Address) Probe(ctx context.Context) error {
	return a.borrow(func(p *port) error {
		return p.probe(ctx, a.ip, max(a.cfg.Probes, 1), a.cfg.ProbeWait)
	})
}

// Present reports whether this node has the address on its device. A device
// that does not exist has no address.
func (a *Address) Present() (there bool, err error) {
	err = a.borrow(func(p *port) error {
		there, err = p.has(a.cfg.Prefix)
		return err
	})
	var gone *NoDeviceError
	var elsewhere *ElsewhereError
	if errors.As(err, &gone) || errors.As(err, &elsewhere) {
		return false, nil
	}
	return there, err
}

// borrow runs f on the held port, or on one opened for the purpose.
func (a *Address) borrow(f func(*port) error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.port != nil {
		return f(a.port)
	}
	p, err := a.open()
	if err != nil {
		return err
	}
	defer p.close()
	return f(p)
}

// Ensure puts a held address back if it is gone, and says whether it had to.
// An address that is not held is left alone: false, nil.
func (a *Address) Ensure(ctx context.Context) (restored bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.port == nil {
		return false, nil
	}
	there, err := a.port.has(a.cfg.Prefix)
	if there && err == nil {
		return false, nil
	}
	if err := a.start(ctx); err != nil { // opened anew: the device may be another one by now
		return false, fmt.Errorf("put address %s back on %s: %w", a.cfg.Prefix, a.cfg.Dev, err)
	}
	return true, nil
}

// Remove gives the address up and stops announcing it. Removing an absent one
// succeeds.
func (a *Address) Remove() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.release()
	kept := a.cfg.unlead() // before the address goes: nobody's source lets no connection come about
	p, err := a.open()
	var gone *NoDeviceError
	if err == nil {
		defer p.close()
		err = p.remove(a.cfg.Prefix)
	}
	if errors.As(err, &gone) {
		err = nil
	}
	err = errors.Join(err, kept)
	if err != nil {
		return fmt.Errorf("remove address %s from %s: %w", a.cfg.Prefix, a.cfg.Dev, err)
	}
	return nil
}

// Close stops announcing and watching, and leaves the address where it is, for
// an agent that is restarted.
func (a *Address) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.release()
}

func (a *Address) release() {
	if a.loop != nil {
		a.loop()
		a.loop = nil
	}
	if a.port != nil {
		a.port.close()
		a.port = nil
	}
}
