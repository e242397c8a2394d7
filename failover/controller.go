package failover

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/failover/lease"
	"hapair/failover/plan"
)

// Config is what a Controller is made of.
type Config struct {
	Resource string
	Self     string // this node
	Peer     string // the other data node
	Settings plan.Settings
	// Arbitration, if set, is the one in force, in place of that of Settings: it changes
	// while the controller runs. Fencing only where Settings say so.
	Arbitration func() plan.Arbitration
	Policies    map[string]plan.FailurePolicy // of services that have one of their own, by name
	Needs       Needs
	Clock       lease.Clock
	Log         *zap.Logger
	// Events is called with every fresh journal entry, from the controller's
	// goroutines: it must not block and must not call the controller.
	Events func(Entry)

	Wall  func() time.Time          // nil: time.Now
	Timer func(time.Duration) Timer // nil: real timers, on the monotonic clock
}

// Limits of the loop.
const (
	ledgerTimeout = 5 * time.Second        // one change of the ledger
	forcedTimeout = 500 * time.Millisecond // the same, before something is done by force without it
	hintTimeout   = 2 * time.Second        // one hint to the peer
	mirrorTimeout = 60 * time.Second       // promotion or demotion of the mirror
	abortPatience = time.Second            // for a broken-off step, and for forced stops before the front end is aborted
	causesMax     = 8                      // causes kept for one look
	lookEvery     = 500 * time.Millisecond
	repeatsMax    = 3  // successes of one step without a visible effect
	repeatsFor    = 11 // retry delays within which a success counts as repeated: longer than any plan waits
)

// Controller keeps one resource on one node where it belongs. Run must be
// running for anything to happen; all other methods are safe for concurrent
// use.
type Controller struct {
	cfg     Config
	needs   Needs
	log     *zap.Logger
	journal Journal
	wake    chan struct{} // capacity 1: something changed
	stopped chan struct{} // closed when Run has returned

	mu struct {
		sync.Mutex
		memory
		causes []string
		status Status
		closed bool
	}

	// owned by Run
	running  *runningStep
	last     plan.Decision
	story    story
	done     plan.Kind // the last step that succeeded
	doneAt   time.Duration
	repeats  int
	tried    lease.Token    // the tenure under which the services were started, or did not come up
	unstayed time.Duration  // when the note of an operator's move was last taken away
	stepping sync.WaitGroup // step goroutines, broken-off ones too

	following sync.WaitGroup // what waits for the end of requests
}

// runningStep is the one step that is under way.
type runningStep struct {
	step    plan.Step
	because string
	started time.Duration
	tenure  lease.Token // when it began
	cancel  context.CancelFunc
	broken  time.Duration // when it was broken off
	result  chan error    // capacity 1
}

// New returns a Controller. It does nothing until Run.
func New(cfg Config) (*Controller, error) {
	n := cfg.Needs
	switch {
	case cfg.Resource == "" || cfg.Self == "" || cfg.Peer == "" || cfg.Self == cfg.Peer:
		return nil, fmt.Errorf("failover: resource %q of nodes %q and %q: all three must be named, the nodes differ", cfg.Resource, cfg.Self, cfg.Peer)
	case cfg.Clock == nil || cfg.Log == nil:
		return nil, fmt.Errorf("failover %s: a clock and a logger are needed", cfg.Resource)
	case n.Ledger == nil || n.Leases == nil || n.Group == nil || n.Marks == nil || n.Mirror == nil || n.Heartbeat == nil || n.Peers == nil:
		return nil, fmt.Errorf("failover %s: a need is not filled: %+v", cfg.Resource, n)
	case cfg.Settings.HasServices && n.Services == nil:
		return nil, fmt.Errorf("failover %s: services are configured but there is nobody to start them", cfg.Resource)
	}
	if (cfg.Settings.Arbitration == plan.Fencing) != (n.Fencer != nil) {
		return nil, fmt.Errorf("failover %s: arbitration is by %s, and there is a fencer: %t", cfg.Resource, cfg.Settings.Arbitration, n.Fencer != nil)
	}
	if err := cfg.Settings.Validate(); err != nil {
		return nil, fmt.Errorf("failover %s: %w", cfg.Resource, err)
	}
	for name, p := range cfg.Policies {
		if err := p.Validate(cfg.Settings.RetryDelay); err != nil {
			return nil, fmt.Errorf("failover %s: failures of %s: %w", cfg.Resource, name, err)
		}
	}
	if cfg.Wall == nil {
		cfg.Wall = time.Now
	}
	if cfg.Timer == nil {
		cfg.Timer = newRealTimer
	}
	c := &Controller{cfg: cfg, needs: n, wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	c.log = cfg.Log.With(zap.String("resource", cfg.Resource), zap.String("node", cfg.Self))
	c.mu.started = cfg.Clock()
	c.mu.failures = plan.NewFailureLog(cfg.Settings.Failures, cfg.Policies)
	return c, nil
}

// Wake tells the controller that something it reads has changed. It never
// blocks. cause appears in the journal ("lease lapsed").
func (c *Controller) Wake(cause string) {
	c.mu.Lock()
	if len(c.mu.causes) < causesMax && cause != "" {
		c.mu.causes = append(c.mu.causes, cause)
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run looks, decides and acts until ctx ends, and returns when no step is
// under way any more. It demotes nothing: an agent that restarts finds its
// resources as it left them. See Leave for an orderly stop. It is called once.
func (c *Controller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer c.following.Wait()
	defer c.close()
	defer c.stepping.Wait()
	defer cancel()
	for {
		v, d := c.decide()
		at := c.act(ctx, v, d)
		c.publish(v, d)
		c.arrived(v, d)
		c.tellDenied(ctx)
		if !c.waitFor(ctx, at) {
			return nil
		}
	}
}

// waitFor blocks until there is reason to look again; false means to stop. at
// is the instant to look at the latest, 0 for lookEvery from now: not every
// change of the world has an event of its own, such as a ledger that has been
// read and is empty.
func (c *Controller) waitFor(ctx context.Context, at time.Duration) bool {
	wait := lookEvery
	if at != 0 {
		wait = min(max(at-c.cfg.Clock(), 0), lookEvery)
	}
	t := c.cfg.Timer(wait)
	defer t.Stop()
	var result chan error
	if c.running != nil {
		result = c.running.result
	}
	select {
	case <-ctx.Done():
		return false
	case <-c.wake:
	case <-t.C():
	case err := <-result:
		c.finish(err)
	}
	return true
}

// decide looks at the world and asks the plan, again when that ended the
// operator's request: the plan without it is another one.
func (c *Controller) decide() (plan.View, plan.Decision) {
	for {
		v := c.look()
		v.Tried = v.Tenure != 0 && v.Tenure == c.tried
		if r := c.running; r != nil && (r.step.Kind == plan.StartServices || r.step.Kind == plan.RestartServices) && v.Services.State == plan.Broken {
			// The step fails by itself in a moment, and its error is what
			// counts: broken off it would not be counted at all.
			v.Services.State = plan.Partial
		}
		d := plan.Next(v)
		if v.Wish.Kind == plan.NoWish || !c.answer(v, d) {
			return v, d
		}
	}
}

// act starts the step that is due, or breaks off the one that must not go on.
// It returns when to look again at the latest.
func (c *Controller) act(ctx context.Context, v plan.View, d plan.Decision) time.Duration {
	step, at := d.First(), d.At
	if r := c.running; r != nil {
		if !d.Preempts(r.step) {
			return at
		}
		if r.broken == 0 {
			r.broken = v.Now
			r.cancel()
			c.log.Warn("step broken off", zap.String("was", r.step.String()), zap.String("now", step.String()), zap.String("because", d.Because))
		}
		if patience := r.broken + abortPatience; v.Now < patience {
			return patience
		}
		c.log.Error("a step does not end; going on without it", zap.String("was", r.step.String()), zap.String("now", step.String()))
		c.setRunning(nil, v.Now) // its goroutine wakes the loop when it ends
	}
	if step.Kind == plan.Nothing {
		return at
	}
	c.begin(ctx, v, step, d.Because)
	return at
}

// begin carries out one step in a goroutine of its own.
func (c *Controller) begin(ctx context.Context, v plan.View, step plan.Step, because string) {
	ctx, cancel := context.WithCancel(ctx)
	r := &runningStep{step: step, because: because, started: v.Now, tenure: v.Tenure, cancel: cancel, result: make(chan error, 1)}
	c.setRunning(r, v.Now)
	c.story.begins(v, step.Kind, because)
	c.stepping.Go(func() {
		defer cancel()
		r.result <- c.perform(ctx, v, step, because)
		c.Wake("")
	})
}

// setRunning notes which step is under way, nil for none. No failure is forgotten while
// one starts services.
func (c *Controller) setRunning(r *runningStep, now time.Duration) {
	c.running = r
	c.mu.Lock()
	defer c.mu.Unlock()
	if r != nil && (r.step.Kind == plan.StartServices || r.step.Kind == plan.RestartServices) {
		c.mu.failures.Hold(now)
	} else {
		c.mu.failures.Release(now)
	}
}

// finish takes note of a step's outcome.
func (c *Controller) finish(err error) {
	r, now := c.running, c.cfg.Clock()
	c.setRunning(nil, now)
	c.remember(r)
	took := now - r.started
	if err == nil {
		c.succeeded(r, now, took)
		return
	}
	c.done, c.repeats = plan.Nothing, 0
	if r.broken != 0 { // its failure is ours
		c.note(Entry{Kind: EntryFailed, Text: r.step.String() + " broken off", Cause: r.because, Took: took})
		return
	}
	answered := c.failed(r, now, err)
	if errors.Is(err, ErrOvertaken) {
		c.note(Entry{Kind: EntryOvertaken, Text: r.step.String() + " came too late: the record has changed meanwhile", Cause: r.because, Took: took})
		c.log.Info("step overtaken", zap.Stringer("asked", r.step), zap.String("because", r.because), zap.Duration("took", took), zap.Error(err))
		return
	}
	c.note(Entry{Kind: EntryFailed, Text: fmt.Sprintf("%s failed: %v", r.step, err), Cause: r.because, Took: took, Answered: answered})
	c.log.Warn("step failed", zap.Stringer("asked", r.step), zap.String("because", r.because), zap.Duration("took", took), zap.Error(err))
}

// remember notes whether the services have had their start under this tenure. One
// that was broken off was none, and what is stopped here is to be started again when
// what it was stopped for came to nothing.
func (c *Controller) remember(r *runningStep) {
	switch r.step.Kind {
	case plan.StopServices, plan.AbortLost:
		c.tried = 0
	case plan.StartServices, plan.RestartServices:
		if r.broken == 0 {
			c.tried = r.tenure
		}
	default: // says nothing about services
	}
}

func (c *Controller) succeeded(r *runningStep, now, took time.Duration) {
	kind := r.step.Kind
	if kind != plan.AskLapsed {
		entry := Entry{Kind: EntryStep, Text: r.step.String(), Cause: r.because, Took: took}
		if kind == plan.AbortLost {
			entry.Kind = EntryLost
		}
		c.note(entry)
		c.log.Info("step done", zap.Stringer("asked", r.step), zap.String("because", r.because), zap.Duration("took", took))
	}
	if e, ok := c.story.ends(c.cfg, kind, now, took); ok {
		c.note(e)
	}
	c.repeats++
	if kind != c.done || now > c.doneAt+repeatsFor*c.cfg.Settings.RetryDelay || kind == plan.AskLapsed {
		c.repeats = 1
	}
	c.done, c.doneAt = kind, now
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.trouble = plan.Trouble{}
	if c.repeats >= repeatsMax {
		c.mu.trouble = plan.Trouble{Step: kind, Text: "done, but its effect is not seen", At: now, Count: c.repeats}
	}
}

// failed remembers a failure: for the next attempt, for the peer, and for the
// operator who asked. It reports whether that one was answered with it.
func (c *Controller) failed(r *runningStep, now time.Duration, err error) (answered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, kind := &c.mu.memory, r.step.Kind
	if m.trouble.Step != kind {
		m.trouble = plan.Trouble{Step: kind}
	}
	m.trouble.Count++
	m.trouble.Text, m.trouble.At = err.Error(), now
	switch kind {
	case plan.MirrorPromote, plan.StartServices, plan.RestartServices:
		m.trouble = plan.Trouble{} // the plan counts these itself
		if errors.Is(err, ErrNotStopped) {
			m.stopFailed = true
			break
		}
		m.failures.Add(now, serviceOf(err), fmt.Sprintf("%s: %v", kind, err))
	case plan.StopServices:
		m.stopFailed = true
	default: // trouble alone: it is tried again later
	}
	req := m.request
	if req != nil && endsRequest(r.step, req.wish) {
		m.trouble = plan.Trouble{}
		m.end(&StepError{Resource: c.cfg.Resource, Step: kind, Err: err})
		return true
	}
	return false
}

// endsRequest reports whether the failure of a step is the answer to the wish, not
// something to try again while the operator waits. One that was begun in order is none
// to who asks by force.
func endsRequest(s plan.Step, w plan.Wish) bool {
	switch s.Kind {
	case plan.StopServices, plan.MirrorDemote:
		return w.Kind != plan.Promote && (s.Force || !w.Force)
	case plan.AskPeer, plan.ForceAlone:
		return true
	default: // the next attempt may do it
		return false
	}
}

// publish stores the status and tells when what is waited for changed.
func (c *Controller) publish(v plan.View, d plan.Decision) {
	if e, ok := c.story.settles(c.cfg, v, d); ok {
		c.note(e)
		c.log.Info("promoted", zap.Uint64("token", uint64(v.Ledger.Record.Token)), zap.String("now", e.String()))
	}
	if len(d.Steps) == 0 && d.Code != c.last.Code {
		c.note(Entry{Kind: EntryWait, Text: d.Because})
		c.log.Info("waits", zap.String("was", string(c.last.Code)), zap.String("now", string(d.Code)), zap.String("because", d.Because))
	}
	c.last = d
	s := Status{View: v, Decision: d}
	if c.running != nil {
		s.Running, s.RunningSince = c.running.step, c.running.started
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.status = s
}

// note fills in and keeps a journal entry.
func (c *Controller) note(e Entry) {
	e.At, e.Wall, e.Resource, e.Node = c.cfg.Clock(), c.cfg.Wall(), c.cfg.Resource, c.cfg.Self
	if e.Token == 0 {
		e.Token = c.record().Token
	}
	if stored, fresh := c.journal.add(e); fresh && c.cfg.Events != nil {
		c.cfg.Events(stored)
	}
}

// Journal returns the timeline of this controller.
func (c *Controller) Journal() *Journal { return &c.journal }

// close answers whoever still waits.
func (c *Controller) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.closed = true
	c.mu.end(fmt.Errorf("failover %s: %w", c.cfg.Resource, ErrStopped))
	close(c.stopped)
}
