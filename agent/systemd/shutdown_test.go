package systemd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`

// bus runs a message bus of its own as the system's.
func bus(t *testing.T) {
	t.Helper()
	tool, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("needs dbus-daemon")
	}
	dir := t.TempDir()
	socket, conf := filepath.Join(dir, "bus"), filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(conf, []byte(fmt.Sprintf(busConfig, socket)), 0o600); err != nil {
		t.Fatal(err)
	}
	d := exec.Command(tool, "--config-file="+conf, "--nofork", "--nosyslog", "--print-address=1")
	out, err := d.StdoutPipe()
	if err == nil {
		err = d.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = d.Wait() // says only that it was killed
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
}

func dial(t *testing.T) *dbus.Conn {
	t.Helper()
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// logind is a small one.
type logind struct {
	t    *testing.T
	conn *dbus.Conn
	held *os.File // ends when the lock is released
	mode string
	asks chan struct{} // one for each question

	mu   sync.Mutex
	down bool
}

func newLogind(t *testing.T) *logind {
	t.Helper()
	l := &logind{t: t, conn: dial(t), asks: make(chan struct{}, 16)}
	reply, err := l.conn.RequestName(logindName, 0)
	if err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("%v, %v", reply, err)
	}
	if err := l.conn.Export(l, logindPath, logindManager); err != nil {
		t.Fatal(err)
	}
	if err := l.conn.Export(l, logindPath, "org.freedesktop.DBus.Properties"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if l.held != nil {
			l.held.Close()
		}
	})
	return l
}

func (l *logind) Inhibit(what, who, why, mode string) (dbus.UnixFD, *dbus.Error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	l.held, l.mode = r, what+" "+who+" "+mode
	// The bus has it once the call is answered; then this end goes.
	time.AfterFunc(time.Second, func() { w.Close() })
	return dbus.UnixFD(w.Fd()), nil
}

func (l *logind) Get(_, name string) (dbus.Variant, *dbus.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if name != "PreparingForShutdown" {
		return dbus.Variant{}, dbus.MakeFailedError(errors.New(name))
	}
	l.asks <- struct{}{}
	return dbus.MakeVariant(l.down), nil
}

// say is the signal, true or not.
func say(t *testing.T, conn *dbus.Conn, down bool) {
	t.Helper()
	if err := conn.Emit(logindPath, logindManager+"."+prepareMember, down); err != nil {
		t.Fatal(err)
	}
}

func (l *logind) set(down bool) {
	l.mu.Lock()
	l.down = down
	l.mu.Unlock()
	say(l.t, l.conn, down)
}

func word(t *testing.T, begins <-chan bool) (down, ok bool) {
	t.Helper()
	select {
	case down, ok = <-begins:
		return down, ok
	case <-time.After(10 * time.Second):
		t.Fatal("no word")
		return
	}
}

func TestShutdownIsHeldUp(t *testing.T) {
	bus(t)
	l := newLogind(t)
	s, err := DelayShutdown(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if l.mode != "shutdown hapair delay" {
		t.Errorf("asked for %q", l.mode)
	}
	for _, want := range []bool{true, false, true} {
		l.set(want)
		if down, ok := word(t, s.Begins); down != want || !ok {
			t.Errorf("%v, %v; want %v", down, ok, want)
		}
	}
	if err := s.Release(); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(l.held); err != nil || len(b) > 0 {
		t.Errorf("the lock: %q, %v", b, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, ok := word(t, s.Begins); ok {
		t.Error("goes on after the end")
	}
}

// A signal of somebody else is no shutdown.
func TestSignalOfSomebodyElse(t *testing.T) {
	bus(t)
	l := newLogind(t)
	s, err := DelayShutdown(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	say(t, dial(t), true)
	<-l.asks
	say(t, dial(t), true)
	<-l.asks // the first answer has been judged
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if down, ok := word(t, s.Begins); down || ok {
		t.Errorf("%v, %v", down, ok)
	}
}

func TestNoLogind(t *testing.T) {
	bus(t)
	if s, err := DelayShutdown(t.Context()); err == nil {
		t.Errorf("%+v", s)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+t.TempDir()+"/none")
	if s, err := DelayShutdown(t.Context()); err == nil {
		t.Errorf("%+v", s)
	}
}
