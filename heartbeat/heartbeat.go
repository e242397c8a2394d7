package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/heartbeat/detect"
)

// Snapshot is what is known of all peers at one instant.
type Snapshot struct {
	At    time.Duration // on Config.Clock
	Nodes map[string]Node
}

// Node is the verdict on one peer, and what it last told of itself.
type Node struct {
	detect.Verdict
	Told
}

// Heartbeat watches the peers. Its methods are safe for concurrent use.
type Heartbeat struct {
	cfg   Config
	wish  detect.Config // as it was given: the times in it follow from how many peers there are
	log   *zap.Logger
	began time.Duration
	rings []*ring
	wake  chan struct{} // 1: changes are queued or a deadline moved

	life struct {
		sync.Mutex
		started bool
		cancel  context.CancelFunc
		wg      sync.WaitGroup
	}
	mu struct {
		sync.Mutex
		det         *detect.Detector
		lastStep    time.Duration
		turned      time.Duration   // when run came round, last
		changes     []detect.Change // not yet told
		told        map[string]*Told
		nodes       map[string]map[string]netip.Addr // as SetNodes said
		deaf        map[[2]string]bool               // node and path: see Deafen
		subscribers map[int]func(Snapshot)
		nextID      int
	}
}

// New checks cfg. It opens nothing.
func New(cfg Config) (*Heartbeat, error) {
	wish := cfg.Detect
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	h := &Heartbeat{cfg: cfg, wish: wish, log: cfg.Logger.With(zap.String("component", "heartbeat")), wake: make(chan struct{}, 1)}
	h.mu.told, h.mu.nodes = map[string]*Told{}, cfg.Nodes
	h.mu.deaf = map[[2]string]bool{}
	h.mu.subscribers = map[int]func(Snapshot){}
	h.began = cfg.Clock()
	h.mu.lastStep = h.began
	det, err := detect.New(cfg.Detect, h.mu.lastStep)
	if err != nil {
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	h.mu.det = det
	for _, path := range cfg.paths() {
		if r := newRing(h, path); len(r.peer) > 0 {
			h.rings = append(h.rings, r)
		}
	}
	return h, nil
}

// ErrFixed says that something was to change that cannot while a Heartbeat runs.
var ErrFixed = errors.New("only peers, and their addresses, can change")

// ErrStarted is returned by a second Start. A Heartbeat runs once.
var ErrStarted = errors.New("heartbeat has been started before")

// Start begins to watch. A path whose address this node does not have yet is
// tried again until it has.
func (h *Heartbeat) Start() error {
	h.life.Lock()
	defer h.life.Unlock()
	if h.life.started {
		return ErrStarted
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.life.started, h.life.cancel = true, cancel
	h.begin(h.run, ctx)
	if h.cfg.transport == nil {
		c := newCarrier(h)
		c.open()
		h.begin(c.run, ctx)
	}
	for _, r := range h.rings {
		r.open()
		h.begin(r.run, ctx)
	}
	return nil
}

func (h *Heartbeat) begin(f func(context.Context), ctx context.Context) {
	h.life.wg.Go(func() { f(ctx) })
}

// Stop tells the peers that this node leaves, closes everything and waits for
// it. Stop of a stopped one does nothing.
func (h *Heartbeat) Stop() {
	h.life.Lock()
	defer h.life.Unlock()
	if h.life.cancel != nil {
		h.life.cancel()
	}
	h.life.wg.Wait()
}

// Observe takes evidence from elsewhere, such as the mirror link's. Evidence
// about a node or path that is not configured is detect.ErrUnknownEvidence.
func (h *Heartbeat) Observe(e detect.Evidence) error { return h.observe(e) }

func (h *Heartbeat) observe(all ...detect.Evidence) error {
	h.mu.Lock()
	err := h.stepLocked(all...)
	h.mu.Unlock()
	h.poke()
	return err
}

// stepLocked steps the detector and queues what changed.
func (h *Heartbeat) stepLocked(all ...detect.Evidence) error {
	now := h.cfg.Clock()
	if gap := now - h.mu.lastStep; gap > 2*h.cfg.Detect.Stall {
		h.log.Warn("this node stood still", zap.Duration("for", gap))
	}
	h.mu.lastStep = now
	changes, err := h.mu.det.Step(now, all...)
	h.mu.changes = append(h.mu.changes, changes...)
	return err
}

func (h *Heartbeat) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// run lets time pass for the detector and tells what changes.
func (h *Heartbeat) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		case <-timer.C:
		}
		h.mu.Lock()
		err := h.stepLocked()
		h.mu.turned = h.mu.lastStep
		changes := h.mu.changes
		h.mu.changes = nil
		wait := time.Hour
		if at, ok := h.mu.det.Deadline(); ok {
			wait = max(at-h.cfg.Clock(), 0)
		}
		h.mu.Unlock()
		if err != nil {
			h.log.Error("a step without evidence failed", zap.Error(err))
		}
		timer.Reset(wait)
		h.tell(changes)
	}
}

// Turned is when the loop that passes verdicts last came round, on Config.Clock.
// It asks for another turn.
func (h *Heartbeat) Turned() time.Duration {
	h.poke()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.turned
}

func (h *Heartbeat) tell(changes []detect.Change) {
	for _, c := range changes {
		h.logChange(c)
		if c.Path != "" && c.Now == detect.Dead && h.cfg.OnPathDown != nil {
			h.cfg.OnPathDown(c.Node, c.Path, c.Because)
		}
	}
	if len(changes) == 0 {
		return
	}
	s := h.Snapshot()
	for _, f := range h.subscribers() {
		f(s)
	}
}

func (h *Heartbeat) logChange(c detect.Change) {
	var because []string
	for _, r := range c.Because {
		because = append(because, strings.TrimPrefix(r.Path+": ", ": ")+r.Text)
	}
	log := h.log.Info
	if c.Now == detect.Dead {
		log = h.log.Warn
	}
	fields := []zap.Field{zap.String("peer", c.Node), zap.Stringer("was", c.Was), zap.Stringer("now", c.Now),
		zap.String("because", strings.Join(because, "; "))}
	if c.Path != "" {
		fields = append(fields, zap.String("path", c.Path))
	}
	log("verdict", fields...)
}

// Subscribe has f called with every new Snapshot, from one goroutine; f should
// be quick and must not call Stop. The returned function ends that.
func (h *Heartbeat) Subscribe(f func(Snapshot)) (cancel func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := h.mu.nextID
	h.mu.nextID++
	h.mu.subscribers[id] = f
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.mu.subscribers, id)
	}
}

func (h *Heartbeat) subscribers() (all []func(Snapshot)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.mu.nextID {
		if f := h.mu.subscribers[id]; f != nil {
			all = append(all, f)
		}
	}
	return all
}

// Snapshot returns the present verdicts.
func (h *Heartbeat) Snapshot() Snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Snapshot{At: h.mu.lastStep, Nodes: map[string]Node{}}
	for _, v := range h.mu.det.Verdicts() {
		s.Nodes[v.Node] = Node{Verdict: v, Told: h.toldLocked(v.Node).clone()}
	}
	return s
}

// SetNodes has the peers be others from now on, or be looked for, and accepted, at
// other addresses. It is an error where this node's own addresses change, where a peer
// that stays has other paths, or a new one has a path on which this node watched nobody.
func (h *Heartbeat) SetNodes(nodes map[string]map[string]netip.Addr) error {
	next := h.cfg
	next.Nodes, next.Detect = nodes, h.wish
	if err := next.checkNodes(); err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	next.completeDetect()
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.fixed(h.mu.nodes, nodes); err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	if err := h.mu.det.Watch(next.Detect); err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	h.mu.nodes = nodes
	for _, r := range h.rings {
		r.mu.Lock()
		clear(r.peer)
		for node, paths := range nodes {
			if addr := paths[r.path]; node != h.cfg.Self && addr.IsValid() {
				r.peer[node] = addr
			}
		}
		r.mu.Unlock()
	}
	return nil
}

// fixed says what cannot change while a Heartbeat runs.
func (h *Heartbeat) fixed(old, nodes map[string]map[string]netip.Addr) error {
	for node, paths := range nodes {
		had, stays := old[node]
		for path, now := range paths {
			watched := slices.ContainsFunc(h.rings, func(r *ring) bool { return r.path == path })
			was := had[path]
			if node == h.cfg.Self && now != was || stays && !was.IsValid() || !stays && !watched {
				return fmt.Errorf("%s on %s: was %s, now %s: %w", node, path, was, now, ErrFixed)
			}
		}
		if stays && len(paths) != len(had) {
			return fmt.Errorf("%s with %d paths: had %d: %w", node, len(paths), len(had), ErrFixed)
		}
	}
	return nil
}
