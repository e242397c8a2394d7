package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"hapair/agent/systemd"
	"hapair/failover/plan"
	"hapair/failover/service"
)

// pretender is a service that answers what a test gives it.
type pretender struct {
	name  string
	says  error // nil: as running says
	runs  bool
	stops int
}

func (s *pretender) Name() string                          { return s.name }
func (s *pretender) Start(context.Context) error           { s.runs = true; return nil }
func (s *pretender) Stop(context.Context) error            { s.runs, s.says = false, nil; s.stops++; return nil }
func (s *pretender) Monitor(context.Context) (bool, error) { return s.runs && s.says == nil, s.says }

func pretenders(t *testing.T, all ...*pretender) services {
	t.Helper()
	gc := service.GroupConfig{Resource: "pg"}
	for _, s := range all {
		gc.Services = append(gc.Services, service.Item{Movable: s})
	}
	g, err := service.NewGroup(gc)
	if err != nil {
		t.Fatal(err)
	}
	return services{g, new(atomic.Int32)}
}

func found(t *testing.T, s services, want plan.ServiceState, name string) {
	t.Helper()
	if _, err := s.g.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, failed, why := s.State(); got != want || failed != name {
		t.Errorf("%v, %q failed: %q; want %v, %q", got, failed, why, want, name)
	}
}

// What was started and does not tell whether it runs is not stopped: it is stopped in
// order before a demotion, and nothing is started over it.
func TestWhatCannotBeToldIsNotStopped(t *testing.T) {
	one, two := &pretender{name: "exec:one"}, &pretender{name: "exec:two"}
	s := pretenders(t, one, two)
	if got, _, _ := s.State(); got != plan.Partial {
		t.Errorf("before anybody has looked: %v", got)
	}
	found(t, s, plan.Stopped, "")
	if err := s.Start(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	one.says, two.says = service.ErrTimeout, service.ErrTimeout
	found(t, s, plan.Started, "")
	two.says, two.runs = nil, false // counted, because all was well before
	found(t, s, plan.Broken, "exec:two")
	if err := s.Restart(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if one.stops != 0 {
		t.Error("what could not be told is restarted with what is down")
	}
	found(t, s, plan.Broken, "exec:one") // the third time
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	found(t, s, plan.Stopped, "")
}

// What an earlier life of the agent left, or may have left, is stopped once.
func TestClearUp(t *testing.T) {
	for name, c := range map[string]struct {
		service *pretender
		stops   int
	}{
		"runs":     {&pretender{name: "exec:x", runs: true}, 1},
		"stopped":  {&pretender{name: "exec:x"}, 0},
		"not told": {&pretender{name: "exec:x", says: errors.New("no answer")}, 1},
	} {
		s := pretenders(t, c.service)
		r := &resource{a: &agent{log: zap.NewNop(), boss: systemd.New(zap.NewNop())}, name: "pg", group: s.g}
		r.clearUp()
		r.clearUp()
		if c.service.stops != c.stops {
			t.Errorf("%s: stopped %d times, want %d", name, c.service.stops, c.stops)
		}
		found(t, s, plan.Stopped, "")
	}
}

// A service of commands without status may run from an earlier life: its stop command
// is run once, at the start of the agent.
func TestClearUpWithoutStatus(t *testing.T) {
	dir := t.TempDir()
	m, err := service.New(service.Spec{Exec: &service.Exec{Label: "x", Start: service.Shell("true"), Stop: service.Shell("echo stop >> " + dir + "/calls")}}, service.Deps{Resource: "pg"})
	if err != nil {
		t.Fatal(err)
	}
	g, err := service.NewGroup(service.GroupConfig{Resource: "pg", Services: []service.Item{{Movable: m}}})
	if err != nil {
		t.Fatal(err)
	}
	r := &resource{a: &agent{log: zap.NewNop(), boss: systemd.New(zap.NewNop())}, name: "pg", group: g}
	r.clearUp()
	r.clearUp()
	if got := linesOf(t, dir+"/calls"); !slices.Equal(got, []string{"stop"}) {
		t.Errorf("ran %q", got)
	}
	found(t, services{g, new(atomic.Int32)}, plan.Stopped, "")
}

func linesOf(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}
