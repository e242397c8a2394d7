package systemd

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listener is a service manager's socket.
type listener struct {
	t    *testing.T
	conn *net.UnixConn
}

func newListener(t *testing.T) *listener {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return &listener{t, conn}
}

// next is what was told next.
func (l *listener) next() string {
	l.t.Helper()
	if err := l.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		l.t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := l.conn.Read(b)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(b[:n])
}

func TestWordsToTheManager(t *testing.T) {
	l := newListener(t)
	t.Setenv("WATCHDOG_PID", "")
	t.Setenv("WATCHDOG_USEC", "30000000")
	m := New(zap.NewNop())
	if !m.Present() {
		t.Error("nobody is there")
	}
	for want, tell := range map[string]func(){
		"READY=1\nSTATUS=pg: Primary":                                func() { m.Ready("pg:\n Primary") },
		"STATUS=stopping: resource pg\nEXTEND_TIMEOUT_USEC=70000000": func() { m.Stage("stopping: resource pg", time.Minute) },
		"STOPPING=1\nSTATUS=the machine goes down":                   func() { m.Stopping("the machine goes down") },
		"STATUS=goes down\nWATCHDOG_USEC=60000000":                   func() { m.Emptying("goes down", time.Minute) },
		"STOPPING=1\nSTATUS=" + strings.Repeat("ä", 200) + " …":      func() { m.Stopping(strings.Repeat("ä", 300)) },
	} {
		tell()
		if got := l.next(); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
}

// The watchdog does not bite a process that was asked to stand still.
func TestRest(t *testing.T) {
	l := newListener(t)
	m := &Manager{log: zap.NewNop(), watchdog: 30 * time.Second}
	m.Rest(10 * time.Millisecond)
	(&Manager{log: zap.NewNop()}).Rest(time.Second) // nobody bites
	for _, want := range []string{"WATCHDOG_USEC=30010000", "WATCHDOG_USEC=30000000\nWATCHDOG=1"} {
		if got := l.next(); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
}

// A manager that is gone is no reason for anything, and is noted once.
func TestManagerGone(t *testing.T) {
	core, logged := observer.New(zap.WarnLevel)
	l := newListener(t)
	m := New(zap.New(core))
	l.conn.Close()
	m.Ready("a")
	m.Stopping("b")
	if n := logged.Len(); n != 1 {
		t.Errorf("%d lines: %v", n, logged.All())
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if m.Present() {
		t.Error("somebody is there")
	}
	m.Ready("c")
}

func TestWatchdogOfTheEnvironment(t *testing.T) {
	t.Setenv("WATCHDOG_PID", "")
	t.Setenv("WATCHDOG_USEC", "30000000")
	if m := New(zap.NewNop()); m.watchdog != 30*time.Second {
		t.Errorf("%v", m.watchdog)
	}
	core, logged := observer.New(zap.WarnLevel)
	t.Setenv("WATCHDOG_USEC", "soon")
	if m := New(zap.New(core)); m.watchdog != 0 || logged.Len() != 1 {
		t.Errorf("%v, %v", m.watchdog, logged.All())
	}
}
