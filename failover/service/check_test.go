package service

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// told is a service whose checks answer what is given, one after the other, and then
// that it runs.
type told struct {
	fake
	says []error // errDown: it does not run; nil: it runs
}

var (
	errDown  = errors.New("down")
	errStart = errors.New("no answer: it is restarted before the next one")
)

func (s *told) Monitor(context.Context) (bool, error) {
	err := next(&s.says)
	if errors.Is(err, errDown) {
		return false, nil
	}
	return err == nil, err
}

// states starts the service and checks it as often as it has answers.
func states(t *testing.T, g *Group, s *told) (all []State) {
	t.Helper()
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for len(s.says) > 0 {
		if errors.Is(s.says[0], errStart) {
			s.says = s.says[1:]
			if err := g.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			all = append(all, g.Status()[0].State)
			continue
		}
		found, err := g.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found[0].State)
	}
	return all
}

// A check that says that the service does not work is a failure at once; one that says
// nothing is one when it was so several times in a row.
func TestWhatACheckFindsOut(t *testing.T) {
	hung, bad := ErrTimeout, broken{errors.New("exit code 1")}
	for name, c := range map[string]struct {
		says []error
		want []State
	}{
		"broken":                 {[]error{nil, bad, bad, nil}, []State{Running, Failed, Failed, Running}},
		"down":                   {[]error{errDown, errDown}, []State{Failed, Failed}},
		"once not told":          {[]error{hung, nil, hung, hung, nil}, []State{Unknown, Running, Unknown, Unknown, Running}},
		"never told":             {[]error{hung, hung, hung, hung}, []State{Unknown, Unknown, Failed, Failed}},
		"not told, then down":    {[]error{hung, errDown}, []State{Unknown, Failed}},
		"not told, then broken":  {[]error{hung, hung, bad}, []State{Unknown, Unknown, Failed}},
		"broken, then not told":  {[]error{bad, hung}, []State{Failed, Failed}},
		"started anew":           {[]error{hung, hung, hung, errStart, hung, hung}, []State{Unknown, Unknown, Failed, Running, Unknown, Unknown}},
		"it takes them in a row": {[]error{hung, hung, nil, hung, hung}, []State{Unknown, Unknown, Running, Unknown, Unknown}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &told{fake: fake{name: "exec:x", log: new([]string)}, says: c.says}
			if got := states(t, group(t, GroupConfig{}, s), s); !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// What a check does not find out while the device is frozen, before or after it, counts
// against no service.
func TestAFrozenDeviceIsNoFailure(t *testing.T) {
	for name, frozen := range map[string][]bool{"all the time": {true, true}, "at first": {true, false}, "at last": {false, true}} {
		bad := broken{errors.New("exit code 28")}
		s := &told{fake: fake{name: "exec:x", log: new([]string)}, says: []error{ErrTimeout, bad, ErrTimeout, bad, nil, ErrTimeout, errDown}}
		asked := 0
		g := group(t, GroupConfig{Frozen: func() bool { asked++; return frozen[(asked-1)%2] }}, s)
		want := []State{Unknown, Unknown, Unknown, Unknown, Running, Unknown, Failed}
		if got := states(t, g, s); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// What was not started by this group is not Failed, whatever a check says: it is not
// known to be stopped. What was stopped stays so.
func TestACheckBeforeTheFirstStart(t *testing.T) {
	for _, err := range []error{ErrTimeout, broken{errors.New("exit code 1")}} {
		s := &told{fake: fake{name: "exec:x", log: new([]string)}, says: []error{err, err, err, err}}
		g := group(t, GroupConfig{}, s)
		for range 4 {
			if found, _ := g.Check(t.Context()); found[0].State != Unknown || found[0].Error == nil {
				t.Errorf("%v: %+v", err, found[0])
			}
		}
		if err := g.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		s.says = []error{err, err, err, err}
		for range 4 {
			if found, _ := g.Check(t.Context()); found[0].State != Stopped || found[0].Error != nil {
				t.Errorf("%v after a stop: %+v", err, found[0])
			}
		}
	}
}

// An exit code tells for certain that a service does not work; a command that ends
// otherwise tells nothing.
func TestWhatExitCodesTell(t *testing.T) {
	cannot := filepath.Join(t.TempDir(), "no program")
	if err := os.WriteFile(cannot, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for end, is := range map[string]bool{"exit 1": true, "exit 2": true, "exit 9": true, "exit 22": true, "exit 52": true, "exit 126": true, "kill -9 $$": false, "": false} {
		exec := Exec{Label: "x", Start: Shell("true"), Stop: Shell("true"), Status: Shell(end)}
		root := agentRoot(t, map[string]string{"monitor": end})
		ocf := web(root)
		if end == "" {
			exec.Status, ocf.Agent = []string{cannot}, "test:web"
			ocf.Root = agentRoot(t, map[string]string{"monitor": "sleep 1000"})
			ocf.MonitorTimeout = 50 * time.Millisecond
		}
		for _, spec := range []Spec{{Exec: &exec}, {OCF: &ocf}} {
			m := newMovable(t, spec)
			running, err := m.Monitor(t.Context())
			if spec.Exec != nil && (end == "exit 1" || end == "exit 2") { // LSB: it does not run
				if running || err != nil {
					t.Errorf("%s, %q: %v, %v", m.Name(), end, running, err)
				}
				continue
			}
			if running || err == nil || isBroken(err) != is {
				t.Errorf("%s, %q: %v, %v: broken %v, want %v", m.Name(), end, running, err, isBroken(err), is)
			}
		}
	}
}

// notes is a service of commands that are noted in a file, which end like this.
func notes(t *testing.T, status, stop string) (m Movable, all func() []string) {
	t.Helper()
	dir := t.TempDir()
	note := func(what, then string) []string { return Shell("echo " + what + " >> " + dir + "/calls; " + then) }
	return newMovable(t, Spec{Exec: &Exec{Label: "x", Start: note("start", "true"), Stop: note("stop", stop), Status: note("status", status)}}), func() []string { return callsOf(t, dir) }
}

// A command is started only where nothing runs: what is broken, or cannot be told, is
// stopped first, and what cannot be stopped is not started.
func TestExecStartsOnlyWhatDoesNotRun(t *testing.T) {
	for status, want := range map[string][]string{
		"exit 0": {"status"}, "exit 3": {"status", "start"}, "exit 28": {"status", "stop", "start"}, "kill -9 $$": {"status", "stop", "start"},
	} {
		m, calls := notes(t, status, "true")
		if err := m.Start(t.Context()); err != nil {
			t.Errorf("%s: %v", status, err)
		}
		if got := calls(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", status, got, want)
		}
	}
	m, calls := notes(t, "exit 28", "exit 5")
	var e *ExecError
	if err := m.Start(t.Context()); err == nil || !errors.As(err, &e) {
		t.Errorf("%v", err)
	}
	if got := calls(); !slices.Equal(got, []string{"status", "stop"}) {
		t.Errorf("it does not stop: %q", got)
	}
}

// A service without a status command may run from an earlier life of the agent: until
// its first start or stop nothing is known. It starts all the same, and a stop settles it.
func TestExecWithoutStatus(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	spec := Spec{Exec: &Exec{Label: "x", Start: Shell("sleep 1000 & echo $! > " + pidfile), Stop: Shell("[ ! -e " + pidfile + " ] || kill $(cat " + pidfile + ")")}}
	first := group(t, GroupConfig{}, newMovable(t, spec))
	if err := first.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(pidfile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(b[:len(b)-1]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && alive(pid) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	})
	second := group(t, GroupConfig{}, newMovable(t, spec)) // the agent was killed and begins again
	if found, err := second.Check(t.Context()); err != nil || found[0].State != Unknown || !errors.Is(found[0].Error, errNotAsked) {
		t.Errorf("%+v, %v", found, err)
	}
	if err := second.StopForced(t.Context()); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(5 * time.Second); alive(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("pid %d lives on", pid)
		}
	}
	if found, err := second.Check(t.Context()); err != nil || found[0].State != Stopped || found[0].Error != nil {
		t.Errorf("after its stop: %+v, %v", found, err)
	}
	m := newMovable(t, Spec{Exec: &Exec{Label: "x", Start: Shell("true"), Stop: Shell("true")}})
	if err := m.Start(t.Context()); err != nil {
		t.Error(err)
	}
	wantRunning(t, m, true)
}

// A Stop does not wait for a check that hangs. What that had no answer of stays as it
// was, and is no failure.
func TestStopEndsACheck(t *testing.T) {
	for name, heeds := range map[string]bool{"a call that gives up": true, "one that does not": false} {
		for how, stop := range map[string]func(*Group, context.Context) error{"stop": (*Group).Stop, "forced stop": (*Group).StopForced} {
			t.Run(name+", "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					_, a, b, _ := three()
					h := &asked{fake: *a, hanging: hanging{heeds: heeds, let: make(chan struct{})}}
					g := group(t, GroupConfig{}, h, b)
					if err := g.Start(t.Context()); err != nil {
						t.Fatal(err)
					}
					checked := make(chan []Status, 1)
					go func() {
						found, err := g.Check(t.Context())
						if err != nil {
							t.Error(err)
						}
						checked <- found
					}()
					synctest.Wait()
					began := time.Now()
					time.AfterFunc(time.Second, func() { close(h.hanging.let) })
					if err := stop(g, t.Context()); err != nil {
						t.Error(err)
					}
					if took := time.Since(began); took > time.Second {
						t.Errorf("the stop took %v", took)
					}
					if b.stopped != began {
						t.Errorf("what nobody asks was stopped after %v", b.stopped.Sub(began))
					}
					if found := <-checked; found[0].State == Unknown || found[0].Error != nil {
						t.Errorf("%+v", found[0])
					}
					for _, s := range g.Status() {
						if s.State != Stopped || s.Error != nil {
							t.Errorf("%+v", s)
						}
					}
				})
			})
		}
	}
}

// asked is a service that hangs when it is asked whether it runs.
type asked struct {
	fake
	hanging hanging
}

func (s *asked) Monitor(ctx context.Context) (bool, error) {
	err := s.hanging.call(ctx)
	return err == nil, err
}

// A check whose own time is over says so, and leaves what had no answer as it was.
func TestACheckThatIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, _, _ := three()
		h := &asked{fake: *a, hanging: hanging{heeds: true, let: make(chan struct{})}}
		g := group(t, GroupConfig{}, h)
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Check(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if s := g.Status()[0]; s.State != Running || s.Error != nil {
			t.Errorf("%+v", s)
		}
	})
}
