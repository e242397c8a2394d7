package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// ExecError is returned when a command fails.
type ExecError struct {
	Action  string // start, stop, status and such
	Command string
	Code    int    // exit code; -1: none
	Signal  string // what ended it, "" for an exit
	Output  string // the end of what it printed
	Means   string // what the exit code means, where that is agreed
	Cause   error  // time-out, cancellation, could not be run; nil otherwise
}

// Error says how it ended and what it said.
func (e *ExecError) Error() string {
	how := fmt.Sprintf("exit code %d", e.Code)
	if e.Means != "" {
		how += " (" + e.Means + ")"
	}
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

// commands runs the commands of one service, one at a time.
type commands struct {
	log   *zap.Logger
	calls calls
}

// invocation is one of them.
type invocation struct {
	action string // start, stop, status and such
	argv   []string
	env    []string // all of it
	limit  time.Duration
	quiet  bool    // it is run all the time, and its end belongs into no log
	into   *output // takes its standard output; nil: that is collected with its errors
}

// run carries one command through. It returns nil or an *ExecError.
func (e *commands) run(ctx context.Context, c invocation) error {
	argv, limit := c.argv, c.limit
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w: %s", ErrTimeout, limit))
	defer cancel()
	fail := &ExecError{Action: c.action, Command: strings.Join(argv, " "), Code: -1}
	if fail.Cause = e.executable(ctx, argv[0]); fail.Cause != nil {
		return fail
	}
	out, err := newOutput(outputBytesMax)
	if err != nil {
		fail.Cause = err
		return fail
	}
	cmd := throughShell(argv)
	cmd.Env, cmd.Dir = c.env, "/"
	cmd.Stdout, cmd.Stderr = out.child, out.child
	if c.into != nil {
		cmd.Stdout = c.into.child
	}
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
	e.logEnd(fail, c.quiet, time.Since(begin))
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
func (e *commands) executable(ctx context.Context, path string) error {
	err := e.calls.slowly(ctx, "look at", path, func() error { return unix.Access(path, unix.X_OK) })
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
		return permanent{fmt.Errorf("look at %s: %w", path, err)}
	}
	return err
}

func (e *commands) logEnd(f *ExecError, quiet bool, took time.Duration) {
	log := e.log.Info
	if quiet {
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

// environment is what every command is told, whatever the agent's own is.
func environment() []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return []string{"PATH=" + path, "HOME=/root", "LANG=C.UTF-8"}
}
