package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Defaults of GroupConfig.
const (
	DefaultAttempts  = 3
	DefaultRetryWait = 500 * time.Millisecond

	attemptsMax = 100
	groupMax    = 256 // services
)

// GroupConfig describes the services of one resource.
type GroupConfig struct {
	Resource string
	Services []Item // in the order they are started

	Attempts  int           // to start each; 0: DefaultAttempts
	RetryWait time.Duration // between attempts; 0: DefaultRetryWait

	// Frozen reports whether the device lets nobody read and write just now. It is asked
	// before and after each check of a service: what that does not find out meanwhile
	// counts against nobody. It must not block. nil: never.
	Frozen func() bool
	// Progress, when not nil, is told each step. It is called by whoever runs
	// the group, one call at a time, and must not call back into the Group.
	Progress func(Progress)
	Now      func() time.Time // for Status and Progress; nil: time.Now
	Logger   *zap.Logger      // nil: silent
}

// Progress is one step of one service.
type Progress struct {
	Resource string
	Service  string
	Was, Now State
	Attempt  int // from 1, while starting
	At       time.Time
	Took     time.Duration // since the step before began; 0 at its beginning
	Err      error
}

// State is where a service is.
type State string

// The states of a service.
const (
	Unknown  State = "unknown" // not looked at yet, or the last check could not tell
	Stopped  State = "stopped"
	Starting State = "starting"
	Running  State = "running"
	Stopping State = "stopping"
	Failed   State = "failed" // to start, to stop, or found down or broken while it should run
)

// Status is what is known of one service.
type Status struct {
	Name  string
	Kind  string // mount, systemd, exec, ocf, address
	State State
	Since time.Time // in this state
	Error error     // the last one; nil after a success
	// Up says that it is taken for running: it is, or it was when that could be told last.
	Up bool
}

// Group starts and stops the services of a resource in order. Its methods are
// safe for concurrent use and run one at a time; Stop and StopForced interrupt
// a Start, Restart or Check that is under way. Every attempt at a service is bounded (limit.go).
type Group struct {
	cfg GroupConfig
	log *zap.Logger

	slots  []*slot
	stages [][]int       // places of those that start and stop together, in order
	turn   chan struct{} // holds a token while nobody runs the group
	tell   sync.Mutex    // held while Progress is called

	mu struct {
		sync.Mutex
		status []Status
		cancel context.CancelCauseFunc // of the Start or Check under way; nil: none
		stops  int                     // Stops that wait or run; while any does, neither begins
	}
}

// NewGroup checks cfg. Names must be unique. It touches nothing.
func NewGroup(cfg GroupConfig) (*Group, error) {
	if err := checkGroup(&cfg); err != nil {
		return nil, fmt.Errorf("services of resource %q: %w", cfg.Resource, err)
	}
	g := &Group{cfg: cfg, log: cfg.Logger.With(zap.String("resource", cfg.Resource)), turn: make(chan struct{}, 1)}
	g.turn <- struct{}{}
	for n, i := range cfg.Services {
		s := newSlot(i)
		g.slots = append(g.slots, s)
		if !i.Parallel {
			g.stages = append(g.stages, nil)
		}
		last := len(g.stages) - 1
		g.stages[last] = append(g.stages[last], n)
		g.mu.status = append(g.mu.status, Status{Name: s.name, Kind: s.kind, State: Unknown, Since: cfg.Now()})
	}
	return g, nil
}

func checkGroup(cfg *GroupConfig) error {
	if len(cfg.Services) > groupMax {
		return fmt.Errorf("%d services, at most %d", len(cfg.Services), groupMax)
	}
	seen := map[string]bool{}
	for _, i := range cfg.Services {
		name := newSlot(i).name
		if seen[name] {
			return fmt.Errorf("%s is there twice", name)
		}
		if i.Limits.negative() {
			return fmt.Errorf("%s: time-outs %+v: must not be negative", name, i.Limits)
		}
		seen[name] = true
	}
	if len(cfg.Services) > 0 && cfg.Services[0].Parallel {
		return fmt.Errorf("%s is the first: there is none before it to be parallel with", newSlot(cfg.Services[0]).name)
	}
	if cfg.Attempts < 0 || cfg.Attempts > attemptsMax || cfg.RetryWait < 0 {
		return fmt.Errorf("%d attempts, %s between them: attempts must be 0 to %d, the time not negative", cfg.Attempts, cfg.RetryWait, attemptsMax)
	}
	if cfg.Attempts == 0 {
		cfg.Attempts = DefaultAttempts
	}
	if cfg.RetryWait == 0 {
		cfg.RetryWait = DefaultRetryWait
	}
	if cfg.Frozen == nil {
		cfg.Frozen = func() bool { return false }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	return nil
}

// acquire waits for the group's turn.
func (g *Group) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	select {
	case <-g.turn:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("services of %s are busy: %w", g.cfg.Resource, context.Cause(ctx))
	}
}

func (g *Group) release() { g.turn <- struct{}{} }

// Start starts every service in order. One that fails is stopped and tried
// again; when its attempts are used up, one of them took too long, or ctx ends,
// everything started is stopped again, in reverse, and a *StartError returned.
// Services that run already stay.
func (g *Group) Start(ctx context.Context) error {
	ctx, done, err := g.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	all := func(int) bool { return true }
	return g.startFrom(ctx, 0, all)
}

// begin takes the turn for something that a Stop interrupts.
func (g *Group) begin(ctx context.Context) (_ context.Context, done func(), err error) {
	if err := g.acquire(ctx); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	if !g.interruptible(cancel) {
		cancel(nil)
		g.release()
		return nil, nil, fmt.Errorf("services of %s: %w", g.cfg.Resource, ErrOverruled)
	}
	return ctx, func() {
		g.interruptible(nil)
		cancel(nil)
		g.release()
	}, nil
}

// startFrom starts the stages from first on, of them what which says.
func (g *Group) startFrom(ctx context.Context, first int, which func(int) bool) error {
	for at := first; at < len(g.stages); at++ {
		attempts := make([]int, len(g.slots))
		errs := g.each(at, which, func(i int) (err error) {
			attempts[i], err = g.startOne(ctx, i)
			return err
		})
		if len(errs) > 0 {
			return g.undo(ctx, at, first, which, attempts, errs)
		}
	}
	return nil
}

// interruptible lets a Stop end the operation through cancel; nil ends that.
// It reports whether no Stop has come already.
func (g *Group) interruptible(cancel context.CancelCauseFunc) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if cancel != nil && g.mu.stops > 0 {
		return false
	}
	g.mu.cancel = cancel
	return true
}

// startOne returns the number of attempts made.
func (g *Group) startOne(ctx context.Context, i int) (attempts int, err error) {
	s := g.slots[i]
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return n - 1, context.Cause(ctx)
		}
		begin := g.cfg.Now()
		g.set(i, Progress{Now: Starting, Attempt: n, Err: err})
		err = s.start(ctx)
		took := g.cfg.Now().Sub(begin)
		if err == nil {
			g.set(i, Progress{Now: Running, Attempt: n, Took: took})
			return n, nil
		}
		g.set(i, Progress{Now: Failed, Attempt: n, Took: took, Err: err})
		if n >= g.cfg.Attempts || isPermanent(err) || errors.Is(err, ErrTimeout) || ctx.Err() != nil {
			return n, err
		}
		if stopErr := s.stop(ctx); stopErr != nil {
			return n, errors.Join(err, fmt.Errorf("and could not be stopped for another attempt: %w", stopErr))
		}
		pause(ctx, g.cfg.RetryWait)
	}
}

// undo stops what was started from stage first to stage last, of which some of the
// last did not start. It heeds no end of ctx, which must not leave half a resource:
// each stop has its limit.
func (g *Group) undo(ctx context.Context, last, first int, which func(int) bool, attempts []int, causes map[int]error) error {
	ctx = context.WithoutCancel(ctx)
	blamed := g.stages[last][0]
	for _, i := range slices.Backward(g.stages[last]) {
		if causes[i] != nil {
			blamed = i
		}
	}
	e := &StartError{Service: g.slots[blamed].name, Attempts: attempts[blamed], Err: causes[blamed]}
	for at := last; at >= first && len(e.Left) == 0; at-- {
		errs := g.stopStage(ctx, at, which, (*slot).stop)
		for _, i := range slices.Backward(g.stages[at]) {
			name := g.slots[i].name
			switch {
			case errs[i] != nil:
				e.StopErrors = append(e.StopErrors, fmt.Errorf("stop %s: %w", name, errs[i]))
				e.Left = append(e.Left, name)
			case at == last && causes[i] != nil: // stopped cleanly, but it is why the resource does not run
				g.set(i, Progress{Now: Failed, Err: causes[i]})
			case which(i):
				e.Stopped = append(e.Stopped, name)
			}
		}
		if len(e.Left) > 0 {
			e.Left = append(e.Left, g.below(at)...)
		}
	}
	return e
}

func (g *Group) stopOne(ctx context.Context, i int, stop func(*slot, context.Context) error) error {
	begin := g.cfg.Now()
	g.set(i, Progress{Now: Stopping})
	err := stop(g.slots[i], ctx)
	p := Progress{Now: Stopped, Took: g.cfg.Now().Sub(begin), Err: err}
	if err != nil {
		p.Now = Failed
	}
	g.set(i, p)
	return err
}

// Status returns what is known, in starting order. It never waits.
func (g *Group) Status() []Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]Status(nil), g.mu.status...)
}

// set records a step and reports it, if it is one.
func (g *Group) set(i int, p Progress) {
	now := g.cfg.Now()
	g.mu.Lock()
	s := &g.mu.status[i]
	p.Resource, p.Service, p.Was, p.At = g.cfg.Resource, s.Name, s.State, now
	same := p.Was == p.Now && p.Attempt <= 1 && (p.Err == nil) == (s.Error == nil)
	if s.State != p.Now {
		s.State, s.Since = p.Now, now
	}
	s.Error, s.Up = p.Err, p.Now == Running || p.Now == Unknown && s.Up
	g.mu.Unlock()
	if same {
		return
	}
	g.log.Info("service", zap.String("service", p.Service), zap.String("was", string(p.Was)), zap.String("now", string(p.Now)),
		zap.Int("attempt", p.Attempt), zap.Duration("took", p.Took), zap.NamedError("because", p.Err))
	if g.cfg.Progress != nil {
		g.tell.Lock()
		defer g.tell.Unlock()
		g.cfg.Progress(p)
	}
}

// Close releases what services keep open and leaves them running, for an agent
// that is restarted.
func (g *Group) Close(ctx context.Context) error {
	if err := g.acquire(ctx); err != nil {
		return err
	}
	defer g.release()
	var all error
	for _, s := range g.slots {
		switch c := s.m.(type) {
		case io.Closer:
			all = errors.Join(all, c.Close())
		case interface{ Close() }:
			c.Close()
		}
	}
	return all
}
