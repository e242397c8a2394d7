package service

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	Unknown  State = "unknown" // not looked at yet, or it could not be told
	Stopped  State = "stopped"
	Starting State = "starting"
	Running  State = "running"
	Stopping State = "stopping"
	Failed   State = "failed" // to start, to stop, or found down while it should run
)

// Status is what is known of one service.
type Status struct {
	Name  string
	Kind  string // mount, systemd, exec, ocf, address
	State State
	Since time.Time // in this state
	Error error     // the last one; nil after a success
}

// Group starts and stops the services of a resource in order. Its methods are
// safe for concurrent use and run one at a time; Stop and StopForced interrupt
// a Start that is under way. Every attempt at a service is bounded (limit.go).
type Group struct {
	cfg GroupConfig
	log *zap.Logger

	slots []*slot
	turn  chan struct{} // holds a token while nobody runs the group

	mu struct {
		sync.Mutex
		status []Status
		cancel context.CancelCauseFunc // of the Start under way; nil: none
		stops  int                     // Stops that wait or run; while any does, no Start begins
	}
}

// NewGroup checks cfg. Names must be unique. It touches nothing.
func NewGroup(cfg GroupConfig) (*Group, error) {
	if err := checkGroup(&cfg); err != nil {
		return nil, fmt.Errorf("services of resource %q: %w", cfg.Resource, err)
	}
	g := &Group{cfg: cfg, log: cfg.Logger.With(zap.String("resource", cfg.Resource)), turn: make(chan struct{}, 1)}
	g.turn <- struct{}{}
	for _, i := range cfg.Services {
		s := newSlot(i)
		g.slots = append(g.slots, s)
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
	if cfg.Attempts < 0 || cfg.Attempts > attemptsMax || cfg.RetryWait < 0 {
		return fmt.Errorf("%d attempts, %s between them: attempts must be 0 to %d, the time not negative", cfg.Attempts, cfg.RetryWait, attemptsMax)
	}
	if cfg.Attempts == 0 {
		cfg.Attempts = DefaultAttempts
	}
	if cfg.RetryWait == 0 {
		cfg.RetryWait = DefaultRetryWait
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
	if err := g.acquire(ctx); err != nil {
		return err
	}
	defer g.release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !g.interruptible(cancel) {
		return fmt.Errorf("start services of %s: %w", g.cfg.Resource, ErrOverruled)
	}
	defer g.interruptible(nil)
	for i := range g.slots {
		if attempts, err := g.startOne(ctx, i); err != nil {
			return g.undo(ctx, i, attempts, err)
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

// undo stops services 0 to last, of which the last did not start. It heeds no
// end of ctx, which must not leave half a resource: each stop has its limit.
func (g *Group) undo(ctx context.Context, last, attempts int, cause error) error {
	ctx = context.WithoutCancel(ctx)
	e := &StartError{Service: g.slots[last].name, Attempts: attempts, Err: cause}
	for i := last; i >= 0; i-- {
		if err := g.stopOne(ctx, i, (*slot).stop); err != nil {
			e.StopErrors = append(e.StopErrors, fmt.Errorf("stop %s: %w", g.slots[i].name, err))
			e.Left = g.names(i)
			break
		}
		if i < last {
			e.Stopped = append(e.Stopped, g.slots[i].name)
		}
		if i == last { // stopped cleanly, but it is why the resource does not run
			g.set(i, Progress{Now: Failed, Err: cause})
		}
	}
	return e
}

// names lists services i to 0.
func (g *Group) names(i int) (all []string) {
	for ; i >= 0; i-- {
		all = append(all, g.slots[i].name)
	}
	return all
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

// Stop stops every service in reverse order, whether it is known to run or
// not, and interrupts a Start. At the first that fails it ends with a
// *StopError: those started before may be what it depends on.
func (g *Group) Stop(ctx context.Context) error {
	done, err := g.overrule(ctx)
	if err != nil {
		return err
	}
	defer done()
	for i := len(g.slots) - 1; i >= 0; i-- {
		if err := g.stopOne(ctx, i, (*slot).stop); err != nil {
			return &StopError{Service: g.slots[i].name, Err: err, Left: g.names(i)}
		}
	}
	return nil
}

// StopForced stops every service in reverse order by force where it has one,
// goes on whatever fails, and returns all errors joined, each a *StopError.
func (g *Group) StopForced(ctx context.Context) error {
	done, err := g.overrule(ctx)
	if err != nil {
		return err
	}
	defer done()
	var all error
	for i := len(g.slots) - 1; i >= 0; i-- {
		if err := g.stopOne(ctx, i, (*slot).stopForced); err != nil {
			name := g.slots[i].name
			all = errors.Join(all, &StopError{Service: name, Err: err, Left: []string{name}})
		}
	}
	return all
}

// overrule ends a Start under way and takes the turn.
func (g *Group) overrule(ctx context.Context) (done func(), err error) {
	g.countStop(+1)
	if err := g.acquire(ctx); err != nil {
		g.countStop(-1)
		return nil, err
	}
	return func() {
		g.countStop(-1)
		g.release()
	}, nil
}

func (g *Group) countStop(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.stops += n
	if n > 0 && g.mu.cancel != nil {
		g.mu.cancel(ErrOverruled)
	}
}

// Check asks every service whether it runs and returns the status afterwards.
// One that was running and is not any more is Failed.
func (g *Group) Check(ctx context.Context) ([]Status, error) {
	if err := g.acquire(ctx); err != nil {
		return nil, err
	}
	defer g.release()
	for i, s := range g.slots {
		running, err := s.monitor(ctx)
		g.set(i, judge(g.Status()[i], running, err))
	}
	return g.Status(), nil
}

// errFoundDown is a service's error when nobody stopped it.
var errFoundDown = errors.New("found stopped although it should run")

func judge(was Status, running bool, err error) Progress {
	switch {
	case running:
		return Progress{Now: Running, Err: err}
	case err != nil:
		return Progress{Now: Unknown, Err: err}
	case was.State == Failed && was.Error != nil:
		return Progress{Now: Failed, Err: was.Error} // the first reason is the better one
	case was.State == Running:
		return Progress{Now: Failed, Err: errFoundDown}
	default:
		return Progress{Now: Stopped}
	}
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
	s.Error = p.Err
	g.mu.Unlock()
	if same {
		return
	}
	g.log.Info("service", zap.String("service", p.Service), zap.String("was", string(p.Was)), zap.String("now", string(p.Now)),
		zap.Int("attempt", p.Attempt), zap.Duration("took", p.Took), zap.NamedError("because", p.Err))
	if g.cfg.Progress != nil {
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
