package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
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
	// Status exits 0 when running; 1, 2, 3 (LSB) or 7 (OCF) when not; anything
	// else: unknown. Empty: what the last start or stop achieved.
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

// Shell returns the argument list that runs line in the shell.
func Shell(line string) []string { return []string{"/bin/sh", "-c", line} }

// ExecError is returned when a command fails.
type ExecError struct {
	Action  string // start, stop or status
	Command string
	Code    int    // exit code; -1: none
	Signal  string // what ended it, "" for an exit
	Output  string // the end of what it printed
	Cause   error  // time-out, cancellation, could not be run; nil otherwise
}

// Error says how it ended and what it said.
func (e *ExecError) Error() string {
	how := fmt.Sprintf("exit code %d", e.Code)
	switch {
	case e.Cause != nil:
		how = e.Cause.Error()
	case e.Signal != "":
		how = "ended by signal " + e.Signal
	}
	text := fmt.Sprintf("%s command %q: %s", e.Action, e.Command, how)
	if e.Output != "" {
		text += ": " + e.Output
	}
	return text
}

// Unwrap returns the cause.
func (e *ExecError) Unwrap() error { return e.Cause }

type execService struct {
	cfg     Exec
	deps    Deps
	log     *zap.Logger
	running bool // used without a status command
	calls   calls
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
	for _, d := range []*time.Duration{&cfg.StartTimeout, &cfg.StopTimeout, &cfg.StatusTimeout} {
		if *d < 0 {
			return nil, fmt.Errorf("exec %s: time-out %s must not be negative", cfg.Label, *d)
		}
		if *d == 0 {
			*d = DefaultExecTimeout
			if d == &cfg.StatusTimeout {
				*d = DefaultStatusTimeout
			}
		}
	}
	return &execService{cfg: cfg, deps: deps, log: deps.Logger.With(zap.String("exec", cfg.Label))}, nil
}

func (e *execService) Name() string { return "exec:" + e.cfg.Label }

func (e *execService) Start(ctx context.Context) error {
	if running, err := e.Monitor(ctx); running && err == nil {
		return nil
	}
	if err := e.run(ctx, "start", e.cfg.Start, e.cfg.StartTimeout); err != nil {
		return err
	}
	e.running = true
	return nil
}

func (e *execService) Stop(ctx context.Context) error {
	if err := e.run(ctx, "stop", e.cfg.Stop, e.cfg.StopTimeout); err != nil {
		return err
	}
	e.running = false
	return nil
}

func (e *execService) Monitor(ctx context.Context) (bool, error) {
	if len(e.cfg.Status) == 0 {
		return e.running, nil
	}
	err := e.run(ctx, "status", e.cfg.Status, e.cfg.StatusTimeout)
	var failed *ExecError
	if errors.As(err, &failed) && failed.Cause == nil {
		switch failed.Code {
		case 1, 2, 3, 7:
			return false, nil
		}
	}
	return err == nil, err
}

// run carries one command through. It returns nil or an *ExecError.
func (e *execService) run(ctx context.Context, action string, argv []string, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w: %s", ErrTimeout, limit))
	defer cancel()
	fail := &ExecError{Action: action, Command: strings.Join(argv, " "), Code: -1}
	if fail.Cause = e.executable(ctx, argv[0]); fail.Cause != nil {
		return fail
	}
	out, err := newOutput()
	if err != nil {
		fail.Cause = err
		return fail
	}
	cmd := throughShell(argv)
	cmd.Env, cmd.Dir = e.environment(), "/"
	cmd.Stdout, cmd.Stderr = out.child, out.child
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		out.close()
		fail.Cause = err
		return fail
	}
	begin := time.Now()
	ended, cause := superviseGroup(ctx, cmd, out)
	fail.Cause, fail.Output = cause, out.text()
	if ended {
		fail.Code = cmd.ProcessState.ExitCode()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			fail.Signal = ws.Signal().String()
		}
	}
	e.logEnd(fail, time.Since(begin))
	if cause == nil && fail.Code == 0 {
		return nil
	}
	return fail
}

// throughShell starts argv through the shell, which becomes it. The program may lie
// on a device of ours. A process has all that the agent has open until its first
// program is loaded: it must not wait for the device with /dev/fuse, and no other
// process can be started before it has done with waiting.
func throughShell(argv []string) *exec.Cmd {
	return exec.Command("/bin/sh", append([]string{"-c", `exec "$@"`, "sh"}, argv...)...)
}

// executable tells a program that is not there from one that fails.
func (e *execService) executable(ctx context.Context, path string) error {
	err := e.calls.slowly(ctx, "look at", path, func() error { return unix.Access(path, unix.X_OK) })
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
		return permanent{fmt.Errorf("look at %s: %w", path, err)}
	}
	return err
}

// logEnd keeps the log of a status command that is asked all the time short.
func (e *execService) logEnd(f *ExecError, took time.Duration) {
	log := e.log.Info
	if f.Action == "status" {
		log = e.log.Debug
	}
	log("command ended", zap.String("action", f.Action), zap.Int("code", f.Code), zap.String("signal", f.Signal),
		zap.Error(f.Cause), zap.Duration("took", took), zap.String("output", f.Output))
}

// errUnkillable is the cause when a command does not even heed SIGKILL.
var errUnkillable = errors.New("cannot be killed (a process waits for I/O that does not end)")

// superviseGroup waits for the command and, when ctx ends first, ends its
// process group: politely, then not. It returns why it was ended, and whether
// cmd.ProcessState may be read.
func superviseGroup(ctx context.Context, cmd *exec.Cmd, out *output) (ended bool, cause error) {
	waited := make(chan struct{})
	var waitErr error
	out.drain()
	go func() {
		waitErr = cmd.Wait()
		out.finish()
		close(waited)
	}()
	var exit *exec.ExitError
	select {
	case <-waited:
		if waitErr != nil && !errors.As(waitErr, &exit) {
			return true, waitErr
		}
		return true, nil
	case <-ctx.Done():
	}
	group := -cmd.Process.Pid // a session of its own: also a group
	signalGroup(group, unix.SIGTERM)
	within(waited, settle)
	signalGroup(group, unix.SIGKILL) // the rest of it, also when the command itself has ended
	if !within(waited, settle) {
		return false, fmt.Errorf("%w, and %w", context.Cause(ctx), errUnkillable)
	}
	return true, context.Cause(ctx)
}

func within(done <-chan struct{}, limit time.Duration) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

func signalGroup(group int, s unix.Signal) {
	_ = unix.Kill(group, s) // fails only when the group is gone
}

func (e *execService) environment() []string {
	device, err := e.deps.device(0)
	if err != nil {
		e.log.Warn("command runs without HAPAIR_DEVICE", zap.Error(err))
	}
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return []string{
		"HAPAIR_RESOURCE=" + e.deps.Resource, "HAPAIR_NODE=" + e.deps.Node, "HAPAIR_DEVICE=" + device,
		"PATH=" + path, "HOME=/root", "LANG=C.UTF-8",
	}
}
