package service

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestExecEnvironment(t *testing.T) {
	out := filepath.Join(t.TempDir(), "env")
	m := newMovable(t, Spec{Exec: &Exec{Label: "x", Start: Shell("env > " + out), Stop: Shell("true")}})
	t.Setenv("NOTIFY_SOCKET", "/run/none")
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"HAPAIR_RESOURCE=pg\n", "HAPAIR_NODE=alpha\n", "HAPAIR_DEVICE=/dev/none\n"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("no %q in %s", want, b)
		}
	}
	if bytes.Contains(b, []byte("NOTIFY_SOCKET")) {
		t.Error("the agent's own environment leaks")
	}
}

// Programs that lie on what the resource itself mounts are not there on a Secondary:
// nothing runs there, and there is nothing to stop. Once it was started they have to be.
func TestExecWhoseProgramsAreElsewhere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "srv")
	script := filepath.Join(dir, "ctl")
	m := newMovable(t, Spec{Exec: &Exec{Label: "x", Start: []string{script, "start"}, Stop: []string{script, "stop"}, Status: []string{script, "status"}}})
	wantRunning(t, m, false)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte("#!/bin/sh\ncase $1 in start) : > \"$0.up\";; stop) rm -f \"$0.up\";; *) test -f \"$0.up\" || exit 3;; esac\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantRunning(t, m, true)
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	if running, err := m.Monitor(t.Context()); running || err == nil {
		t.Errorf("%v, %v", running, err)
	}
	if err := m.Stop(t.Context()); err == nil {
		t.Error("stopped, it says")
	}
	other := newMovable(t, Spec{Exec: &Exec{Label: "x", Start: []string{script, "start"}, Stop: []string{script, "stop"}}})
	if err := other.Stop(t.Context()); err != nil {
		t.Errorf("what was never started: %v", err)
	}
}

// daemon is a service that leaves a process behind, which prints all the time.
func daemon(t *testing.T) (Movable, func() int) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	m := newMovable(t, Spec{Exec: &Exec{
		Label:  "daemon",
		Start:  Shell("echo starting; (while :; do echo chatter; sleep 0.01; done) & echo $! > " + pidfile),
		Stop:   Shell("test -f " + pidfile + " || exit 0; kill $(cat " + pidfile + "); rm " + pidfile),
		Status: Shell("test -f " + pidfile + " && kill -0 $(cat " + pidfile + ") || exit 3"),
	}})
	return m, func() int {
		b, err := os.ReadFile(pidfile)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
}

func TestExecDaemonOutlivesItsStart(t *testing.T) {
	m, pid := daemon(t)
	wantRunning(t, m, false)
	begin := time.Now()
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("waited %s for the daemon's output to end", took)
	}
	daemonPID := pid()
	wantRunning(t, m, true)
	if err := m.Start(t.Context()); err != nil || pid() != daemonPID {
		t.Errorf("started again: %v", err)
	}
	time.Sleep(100 * time.Millisecond) // it prints into a pipe that nobody reads
	wantRunning(t, m, true)
	for range 2 {
		if err := m.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	wantRunning(t, m, false)
}

func TestExecFailure(t *testing.T) {
	m := newMovable(t, Spec{Exec: &Exec{Label: "x", Start: Shell("echo out; echo why >&2; exit 4"), Stop: Shell("true")}})
	var e *ExecError
	if err := m.Start(t.Context()); !errors.As(err, &e) || e.Code != 4 || e.Output != "out why" {
		t.Errorf("%v: %+v", err, e)
	}
	m = newMovable(t, Spec{Exec: &Exec{Label: "x", Start: Shell("true"), Stop: Shell("kill -9 $$")}})
	if err := m.Stop(t.Context()); !errors.As(err, &e) || e.Signal != "killed" {
		t.Errorf("%v: %+v", err, e)
	}
	gone := newMovable(t, Spec{Exec: &Exec{Start: []string{"/nowhere/x"}, Stop: Shell("true")}})
	if err := gone.Start(t.Context()); !errors.Is(err, os.ErrNotExist) || !isPermanent(err) {
		t.Errorf("%v", err)
	}
}

func TestExecStatusCodes(t *testing.T) {
	for code, want := range map[int]struct{ running, told bool }{
		0: {true, true}, 1: {false, true}, 3: {false, true}, 7: {false, true}, 4: {false, false}, 6: {false, false},
	} {
		m := newMovable(t, Spec{Exec: &Exec{Label: "x", Start: Shell("true"), Stop: Shell("true"), Status: Shell("exit " + strconv.Itoa(code))}})
		running, err := m.Monitor(t.Context())
		if running != want.running || (err == nil) != want.told {
			t.Errorf("status %d: %v %v", code, running, err)
		}
	}
}

func TestExecTimeoutEndsTheWholeGroup(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	m := newMovable(t, Spec{Exec: &Exec{
		Label: "x", Start: Shell("trap '' TERM; sleep 1000 & echo $! > " + pidfile + "; wait; sleep 1000"), Stop: Shell("true"),
		StartTimeout: 2 * time.Second, // which the shell has to write its file
	}})
	var e *ExecError
	if err := m.Start(t.Context()); !errors.Is(err, ErrTimeout) || !errors.As(err, &e) {
		t.Fatalf("%v", err)
	}
	b, err := os.ReadFile(pidfile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); alive(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("pid %d lives on", pid)
		}
	}
}

// alive tells a process from none and from one that only waits to be reaped.
func alive(pid int) bool {
	if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return false
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !bytes.Contains(b, []byte(") Z "))
}

func TestExecCancel(t *testing.T) {
	m := newMovable(t, Spec{Exec: &Exec{Label: "x", Start: Shell("sleep 1000"), Stop: Shell("true")}})
	if err := m.Stop(t.Context()); err != nil { // else nothing is known of it
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the lease is lost")
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	if err := m.Start(ctx); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	wantRunning(t, m, false)
}

func TestExecOutputIsBounded(t *testing.T) {
	m := newMovable(t, Spec{Exec: &Exec{Label: "x", Start: Shell("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end; exit 1"), Stop: Shell("true")}})
	var e *ExecError
	if err := m.Start(t.Context()); !errors.As(err, &e) || len(e.Output) > 2100 || !strings.HasSuffix(e.Output, "end") {
		t.Errorf("%d bytes kept of the output, error %.100v", len(e.Output), err)
	}
}
