// Package program runs programs of others with bounds: on their time, with
// everything they start, and on what is kept of what they print. It decides
// nothing about what an exit code means.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hapair/kernel/writeout"
)

// Command is one program to run.
type Command struct {
	Argv []string // the program's absolute path first
	Env  []string // all of it; see Environment
	// Input is what it finds on its standard input, at most InputMax bytes; it is
	// not seen by other users of the machine, as arguments are. nil: nothing.
	Input []byte
	// ApartMax, when not 0, keeps the last bytes of its standard output apart from
	// its errors, at most so many.
	ApartMax int
	// Hide lists what is shown as *** in what is kept of its output.
	Hide []string
	// Tied has the kernel kill the program when this process ends, however that comes
	// about: nobody would bound its time any more. What it has started itself lives on.
	Tied bool
}

// The bounds.
const (
	InputMax  = 32 << 10        // fits into a pipe: nobody waits for the program to read
	Settle    = 2 * time.Second // what it is given after SIGTERM, and again after SIGKILL
	keptMax   = 16 << 10        // of what it prints
	outputMax = 2000            // of it, as text
)

// Ended says how a program ended.
type Ended struct {
	Code   int    // exit code; -1: none
	Signal string // what ended it, "" for an exit
	Output string // the end of what it printed, on one line
	Apart  []byte // of its standard output, with ApartMax
	Took   time.Duration
}

// Text says how it ended and what it printed. cause is Run's error, and means what
// the exit code means, "" when that is not known.
func (e Ended) Text(cause error, means string) string {
	text := fmt.Sprintf("exit code %d", e.Code)
	switch {
	case cause != nil:
		text = cause.Error()
	case e.Signal != "":
		text = "ended by signal " + e.Signal
	case means != "":
		text += " (" + means + ")"
	}
	if e.Output != "" {
		text += ": " + e.Output
	}
	return text
}

// ErrUnkillable is wrapped by Run's error when the program does not even heed
// SIGKILL. It still runs then.
var ErrUnkillable = errors.New("cannot be killed (a process waits for I/O that does not end)")

// Run runs a program in a session of its own and waits for its end. When ctx ends
// first its process group is ended: politely, and after Settle not. The error is
// nil when the program ended by itself, whatever its exit code. A program may leave
// processes behind: what they print is lost, and they never wait for it.
func Run(ctx context.Context, c Command) (Ended, error) {
	end := Ended{Code: -1}
	if len(c.Input) > InputMax {
		return end, fmt.Errorf("input of %d bytes: at most %d", len(c.Input), InputMax)
	}
	if ctx.Err() != nil {
		return end, context.Cause(ctx)
	}
	cmd, outs, err := prepare(c)
	if err != nil {
		return end, err
	}
	begin := time.Now()
	waited := make(chan struct{})
	if c.Tied {
		err = startTied(cmd, c.Input, waited)
	} else {
		err = start(cmd, c.Input)
	}
	if err != nil {
		for _, o := range outs {
			o.close()
		}
		return end, err
	}
	ended, cause := supervise(ctx, cmd, outs, waited)
	end.Took, end.Output = time.Since(begin), Tail(hide(outs[0].bytes(), keptMax, c.Hide), outputMax)
	if c.ApartMax > 0 {
		end.Apart = hide(outs[1].bytes(), c.ApartMax, c.Hide)
	}
	if ended {
		end.Code = cmd.ProcessState.ExitCode()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			end.Signal = ws.Signal().String()
		}
	}
	return end, cause
}

// prepare makes what is to be started, and what takes its output: all of it or, with
// ApartMax, errors and standard output.
func prepare(c Command) (cmd *exec.Cmd, outs []*output, err error) {
	all, err := newOutput(keptMax)
	if err != nil {
		return nil, nil, err
	}
	cmd = throughShell(c.Argv)
	cmd.Env, cmd.Dir = c.Env, "/"
	cmd.Stdout, cmd.Stderr = all.child, all.child
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	outs = []*output{all}
	if c.ApartMax > 0 {
		apart, err := newOutput(c.ApartMax)
		if err != nil {
			all.close()
			return nil, nil, err
		}
		cmd.Stdout = apart.child
		outs = append(outs, apart)
	}
	return cmd, outs, nil
}

// hide takes words out of b, and its first line when it may have been cut to
// bytesMax: that may begin within one.
func hide(b []byte, bytesMax int, words []string) []byte {
	if len(words) == 0 {
		return b
	}
	if len(b) >= bytesMax {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	for _, w := range words {
		if w != "" {
			b = bytes.ReplaceAll(b, []byte(w), []byte("***"))
		}
	}
	return b
}

// start starts cmd, which is no part of the kernel's way to the disk, with input,
// which is in the pipe before anybody reads it.
func start(cmd *exec.Cmd, input []byte) error {
	if input == nil {
		return writeout.Ordinary(cmd.Start)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe for input: %w", err)
	}
	defer r.Close() //nolint:errcheck // the program has its own copy
	_, err = w.Write(input)
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("fill the pipe for input: %w", err)
	}
	cmd.Stdin = r
	return writeout.Ordinary(cmd.Start)
}

// startTied starts cmd so that it is killed when this process ends. To the kernel that
// is the end of the thread that has started it, and the runtime ends threads that a
// goroutine has left locked: this one is held until waited is closed.
func startTied(cmd *exec.Cmd, input []byte, waited <-chan struct{}) error {
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := start(cmd, input)
		started <- err
		if err == nil {
			<-waited
		}
	}()
	return <-started
}

// throughShell starts argv through the shell, which becomes it. The program may lie
// on a device of ours. A process has all that the agent has open until its first
// program is loaded: it must not wait for the device with /dev/fuse, and no other
// process can be started before it has done with waiting. The kernel may end it when
// memory is short, also where it may not end the agent.
func throughShell(argv []string) *exec.Cmd {
	return exec.Command("/bin/sh", append([]string{"-c", `echo 0 2>/dev/null >/proc/self/oom_score_adj; exec "$@"`, "sh"}, argv...)...)
}

// supervise waits for the program and, when ctx ends first, ends its process
// group. It returns why it was ended, and whether cmd.ProcessState may be read. It has
// waited closed with the program's end.
func supervise(ctx context.Context, cmd *exec.Cmd, outs []*output, waited chan struct{}) (ended bool, cause error) {
	var waitErr error
	for _, o := range outs {
		o.drain()
	}
	go func() {
		waitErr = cmd.Wait()
		for _, o := range outs {
			o.finish()
		}
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
	within(waited, Settle)
	signalGroup(group, unix.SIGKILL) // the rest of it, also when the program itself has ended
	if !within(waited, Settle) {
		return false, fmt.Errorf("%w, and %w", context.Cause(ctx), ErrUnkillable)
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

// Environment is what every program is told, whatever the agent's own is.
func Environment() []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return []string{"PATH=" + path, "HOME=/root", "LANG=C.UTF-8"}
}

// Tail returns the last n bytes of b as text on one line.
func Tail(b []byte, n int) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(b), "?")), " ")
	if len(text) > n {
		text = "… " + strings.ToValidUTF8(text[len(text)-n:], "")
	}
	return text
}
