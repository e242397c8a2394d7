package service

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"hapair/kernel/program"
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
	end := program.Ended{Code: e.Code, Signal: e.Signal, Output: e.Output}
	return fmt.Sprintf("%s command %q: %s", e.Action, e.Command, end.Text(e.Cause, e.Means))
}

// Unwrap returns the cause.
func (e *ExecError) Unwrap() error { return e.Cause }

// exited reports whether the command ended by itself, and so has said what it had to
// say: it was neither killed nor kept from running.
func (e *ExecError) exited() bool { return e.Cause == nil && e.Code >= 0 }

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
	into   *[]byte // takes its standard output; nil: that is collected with its errors
}

// run carries one command through. It returns nil or an *ExecError.
func (e *commands) run(ctx context.Context, c invocation) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.limit, fmt.Errorf("%w: %s", ErrTimeout, c.limit))
	defer cancel()
	fail := &ExecError{Action: c.action, Command: strings.Join(c.argv, " "), Code: -1}
	if fail.Cause = e.executable(ctx, c.argv[0]); fail.Cause != nil {
		return fail
	}
	cmd := program.Command{Argv: c.argv, Env: c.env}
	if c.into != nil {
		cmd.ApartMax = ocfMetadataMax
	}
	end, cause := program.Run(ctx, cmd)
	fail.Cause, fail.Code, fail.Signal, fail.Output = cause, end.Code, end.Signal, end.Output
	if c.into != nil {
		*c.into = end.Apart
	}
	e.logEnd(fail, c.quiet, end.Took)
	if cause == nil && fail.Code == 0 {
		return nil
	}
	return fail
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
