package service

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a service that writes what is done to it into a shared log.
type fake struct {
	name    string
	log     *[]string
	running bool
	start   []error       // results of the next starts; then nil
	stop    []error       // likewise
	hang    chan struct{} // closed when a start has begun that waits for its context
	stopped time.Time     // when it was asked to stop last
}

func (f *fake) Name() string { return f.name }

func next(list *[]error) error {
	if len(*list) == 0 {
		return nil
	}
	err := (*list)[0]
	*list = (*list)[1:]
	return err
}

func (f *fake) Start(ctx context.Context) error {
	*f.log = append(*f.log, "+"+f.name)
	f.running = true // half, if it fails
	if f.hang != nil {
		close(f.hang)
		<-ctx.Done()
		return ctx.Err()
	}
	return next(&f.start)
}

func (f *fake) Stop(context.Context) error {
	*f.log = append(*f.log, "-"+f.name)
	f.stopped = time.Now()
	err := next(&f.stop)
	f.running = f.running && err != nil
	return err
}

func (f *fake) Monitor(context.Context) (bool, error) { return f.running, nil }

type forcibleFake struct{ fake }

func (f *forcibleFake) StopForced(context.Context) error {
	*f.log = append(*f.log, "!"+f.name)
	f.running = false
	return nil
}

func group(t interface{ Fatal(...any) }, cfg GroupConfig, services ...Movable) *Group {
	cfg.Resource = "pg"
	for _, s := range services {
		cfg.Services = append(cfg.Services, Item{Movable: s})
	}
	g, err := NewGroup(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func three() (log *[]string, a, b, c *fake) {
	log = new([]string)
	return log, &fake{name: "mount:/a", log: log}, &fake{name: "systemd:b", log: log}, &fake{name: "address:c", log: log}
}

func wantLog(t *testing.T, log *[]string, want string) {
	t.Helper()
	if got := strings.Join(*log, " "); got != want {
		t.Errorf("did %q\nwant %q", got, want)
	}
	*log = nil
}

func TestOrder(t *testing.T) {
	log, a, b, c := three()
	g := group(t, GroupConfig{}, a, b, c)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLog(t, log, "+mount:/a +systemd:b +address:c")
	for _, s := range g.Status() {
		if s.State != Running || s.Error != nil {
			t.Errorf("%+v", s)
		}
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLog(t, log, "-address:c -systemd:b -mount:/a")
	if s := g.Status()[0]; s.State != Stopped || s.Kind != "mount" {
		t.Errorf("%+v", s)
	}
}

func TestRetrySucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, a, b, c := three()
		b.start = []error{errors.New("one"), errors.New("two")}
		var steps []string
		g := group(t, GroupConfig{Attempts: 3, Progress: func(p Progress) {
			steps = append(steps, fmt.Sprintf("%s %s %d", p.Service, p.Now, p.Attempt))
		}}, a, b, c)
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantLog(t, log, "+mount:/a +systemd:b -systemd:b +systemd:b -systemd:b +systemd:b +address:c")
		want := []string{
			"mount:/a starting 1", "mount:/a running 1",
			"systemd:b starting 1", "systemd:b failed 1", "systemd:b starting 2", "systemd:b failed 2",
			"systemd:b starting 3", "systemd:b running 3",
			"address:c starting 1", "address:c running 1",
		}
		if !reflect.DeepEqual(steps, want) {
			t.Errorf("timeline %q", steps)
		}
	})
}

func TestFailedStartIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, a, b, c := three()
		boom := errors.New("boom")
		c.start = []error{boom, boom}
		g := group(t, GroupConfig{Attempts: 2}, a, b, c)
		var e *StartError
		err := g.Start(t.Context())
		if !errors.As(err, &e) || !errors.Is(err, boom) {
			t.Fatalf("%v", err)
		}
		wantLog(t, log, "+mount:/a +systemd:b +address:c -address:c +address:c -address:c -systemd:b -mount:/a")
		if e.Service != "address:c" || e.Attempts != 2 || len(e.Left) != 0 || !reflect.DeepEqual(e.Stopped, []string{"systemd:b", "mount:/a"}) {
			t.Errorf("%+v", e)
		}
		if s := g.Status(); s[2].State != Failed || s[2].Error == nil || s[1].State != Stopped {
			t.Errorf("%+v", s)
		}
		checked, err := g.Check(t.Context())
		if err != nil || !errors.Is(checked[2].Error, boom) {
			t.Errorf("a check forgets why: %+v %v", checked[2], err)
		}
	})
}

func TestPermanentFailureIsNotRetried(t *testing.T) {
	log, a, b, c := three()
	b.start = []error{fmt.Errorf("wrapped: %w", permanent{errors.New("not installed")})}
	g := group(t, GroupConfig{}, a, b, c)
	if err := g.Start(t.Context()); err == nil {
		t.Fatal("started")
	}
	wantLog(t, log, "+mount:/a +systemd:b -systemd:b -mount:/a")
}

func TestWhatCannotBeUndoneIsNamed(t *testing.T) {
	_, a, b, c := three()
	c.start = []error{errors.New("boom")}
	stuck := errors.New("stuck")
	b.stop = []error{stuck}
	g := group(t, GroupConfig{Attempts: 1}, a, b, c)
	var e *StartError
	err := g.Start(t.Context())
	if !errors.As(err, &e) || !errors.Is(err, stuck) || !reflect.DeepEqual(e.Left, []string{"systemd:b", "mount:/a"}) {
		t.Fatalf("%v", err)
	}
	if !a.running {
		t.Error("stopped what a running service stands on")
	}
}

func TestStopEndsAtTheFirstFailure(t *testing.T) {
	log, a, b, c := three()
	b.stop = []error{errors.New("stuck")}
	g := group(t, GroupConfig{}, a, b, c)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	*log = nil
	var e *StopError
	if err := g.Stop(t.Context()); !errors.As(err, &e) || !reflect.DeepEqual(e.Left, []string{"systemd:b", "mount:/a"}) {
		t.Fatalf("%v", err)
	}
	wantLog(t, log, "-address:c -systemd:b")
	if err := g.Stop(t.Context()); err != nil {
		t.Errorf("second attempt: %v", err)
	}
}

func TestForcedStopGoesOn(t *testing.T) {
	log := new([]string)
	a, c := &forcibleFake{fake{name: "mount:/a", log: log}}, &forcibleFake{fake{name: "address:c", log: log}}
	b := &fake{name: "exec:b", log: log, stop: []error{errors.New("stuck")}}
	g := group(t, GroupConfig{}, a, b, c)
	var e *StopError
	if err := g.StopForced(t.Context()); !errors.As(err, &e) || e.Service != "exec:b" {
		t.Fatalf("%v", err)
	}
	wantLog(t, log, "!address:c -exec:b !mount:/a")
}

func TestStopInterruptsStart(t *testing.T) {
	log, a, b, c := three()
	b.hang = make(chan struct{})
	g := group(t, GroupConfig{}, a, b, c)
	started := make(chan error, 1)
	go func() { started <- g.Start(t.Context()) }()
	<-b.hang
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	var e *StartError
	if err := <-started; !errors.As(err, &e) {
		t.Fatalf("%v", err)
	}
	if a.running || b.running || c.running {
		t.Errorf("something runs: %v", *log)
	}
}

func TestCanceledStartIsUndone(t *testing.T) {
	log, a, b, c := three()
	b.hang = make(chan struct{})
	g := group(t, GroupConfig{}, a, b, c)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-b.hang
		cancel()
	}()
	if err := g.Start(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	wantLog(t, log, "+mount:/a +systemd:b -systemd:b -mount:/a")
}

func TestCheckNotices(t *testing.T) {
	_, a, b, c := three()
	g := group(t, GroupConfig{}, a, b, c)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.running = false
	s, err := g.Check(t.Context())
	if err != nil || s[0].State != Running || s[1].State != Failed || s[1].Error == nil {
		t.Errorf("%+v %v", s, err)
	}
}

func TestStatusSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, _, _ := three()
		g := group(t, GroupConfig{}, a)
		time.Sleep(time.Minute)
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		since := g.Status()[0].Since
		time.Sleep(time.Minute)
		if _, err := g.Check(t.Context()); err != nil || !g.Status()[0].Since.Equal(since) {
			t.Errorf("a check moved it: %v", err)
		}
	})
}

// Whatever fails and how often: a group either runs whole, or what may still
// run is named.
func TestNeverHalfWithoutSayingSo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			log := new([]string)
			var all []Movable
			fails := rapid.SliceOfN(rapid.Bool(), 0, 4)
			for i := range rapid.IntRange(1, 5).Draw(rt, "services") {
				f := &fake{name: fmt.Sprintf("exec:%d", i), log: log}
				for _, bad := range fails.Draw(rt, "starts") {
					f.start = append(f.start, map[bool]error{true: errors.New("bad")}[bad])
				}
				for _, bad := range fails.Draw(rt, "stops") {
					f.stop = append(f.stop, map[bool]error{true: errors.New("bad")}[bad])
				}
				all = append(all, f)
			}
			g := group(t, GroupConfig{Attempts: rapid.IntRange(1, 3).Draw(rt, "attempts")}, all...)
			err := g.Start(t.Context())
			left := map[string]bool{}
			var e *StartError
			if errors.As(err, &e) {
				for _, n := range e.Left {
					left[n] = true
				}
			}
			for _, m := range all {
				f := m.(*fake)
				if err == nil && !f.running {
					rt.Fatalf("started, but %s does not run", f.name)
				}
				if err != nil && f.running && !left[f.name] {
					rt.Fatalf("failed, and %s still runs unmentioned: %v", f.name, err)
				}
			}
		})
	})
}

func TestGroupRefusals(t *testing.T) {
	_, a, _, _ := three()
	for name, cfg := range map[string]GroupConfig{
		"twice":         {Services: []Item{{Movable: a}, {Movable: a}}},
		"twice a label": {Services: []Item{{Movable: a, Label: "c"}, {Movable: &fake{name: "mount:c"}}}},
		"negative time": {Services: []Item{{Movable: a, Limits: Limits{Stop: -1}}}},
		"attempts":      {Attempts: 101},
		"negative":      {Attempts: -1},
		"negative wait": {RetryWait: -1},
	} {
		if _, err := NewGroup(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// What ran down is restarted with what was started after it; what it depends on
// stays.
func TestRestartInPlace(t *testing.T) {
	log, a, b, c := three()
	g := group(t, GroupConfig{}, a, b, c)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.running, *log = false, nil
	if _, err := g.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLog(t, log, "-address:c -systemd:b +systemd:b +address:c")
	if err := g.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLog(t, log, "") // all is well
}

func TestRestartThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, a, b, c := three()
		g := group(t, GroupConfig{Attempts: 1}, a, b, c)
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.running, b.start, *log = false, []error{errors.New("no")}, nil
		if _, err := g.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		var start *StartError
		if err := g.Restart(t.Context()); !errors.As(err, &start) || start.ServiceName() != "systemd:b" || len(start.Left) > 0 {
			t.Errorf("%v", err)
		}
		wantLog(t, log, "-address:c -systemd:b +systemd:b -systemd:b") // the mount stays
		if s := g.Status(); s[0].State != Running || s[1].State != Failed || s[2].State != Stopped {
			t.Errorf("%+v", s)
		}
		// the next time only what is down is touched; a stop that fails is told
		c.running = false
		b.stop = []error{errors.New("busy")}
		var stop *StopError
		if err := g.Restart(t.Context()); !errors.As(err, &stop) || stop.Service != "systemd:b" {
			t.Errorf("%v", err)
		}
		wantLog(t, log, "-systemd:b")
	})
}

// gate is a service whose start waits until all of its stage have begun.
type gate struct {
	name    string
	begun   chan string
	all     <-chan struct{}
	fail    error
	starts  int
	stops   int
	mu      sync.Mutex
	running bool
}

func (s *gate) Name() string { return s.name }
func (s *gate) Start(ctx context.Context) error {
	s.mu.Lock()
	s.starts++
	s.mu.Unlock()
	s.begun <- s.name
	select {
	case <-s.all:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = s.fail == nil
	return s.fail
}

func (s *gate) Stop(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stops, s.running = s.stops+1, false
	return nil
}

func (s *gate) Monitor(context.Context) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running, nil
}

// Services that are parallel start at the same time, and stop so; one of them is
// restarted without the other.
func TestParallel(t *testing.T) {
	log, a, _, c := three()
	begun, all := make(chan string, 2), make(chan struct{})
	one, two := &gate{name: "exec:one", begun: begun, all: all}, &gate{name: "exec:two", begun: begun, all: all}
	g, err := NewGroup(GroupConfig{Resource: "pg", Services: []Item{{Movable: a}, {Movable: one}, {Movable: two, Parallel: true}, {Movable: c}}})
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() { started <- g.Start(t.Context()) }()
	<-begun
	<-begun // the second began before the first was done
	close(all)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	wantLog(t, log, "+mount:/a +address:c")
	two.running = false
	if _, err := g.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-begun
	wantLog(t, log, "-address:c +address:c")
	if one.starts != 1 || one.stops != 0 || two.starts != 2 || two.stops != 1 {
		t.Errorf("one %d starts %d stops, two %d starts %d stops", one.starts, one.stops, two.starts, two.stops)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLog(t, log, "-address:c -mount:/a")
	for _, s := range g.Status() {
		if s.State != Stopped {
			t.Errorf("%+v", s)
		}
	}
}

// When one of a stage does not start, the other is stopped with all before it.
func TestParallelThatFails(t *testing.T) {
	log, a, _, c := three()
	begun, all := make(chan string, 2), make(chan struct{})
	close(all)
	one := &gate{name: "exec:one", begun: begun, all: all}
	two := &gate{name: "exec:two", begun: begun, all: all, fail: errors.New("no")}
	g, err := NewGroup(GroupConfig{Resource: "pg", Attempts: 1, Services: []Item{{Movable: a}, {Movable: one}, {Movable: two, Parallel: true}, {Movable: c}}})
	if err != nil {
		t.Fatal(err)
	}
	var start *StartError
	if err := g.Start(t.Context()); !errors.As(err, &start) || start.Service != "exec:two" {
		t.Errorf("%v", err)
	}
	wantLog(t, log, "+mount:/a -mount:/a")
	if one.stops != 1 || two.stops != 1 {
		t.Errorf("one %d stops, two %d stops", one.stops, two.stops)
	}
	if _, err := NewGroup(GroupConfig{Resource: "pg", Services: []Item{{Movable: a, Parallel: true}}}); err == nil {
		t.Error("the first is parallel with none")
	}
}
