package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"hapair/kernel/program"
)

// Exec is a service kept by commands of the operator's own. Each is an
// argument list; Shell makes one of a line.
//
// A command runs in a session of its own with HAPAIR_RESOURCE, HAPAIR_NODE,
// HAPAIR_DEVICE (of volume 0), PATH, HOME and LANG, and nothing else but what
// the shell adds through which it is started (PWD). Start may
// leave a process behind; so that it outlives the agent, what it prints after
// the command has ended is lost.
type Exec struct {
	Label string   // "": the base name of the start command
	Start []string // exit 0: started
	Stop  []string // exit 0: stopped; must succeed when it is stopped already
	// Status exits 0 when running; 1, 2, 3 (LSB) or 7 (OCF) when not; with anything
	// else when it is broken. Empty: what the last start or stop achieved, and before
	// the first one, nothing is known: an earlier life of the agent may have started it.
	Status []string

	StartTimeout  time.Duration // 0: DefaultExecTimeout
	StopTimeout   time.Duration // 0: DefaultExecTimeout
	StatusTimeout time.Duration // 0: DefaultStatusTimeout
}

// Default time-outs of commands.
const (
	DefaultExecTimeout   = 60 * time.Second
	DefaultStatusTimeout = 20 * time.Second
)

// timeouts sets those that are not given.
func timeouts(start, stop, status *time.Duration) error {
	for _, d := range []*time.Duration{start, stop, status} {
		switch {
		case *d < 0:
			return fmt.Errorf("time-out %s must not be negative", *d)
		case *d > 0:
		case d == status:
			*d = DefaultStatusTimeout
		default:
			*d = DefaultExecTimeout
		}
	}
	return nil
}

// Shell returns the argument list that runs line in the shell.
func Shell(line string) []string { return []string{"/bin/sh", "-c", line} }

type execService struct {
	cfg     Exec
	deps    Deps
	asked   bool // it was started or stopped; used without a status command, as is running
	running bool
	commands
}

func newExec(cfg Exec, deps Deps) (Movable, error) {
	if len(cfg.Start) == 0 || len(cfg.Stop) == 0 {
		return nil, errors.New("exec: start and stop commands are both needed")
	}
	if cfg.Label == "" {
		cfg.Label = filepath.Base(cfg.Start[0])
	}
	for _, c := range [][]string{cfg.Start, cfg.Stop, cfg.Status} {
		if len(c) > 0 && !filepath.IsAbs(c[0]) {
			return nil, fmt.Errorf("exec %s: command %q must be an absolute path", cfg.Label, c[0])
		}
	}
	if err := timeouts(&cfg.StartTimeout, &cfg.StopTimeout, &cfg.StatusTimeout); err != nil {
		return nil, fmt.Errorf("exec %s: %w", cfg.Label, err)
	}
	return &execService{cfg: cfg, deps: deps, commands: commands{log: deps.Logger.With(zap.String("exec", cfg.Label))}}, nil
}

func (e *execService) Name() string { return "exec:" + e.cfg.Label }

// errNotAsked is what is known of a service without a status command before its first
// start or stop.
var errNotAsked = errors.New("there is no status command, and it was neither started nor stopped since the agent began")

// Start starts what does not run. What is broken, or cannot be told, is stopped first:
// it may run.
func (e *execService) Start(ctx context.Context) error {
	running, err := e.Monitor(ctx)
	switch {
	case running:
		return nil
	case err != nil:
		if stopErr := e.Stop(ctx); stopErr != nil {
			return fmt.Errorf("it may run (%w), and: %w", err, stopErr)
		}
	}
	if err := e.do(ctx, "start", e.cfg.Start, e.cfg.StartTimeout); err != nil {
		return err
	}
	e.asked, e.running = true, true
	return nil
}

// Stop stops it. Where the program is not there, on a file system of the resource's own
// that is not mounted, nothing was started from it.
func (e *execService) Stop(ctx context.Context) error {
	if err := e.do(ctx, "stop", e.cfg.Stop, e.cfg.StopTimeout); err != nil && !e.neverHere(err) {
		return err
	}
	e.asked, e.running = true, false
	return nil
}

// neverHere tells a program that is not there before anything was started from one that
// was there and is gone.
func (e *execService) neverHere(err error) bool { return errors.Is(err, fs.ErrNotExist) && !e.asked }

func (e *execService) Monitor(ctx context.Context) (bool, error) {
	switch {
	case len(e.cfg.Status) > 0:
		return e.status(ctx)
	case !e.asked:
		return false, fmt.Errorf("exec %s: %w", e.cfg.Label, errNotAsked)
	}
	return e.running, nil
}

func (e *execService) status(ctx context.Context) (running bool, err error) {
	err = e.do(ctx, "status", e.cfg.Status, e.cfg.StatusTimeout)
	var failed *ExecError
	if errors.As(err, &failed) && failed.exited() {
		switch failed.Code {
		case 1, 2, 3, 7:
			return false, nil
		}
		return false, broken{err}
	}
	if e.neverHere(err) {
		return false, nil
	}
	return err == nil, err
}

func (e *execService) do(ctx context.Context, action string, argv []string, limit time.Duration) error {
	device, err := e.deps.device(0)
	if err != nil {
		e.log.Warn("command runs without HAPAIR_DEVICE", zap.Error(err))
	}
	env := append(program.Environment(), "HAPAIR_RESOURCE="+e.deps.Resource, "HAPAIR_NODE="+e.deps.Node, "HAPAIR_DEVICE="+device)
	return e.run(ctx, invocation{action: action, argv: argv, env: env, limit: limit, quiet: action == "status"})
}
