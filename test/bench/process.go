package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 20 * time.Second
	pollInterval = 5 * time.Millisecond
	logTailBytes = 1500
	clockTicks   = 100 // USER_HZ of Linux on every architecture Go runs on
)

// process is one server.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// start starts a server in a box; its output goes to a file in dir. It is killed
// when this process dies.
func start(b box, dir, name, program string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	f, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer f.Close() //nolint:errcheck // the process has its own copy
	p.cmd = exec.Command(program, args...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go p.follow(b, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// follow ends with the process, which stop sees to. The signal comes when the
// thread dies that started the process: this one is kept.
func (p *process) follow(b box, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	err := b.start(p.cmd.Start)
	started <- err
	if err == nil {
		p.cmd.Wait() //nolint:errcheck // how it ended shows in its log
	}
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop asks a server to end and waits; what does not listen is killed.
func (p *process) stop() error {
	if !p.alive() {
		return fmt.Errorf("%s ended by itself: %s", p.name, p.lastWords())
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopTimeout):
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.done
	return fmt.Errorf("%s did not end by SIGTERM in %s: %s", p.name, stopTimeout, p.lastWords())
}

// lastWords is the end of the server's log.
func (p *process) lastWords() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(text) > logTailBytes {
		text = text[len(text)-logTailBytes:]
	}
	return strings.TrimSpace(string(text))
}

// cpuTime is the processor time of servers since they started, in user and
// system mode.
func cpuTime(servers []*process) (time.Duration, error) {
	var ticks int64
	for _, p := range servers {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		if err != nil {
			return 0, fmt.Errorf("processor time of %s: %w", p.name, err)
		}
		n, err := parseStat(string(text))
		if err != nil {
			return 0, fmt.Errorf("processor time of %s: %w", p.name, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / clockTicks, nil
}

// parseStat takes utime + stime out of /proc/PID/stat; the name in brackets may
// hold anything.
func parseStat(text string) (int64, error) {
	const utime, stime = 11, 12 // counted behind the name
	_, rest, ok := cutLast(text, ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) <= stime {
		return 0, fmt.Errorf("%q is no line of /proc/PID/stat", text)
	}
	u, err := strconv.ParseInt(fields[utime], 10, 64)
	if err != nil {
		return 0, err
	}
	s, err := strconv.ParseInt(fields[stime], 10, 64)
	return u + s, err
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// await asks until it is so; it gives up early when a server has ended.
func await(ctx context.Context, what string, servers []*process, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		for _, p := range servers {
			if !p.alive() {
				return fmt.Errorf("%s: %s ended: %s", what, p.name, p.lastWords())
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, startTimeout, err)
		case <-tick.C:
		}
	}
}

// listens reports whether somebody accepts on a unix socket.
func listens(socket string) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	return c.Close()
}

// stopAll stops servers in reverse.
func stopAll(servers []*process) error {
	var errs []error
	for i := len(servers) - 1; i >= 0; i-- {
		errs = append(errs, servers[i].stop())
	}
	return errors.Join(errs...)
}
