package fencing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/fencing/device"
)

// Bound is a device with its limits.
type Bound struct {
	device.Device
	// Timeout bounds one Off, proof included; 0: none, which only Manual may have.
	Timeout time.Duration
	// Monitor is the time between two monitors; each is bounded by it and by
	// Timeout.
	Monitor time.Duration
}

// Level is a set of devices that must all confirm, as the two supplies of one
// machine. They are asked one after the other.
type Level []Bound

// Config is what a Room goes by.
type Config struct {
	Self string // this node: it fences others, never itself
	// Nodes holds the levels of each other node, in the order they are tried.
	Nodes map[string][]Level
	Log   *zap.Logger // nil: silent
	// OnReport, when not nil, is told of the end of every fence and of every word of
	// an operator, from the goroutine of that fence. It should be quick.
	OnReport func(Report)
}

// The bounds of a Room.
const (
	levelsMax  = 8
	devicesMax = 8  // of one level
	historyMax = 32 // reports kept
	reasonMax  = 2000
)

// ErrNoDevice is wrapped by errors about a node that has no fence device.
var ErrNoDevice = errors.New("no fence device is configured")

// Room fences nodes. Its methods are safe for concurrent use.
type Room struct {
	cfg   Config
	log   *zap.Logger
	nodes map[string]*target // not changed after New

	life struct {
		ctx  context.Context //nolint:containedctx // of the fences, which outlive whoever asked first
		end  context.CancelFunc
		sync sync.Mutex
		shut bool
		wg   sync.WaitGroup // fences under way
	}
	past struct {
		sync.Mutex
		reports []Report
	}
}

// target is one node that may be fenced.
type target struct {
	name   string
	levels [][]*bound

	mu   sync.Mutex
	run  *run      // nil: none
	word *word     // of an operator, about a fence that failed; nil: none
	last *Report   // nil: none
	ends [3]uint64 // by Outcome
	// heard says that this node hears it; met, since when that is, or was last.
	heard bool
	met   time.Time
}

// New checks cfg. It asks no device anything; Run does.
func New(cfg Config) (*Room, error) {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	r := &Room{cfg: cfg, log: cfg.Log.With(zap.String("component", "fencing")), nodes: map[string]*target{}}
	r.life.ctx, r.life.end = context.WithCancel(context.Background())
	for node, levels := range cfg.Nodes {
		t, err := newTarget(node, levels)
		if err == nil && node == cfg.Self {
			err = errors.New("a node is not to fence itself")
		}
		if err != nil {
			return nil, fmt.Errorf("fencing: node %s: %w", node, err)
		}
		r.nodes[node] = t
	}
	return r, nil
}

func newTarget(node string, levels []Level) (*target, error) {
	if len(levels) == 0 || len(levels) > levelsMax {
		return nil, fmt.Errorf("%d levels of devices: want 1 to %d", len(levels), levelsMax)
	}
	t := &target{name: node}
	for i, l := range levels {
		if len(l) == 0 || len(l) > devicesMax {
			return nil, fmt.Errorf("level %d has %d devices: want 1 to %d", i+1, len(l), devicesMax)
		}
		var bs []*bound
		for _, b := range l {
			if b.Timeout < 0 || b.Timeout == 0 && !isManual(b.Device) || b.Monitor <= 0 {
				return nil, fmt.Errorf("level %d: device %s: time-out %s and monitor interval %s: want more than 0", i+1, b.Name(), b.Timeout, b.Monitor)
			}
			bs = append(bs, newBound(b))
		}
		t.levels = append(t.levels, bs)
	}
	return t, nil
}

// Run monitors the devices until ctx ends, each at once and then at its interval.
// Fence does not need it, Ready does.
func (r *Room) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, t := range r.nodes {
		for b := range t.all() {
			wg.Go(func() { b.watch(ctx, r.log.With(zap.String("node", t.name), zap.String("device", b.Name()))) })
		}
	}
	wg.Wait()
}

// Close breaks off the fences under way, whose outcome is Unknown then, and waits
// for them. Later ones are refused.
func (r *Room) Close() {
	r.life.sync.Lock()
	r.life.shut = true
	r.life.sync.Unlock()
	r.life.end()
	r.life.wg.Wait()
}

// all yields the devices in the order of the levels.
func (t *target) all() func(yield func(*bound) bool) {
	return func(yield func(*bound) bool) {
		for _, l := range t.levels {
			for _, b := range l {
				if !yield(b) {
					return
				}
			}
		}
	}
}

// Takes bounds how long a fence of node takes when all levels fail, without
// those that wait for an operator; 0 for a node without devices.
func (r *Room) Takes(node string) time.Duration {
	t := r.nodes[node]
	if t == nil {
		return 0
	}
	var sum time.Duration
	for b := range t.all() {
		if !isManual(b.Device) {
			sum += b.Timeout
		}
	}
	return sum
}

func (r *Room) keep(rep Report) {
	r.past.Lock()
	r.past.reports = append(r.past.reports, rep)
	if over := len(r.past.reports) - historyMax; over > 0 {
		r.past.reports = slices.Delete(r.past.reports, 0, over)
	}
	r.past.Unlock()
	if r.cfg.OnReport != nil {
		r.cfg.OnReport(rep)
	}
}
