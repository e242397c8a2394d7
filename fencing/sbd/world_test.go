package sbd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"hapair/fencing/device"
	"hapair/fencing/watchdog"
	kernel "hapair/kernel/watchdog"
)

// world is a shared disk, the node beta that reads it, and the node alpha that may
// fence beta. Everything in it happens on virtual time.
type world struct {
	t0      time.Time
	mu      sync.Mutex
	store   [blocks][recordBytes]byte
	alphas  *[blocks][recordBytes]byte // what alpha takes for that disk; nil: it
	linked  bool
	contact time.Duration // when alpha heard beta last
	cancel  func()        // of the fence under way; nil: none
	tells   []string      // what beta's reader says
	met     string        // what beta has told of itself
	hasMet  bool
	broken  bool          // alpha's way to the disk
	hangs   chan struct{} // closed when what alpha writes goes on; nil: it does not hang
	beta    *machine
	boots   int
}

// machine is beta in one boot.
type machine struct {
	w       *world
	life    ID
	off     bool // it was reset
	armed   bool
	pets    time.Duration // when it was petted last
	timer   *time.Timer
	timeout time.Duration
	process *process // nil: none runs
	all     []*process
	broken  bool          // its way to the disk
	hangs   chan struct{} // closed when it answers again; nil: it answers
	marker  bool          // what the agent keeps of this boot
}

// process is one life of beta's agent.
type process struct {
	m      *machine
	dead   bool
	paused chan struct{} // closed when it goes on; nil: it runs
	open   bool          // it has the watchdog
	heard  time.Duration
	told   string // what it tells
	reader *Reader
	keeper *watchdog.Keeper
}

var errGone = errors.New("gone")

func (w *world) now() time.Duration { return time.Since(w.t0) }

func newWorld() *world {
	w := &world{t0: time.Now(), linked: true}
	h := Head{Disk: Name("disk"), Cluster: "shop", Nodes: [2]string{"alpha", "beta"}, Made: at}
	if err := h.found(&handle{w, nil}); err != nil {
		panic(err)
	}
	return w
}

var owner = Owner{"shop", []string{"alpha", "beta"}}

// handle is the disk as one process sees it, or alpha, nil.
type handle struct {
	w *world
	p *process
}

// step waits while the process is stopped, and fails where the disk does.
func (h *handle) step() error {
	if h.p != nil {
		h.p.gate()
		h.w.mu.Lock()
		hangs := h.p.m.hangs
		h.w.mu.Unlock()
		if hangs != nil {
			<-hangs
		}
	}
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	switch {
	case h.p == nil && h.w.broken, h.p != nil && h.p.m.broken:
		return errors.New("the path is down")
	case h.p != nil && (h.p.dead || h.p.m.off):
		return errGone
	}
	return nil
}

func (h *handle) Read(block int, b []byte) error {
	if err := h.step(); err != nil {
		return err
	}
	h.w.mu.Lock()
	copy(b, h.records()[block][:])
	h.w.mu.Unlock()
	return h.step() // what was read may be old when it is looked at
}

func (h *handle) Write(block int, b []byte) error {
	if err := h.step(); err != nil {
		return err
	}
	h.w.mu.Lock()
	hangs := h.w.hangs
	h.w.mu.Unlock()
	if h.p == nil && hangs != nil {
		<-hangs
	}
	h.w.mu.Lock()
	copy(h.records()[block][:], b)
	h.w.mu.Unlock()
	return h.step()
}

func (h *handle) records() *[blocks][recordBytes]byte {
	if h.p == nil && h.w.alphas != nil {
		return h.w.alphas
	}
	return &h.w.store
}

func (h *handle) Close() error { return nil }

// gate holds a process that stands still.
func (p *process) gate() {
	for {
		p.m.w.mu.Lock()
		wait := p.paused
		if p.dead || p.m.off {
			wait = nil
		}
		p.m.w.mu.Unlock()
		if wait == nil {
			return
		}
		<-wait
	}
}

// petMachine, of a process: the watchdog of its machine.
type petMachine struct{ p *process }

func (x petMachine) Info() kernel.Info { return kernel.Info{Timeout: x.p.m.timeout} }

func (x petMachine) Pet() error {
	x.p.gate() // between the decision and the call
	return x.p.m.pet(x.p)
}

func (x petMachine) Leave() error { return nil }

func (x petMachine) Disarm() error {
	m := x.p.m
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if x.p.dead || m.off {
		return errGone
	}
	m.armed = false
	m.timer.Stop()
	return nil
}

func (m *machine) pet(p *process) error {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if p.dead || m.off {
		return errGone
	}
	p.open = true
	m.ping()
	return nil
}

// ping puts the reset off. mu of the world is held.
func (m *machine) ping() {
	m.armed, m.pets = true, m.w.now()
	m.timer.Reset(m.timeout)
}

// boot switches beta on.
func (w *world) boot(timeout time.Duration) *machine {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.boots++
	m := &machine{w: w, life: Name(fmt.Sprint("boot ", w.boots)), timeout: timeout}
	m.timer = time.AfterFunc(timeout, m.reset)
	m.timer.Stop()
	w.beta = m
	return m
}

// reset is the end of everything on the machine.
func (m *machine) reset() {
	m.w.mu.Lock()
	m.off = true
	m.timer.Stop()
	all := m.all
	m.process, m.all = nil, nil
	m.w.mu.Unlock()
	for _, p := range all {
		p.end()
	}
}

// end has a process do nothing any more. One that is just starting sees to what it
// has started itself. The kernel closes the watchdog for it, and pets one that stays
// armed as it does (watchdog_release).
func (p *process) end() {
	p.m.w.mu.Lock()
	if p.open && p.m.armed && !p.m.off {
		p.m.ping()
	}
	p.dead, p.open = true, false
	if p.paused != nil {
		close(p.paused)
		p.paused = nil
	}
	reader, keeper := p.reader, p.keeper
	p.m.w.mu.Unlock()
	if reader != nil {
		reader.end()
	}
	if keeper != nil {
		go func() { _ = keeper.Leave() }()
	}
}

// start starts beta's agent as the agent does.
func (m *machine) start() {
	p := &process{m: m, heard: Never}
	m.w.mu.Lock()
	former := m.marker
	if m.process != nil || m.off {
		m.w.mu.Unlock()
		return
	}
	m.process, m.marker, m.all = p, true, append(m.all, p)
	m.w.mu.Unlock()
	defer func() {
		m.w.mu.Lock()
		over := p.dead || m.off
		m.w.mu.Unlock()
		if over {
			p.end()
		}
	}()
	r, _, err := Find(p.config(former), m.timeout)
	if errors.Is(err, ErrPill) {
		m.reset()
		return
	}
	if err != nil && former {
		p.end()
		return
	}
	needs := []watchdog.Need{}
	if m.pet(p) != nil { // open
		return
	}
	if err == nil && r.Start(m.timeout) == nil {
		needs = append(needs, watchdog.Need{Name: "sbd", Why: r.Why})
		m.w.mu.Lock()
		p.reader, p.told = r, r.Word()
		m.w.mu.Unlock()
	} else if former {
		p.end()
		return
	}
	k := watchdog.Start(petMachine{p}, watchdog.Config{Clock: m.w.now, Log: zap.NewNop()}, needs...)
	m.w.mu.Lock()
	p.keeper = k
	m.w.mu.Unlock()
}

func (p *process) config(former bool) ReaderConfig {
	return ReaderConfig{Open: func() (Disk, error) { h := &handle{p.m.w, p}; return h, h.step() }, Owner: owner, Self: "beta", Life: p.m.life, Machine: Name("machine"),
		Former: former, Clock: p.m.w.now, Log: zap.NewNop(), Heard: p.lastHeard, Doom: func(string) { p.gate(); p.m.reset() },
		Tell: func(text string, _ bool) { p.m.w.said(text) }}
}

func (w *world) said(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tells = append(w.tells, text)
}

func (p *process) lastHeard() time.Duration {
	p.m.w.mu.Lock()
	defer p.m.w.mu.Unlock()
	return p.heard
}

// stop ends beta's agent in order.
func (m *machine) stop() {
	m.w.mu.Lock()
	p := m.process
	if p == nil || p.keeper == nil {
		m.w.mu.Unlock()
		return
	}
	m.process = nil
	m.w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if p.reader == nil || p.reader.Stop(ctx) == nil {
		if p.keeper.Disarm() == nil {
			m.w.mu.Lock()
			m.marker = false
			m.w.mu.Unlock()
		}
	} else {
		_ = p.keeper.Leave()
	}
	p.end()
}

// talk has alpha and beta hear each other, if they can.
func (w *world) talk() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.beta == nil || w.beta.off || !w.linked {
		return
	}
	p := w.beta.process
	if p == nil || p.dead || p.paused != nil || p.keeper == nil {
		return
	}
	w.contact, p.heard = w.now(), w.now()
	w.met, w.hasMet = p.told, true
	if w.cancel != nil {
		w.cancel()
	}
}

// fence has alpha fence beta as the failover does. It counts when it is confirmed and
// the two have not met since it was asked for; then whom alpha had met is off.
func (w *world) fence(within time.Duration) (out device.Outcome, said string, counts, over bool) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	w.mu.Lock()
	began, victim := w.now(), w.beta
	w.cancel = cancel
	w.mu.Unlock()
	out, said = New(w.device(within)).Off(ctx, device.Order{Node: "beta", Why: "test"})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancel = nil
	counts = out == device.Confirmed && w.contact < began
	over = victim == nil || victim.off || !strings.HasPrefix(w.met, victim.life.String())
	return out, said, counts, over
}

func (w *world) open() (Disk, error) {
	h := &handle{w, nil}
	return h, h.step()
}

func (w *world) device(within time.Duration) DeviceConfig {
	return DeviceConfig{Path: "disk", Open: w.open, Look: w.open, Owner: owner, Self: "alpha", Node: "beta",
		Life: Name("alpha"), Timeout: within, Met: func() (string, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.met, w.hasMet
		}, Hears: func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.linked
		}}
}

func (w *world) mailOfBeta(t *testing.T) Mail {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	m, err := decodeMail(w.store[2+2][:])
	if err != nil {
		t.Error(err)
	}
	return m
}
