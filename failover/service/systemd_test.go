package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`

// bus runs a message bus of its own and returns how to reach it.
func bus(t *testing.T) func(context.Context) (*dbus.Conn, error) {
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
	return func(ctx context.Context) (*dbus.Conn, error) {
		return dbus.Connect("unix:path="+socket, dbus.WithContext(ctx))
	}
}

// systemd is a small one: units, their states, and jobs that end as told.
type systemd struct {
	conn *dbus.Conn
	mu   sync.Mutex
	unit map[string]map[string]any // properties by unit
	end  map[string]string         // how a unit's next job ends; "" with never: it does not
	jobs uint32
	did  []string
}

const never = "never"

func newSystemd(t *testing.T, dial func(context.Context) (*dbus.Conn, error)) *systemd {
	t.Helper()
	conn, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &systemd{conn: conn, unit: map[string]map[string]any{}, end: map[string]string{}}
	s.add("postgresql.service")
	if err := conn.Export(s, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		t.Fatal(err)
	}
	if r, err := conn.RequestName("org.freedesktop.systemd1", dbus.NameFlagDoNotQueue); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(r, err)
	}
	for _, name := range []string{"postgresql.service", "absent.service"} {
		path := dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + escape(name))
		if err := conn.Export(&properties{s, name}, path, "org.freedesktop.DBus.Properties"); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func escape(s string) string { return strings.NewReplacer(".", "_2e").Replace(s) }

func (s *systemd) add(name string) {
	s.unit[name] = map[string]any{"LoadState": "loaded", "ActiveState": "inactive", "SubState": "dead", "UnitFileState": "disabled", "NRestarts": uint32(0)}
}

func (s *systemd) ends(name, result string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end[name] = result
}

type properties struct {
	s    *systemd
	name string
}

func (p *properties) GetAll(string) (map[string]dbus.Variant, *dbus.Error) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	props, ok := p.s.unit[p.name]
	if !ok {
		props = map[string]any{"LoadState": "not-found", "ActiveState": "inactive"}
	}
	all := map[string]dbus.Variant{}
	for k, v := range props {
		all[k] = dbus.MakeVariant(v)
	}
	return all, nil
}

func (s *systemd) StartUnit(name, mode string) (dbus.ObjectPath, *dbus.Error) {
	return s.job("start", name, "active")
}

func (s *systemd) StopUnit(name, mode string) (dbus.ObjectPath, *dbus.Error) {
	return s.job("stop", name, "inactive")
}

func (s *systemd) KillUnit(name, who string, signal int32) *dbus.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did = append(s.did, fmt.Sprintf("kill %s %s %d", name, who, signal))
	return nil
}

func (s *systemd) job(action, name, state string) (dbus.ObjectPath, *dbus.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did = append(s.did, action+" "+name)
	if s.unit[name] == nil {
		return "", dbus.NewError("org.freedesktop.systemd1.NoSuchUnit", []any{"Unit " + name + " not loaded."})
	}
	s.jobs++
	id, result := s.jobs, s.end[name]
	path := dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", id))
	if result == never {
		return path, nil
	}
	if result == "" {
		result = "done"
		s.unit[name]["ActiveState"] = state
	} else {
		s.unit[name]["ActiveState"], s.unit[name]["Result"] = "failed", "exit-code"
	}
	time.AfterFunc(10*time.Millisecond, func() {
		_ = s.conn.Emit("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager.JobRemoved", id, path, name, result) // fails when the test is over
	})
	return path, nil
}

func testUnit(t *testing.T, name string) (*systemd, Movable) {
	t.Helper()
	dial := bus(t)
	s := newSystemd(t, dial)
	m, err := New(Spec{Systemd: &Systemd{Unit: name}}, Deps{Resource: "pg", Systemd: dial})
	if err != nil {
		t.Fatal(err)
	}
	return s, m
}

func TestUnitStartsAndStops(t *testing.T) {
	_, m := testUnit(t, "postgresql.service")
	wantRunning(t, m, false)
	for range 2 {
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantRunning(t, m, true)
	}
	for range 2 {
		if err := m.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantRunning(t, m, false)
	}
}

func TestUnitFails(t *testing.T) {
	s, m := testUnit(t, "postgresql.service")
	s.ends("postgresql.service", "failed")
	var e *UnitError
	if err := m.Start(t.Context()); !errors.As(err, &e) || e.Result != "failed" || !strings.Contains(e.State, "exit-code") {
		t.Errorf("%v", err)
	}
	wantRunning(t, m, false)
}

// A unit that systemd starts again by itself, over and over, is always found up.
func TestUnitRestartedBySystemd(t *testing.T) {
	s, m := testUnit(t, "postgresql.service")
	set := func(active, sub string, restarts uint32) {
		s.mu.Lock()
		defer s.mu.Unlock()
		u := s.unit["postgresql.service"]
		u["ActiveState"], u["SubState"], u["NRestarts"] = active, sub, restarts
	}
	set("inactive", "dead", 7) // of a life before
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantRunning(t, m, true)
	set("activating", "start-pre", 7)
	wantRunning(t, m, true)
	set("activating", "auto-restart", 7)
	wantRunning(t, m, false)
	set("active", "running", 9)
	if running, err := m.Monitor(t.Context()); running || !isBroken(err) || !strings.Contains(err.Error(), "2 times") {
		t.Errorf("%v, %v", running, err)
	}
	wantRunning(t, m, true)     // told once
	set("active", "running", 0) // systemctl restart, by an operator
	wantRunning(t, m, true)
	set("active", "running", 1)
	if running, err := m.Monitor(t.Context()); running || !isBroken(err) {
		t.Errorf("%v, %v", running, err)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantRunning(t, m, true)
}

// Who asks systemd to restart the unit, or to wait longer for its stop than the agent
// does, is warned of it.
func TestUnitWarnings(t *testing.T) {
	dial := bus(t)
	s := newSystemd(t, dial)
	seen, logs := observer.New(zap.WarnLevel)
	m, err := New(Spec{Systemd: &Systemd{Unit: "postgresql.service", StopTimeout: time.Minute}}, Deps{Resource: "pg", Systemd: dial, Logger: zap.New(seen)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		restart string
		stop    uint64
		want    int
	}{{"no", 60e6, 0}, {"on-failure", 60e6, 1}, {"no", 61e6, 1}, {"always", 1<<64 - 1, 2}} {
		s.mu.Lock()
		s.unit["postgresql.service"]["Restart"], s.unit["postgresql.service"]["TimeoutStopUSec"] = c.restart, c.stop
		s.mu.Unlock()
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := logs.TakeAll(); len(got) != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestUnitAbsent(t *testing.T) {
	_, m := testUnit(t, "absent.service")
	var e *UnitError
	if err := m.Start(t.Context()); !errors.As(err, &e) || e.Result != "not-found" || !isPermanent(err) {
		t.Errorf("start: %v", err)
	}
	if err := m.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
	wantRunning(t, m, false)
}

func TestUnitJobThatDoesNotEnd(t *testing.T) {
	s, m := testUnit(t, "postgresql.service")
	s.ends("postgresql.service", never)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := m.Start(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestUnitForced(t *testing.T) {
	s, m := testUnit(t, "postgresql.service")
	if err := m.(Forcible).StopForced(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := strings.Join(s.did, ", "); got != "kill postgresql.service all 9, stop postgresql.service" {
		t.Errorf("did %q", got)
	}
}

func TestNoSystemd(t *testing.T) {
	m, err := New(Spec{Systemd: &Systemd{Unit: "a.service"}}, Deps{Systemd: func(context.Context) (*dbus.Conn, error) {
		return nil, os.ErrNotExist
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context()); !errors.Is(err, ErrNoSystemd) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("start: %v", err)
	}
	if running, err := m.Monitor(t.Context()); running || !errors.Is(err, ErrNoSystemd) {
		t.Errorf("monitor: %v %v", running, err)
	}
}
