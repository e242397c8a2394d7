package fencing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hapair/fencing/device"
)

// fake is a device that answers what it is told to, after a while.
type fake struct {
	name  string
	takes time.Duration
	out   Outcome
	bad   error // of the monitor
	deaf  bool  // does not heed its context

	mu       sync.Mutex
	offs     []string // why
	met      []time.Time
	monitors int
	inside   int
	crossed  bool // asked two things at a time
}

func (f *fake) Name() string { return f.name }

func (f *fake) enter(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inside += n
	f.crossed = f.crossed || f.inside > 1
}

func (f *fake) wait(ctx context.Context) error {
	f.enter(1)
	defer f.enter(-1)
	f.mu.Lock()
	takes := f.takes
	f.mu.Unlock()
	if f.deaf {
		time.Sleep(takes)
		return nil
	}
	select {
	case <-time.After(takes):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *fake) Off(ctx context.Context, o device.Order) (Outcome, string) {
	f.mu.Lock()
	f.offs, f.met = append(f.offs, o.Node+" "+o.Why), append(f.met, o.Met)
	f.mu.Unlock()
	if err := f.wait(ctx); err != nil {
		return Unknown, err.Error()
	}
	return f.out, "as told"
}

func (f *fake) Monitor(ctx context.Context) error {
	f.mu.Lock()
	f.monitors++
	f.mu.Unlock()
	if err := f.wait(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bad
}

// now makes it behave otherwise from now on.
func (f *fake) now(takes time.Duration, bad error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.takes, f.bad = takes, bad
}

func (f *fake) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.offs)
}

func bind(d device.Device) Bound {
	return Bound{Device: d, Timeout: 20 * time.Second, Monitor: time.Minute}
}

func ok(name string) *fake    { return &fake{name: name, takes: time.Second, out: Confirmed} }
func bad(name string) *fake   { return &fake{name: name, takes: time.Second, out: Refused} }
func stuck(name string) *fake { return &fake{name: name, takes: time.Hour, out: Confirmed} }

// roomOf has the levels for node beta; each level is a list of devices.
func roomOf(t *testing.T, levels ...[]device.Device) *Room {
	t.Helper()
	cfg := Config{Self: "alpha", Nodes: map[string][]Level{"beta": nil}}
	for _, l := range levels {
		var level Level
		for _, d := range l {
			b := bind(d)
			if isManual(d) {
				b.Timeout = 0
			}
			level = append(level, b)
		}
		cfg.Nodes["beta"] = append(cfg.Nodes["beta"], level)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func one(d ...device.Device) []device.Device { return d }

// wait returns what fn does once the bubble has come to rest.
func later[T any](fn func() T) <-chan T {
	c := make(chan T, 1)
	go func() { c <- fn() }()
	synctest.Wait()
	return c
}

func wantReport(t *testing.T, got Report, out Outcome, dev string, took time.Duration, reasons ...string) {
	t.Helper()
	if got.Node != "beta" || got.Outcome != out || got.Device != dev || got.Took != took {
		t.Errorf("%s %s by %q in %s, want beta %s by %q in %s: %s", got.Node, got.Outcome, got.Device, got.Took, out, dev, took, got.Reason)
	}
	for _, r := range reasons {
		if !strings.Contains(got.Reason, r) {
			t.Errorf("no %q in the reason %q", r, got.Reason)
		}
	}
}

// Levels are tried in order, all devices of one must confirm, and only Confirmed counts.
func TestLevels(t *testing.T) {
	for _, c := range []struct {
		name   string
		levels [][]device.Device
		out    Outcome
		dev    string
		took   time.Duration
		reason string
	}{
		{"the first confirms", [][]device.Device{one(ok("a")), one(ok("b"))}, Confirmed, "a", time.Second, "level 1: a: confirmed"},
		{"the second confirms", [][]device.Device{one(bad("a")), one(ok("b"))}, Confirmed, "b", 2 * time.Second, "level 1: a: refused: as told; level 2: b: confirmed"},
		{"both supplies", [][]device.Device{one(ok("a"), ok("b"))}, Confirmed, "a + b", 2 * time.Second, "a: confirmed: as told, b: confirmed"},
		{"one supply only", [][]device.Device{one(ok("a"), bad("b"))}, Refused, "b", 2 * time.Second, "a: confirmed: as told, b: refused"},
		{"the other supply only", [][]device.Device{one(bad("a"), ok("b"))}, Refused, "a", time.Second, ""},
		{"too slow", [][]device.Device{one(stuck("a"))}, Unknown, "a", 20 * time.Second, "took too long: 20s"},
		{"too slow, then one that works", [][]device.Device{one(stuck("a")), one(ok("b"))}, Confirmed, "b", 21 * time.Second, ""},
		{"none says what it did", [][]device.Device{one(&fake{name: "a"}), one(&fake{name: "b"})}, Unknown, "b", 0, "level 1: a: unknown"},
		{"refused, then unknown", [][]device.Device{one(bad("a")), one(&fake{name: "b"})}, Unknown, "b", time.Second, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := roomOf(t, c.levels...)
				wantReport(t, r.Fence(t.Context(), "beta", "it is silent"), c.out, c.dev, c.took, c.reason)
				if h := r.Status().History; len(h) != 1 || h[0].Outcome != c.out {
					t.Errorf("history: %+v", h)
				}
			})
		})
	}
}

// A fence of the same node that is under way is joined, and told as one.
func TestJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := &fake{name: "a", takes: 10 * time.Second, out: Confirmed}
		r := roomOf(t, one(dev))
		first := later(func() Report { return r.Fence(t.Context(), "beta", "first") })
		time.Sleep(4 * time.Second)
		second := later(func() Report { return r.Fence(t.Context(), "beta", "second") })
		a, b := <-first, <-second
		wantReport(t, a, Confirmed, "a", 10*time.Second)
		if a != b || dev.asked() != 1 || dev.offs[0] != "beta first" {
			t.Errorf("the device was asked %q; %+v and %+v", dev.offs, a, b)
		}
		if again := r.Fence(t.Context(), "beta", "third"); again.Outcome != Confirmed || dev.asked() != 2 || !again.Began.After(a.Began) {
			t.Errorf("what is off is turned off again: %+v", again)
		}
	})
}

// Who asked may go; when nobody waits any more the fence is broken off, and the
// next is another one.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, next := &fake{name: "a", takes: 10 * time.Second, out: Confirmed}, ok("b")
		r := roomOf(t, one(slow), one(next))
		ctx1, cancel1 := context.WithCancel(t.Context())
		ctx2, cancel2 := context.WithCancelCause(t.Context())
		first := later(func() Report { return r.Fence(ctx1, "beta", "first") })
		second := later(func() Report { return r.Fence(ctx2, "beta", "second") })
		cancel1()
		if a := <-first; a.Outcome != Unknown {
			t.Errorf("who gave up got %+v", a)
		}
		synctest.Wait()
		if r.Status().Nodes[0].Fence == nil {
			t.Error("the fence ended although one waits for it")
		}
		cancel2(errors.New("beta is back"))
		b := <-second
		synctest.Wait()
		if b.Outcome != Unknown || !strings.Contains(b.Reason, "beta is back") || next.asked() != 0 || r.Status().Nodes[0].Fence != nil {
			t.Errorf("%+v; the next level was asked %d times", b, next.asked())
		}
		if h := r.Status().History; len(h) != 1 || h[0].Outcome != Unknown || !strings.Contains(h[0].Reason, "nobody waits") {
			t.Errorf("history: %+v", h)
		}
		if gone := r.Fence(ctx1, "beta", "too late"); gone.Outcome != Unknown || slow.asked() != 1 {
			t.Errorf("%+v, and the device was asked %d times", gone, slow.asked())
		}
	})
}

// A fence that is being broken off is not joined: the next waits for its end.
func TestNotJoinedWhileBreakingOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := &fake{name: "a", takes: 10 * time.Second, out: Confirmed, deaf: true}
		r := roomOf(t, one(dev))
		ctx, cancel := context.WithCancel(t.Context())
		first := later(func() Report { return r.Fence(ctx, "beta", "first") })
		cancel()
		<-first
		got := r.Fence(t.Context(), "beta", "second")
		if got.Outcome != Confirmed || got.Took != 10*time.Second || !slices.Equal(dev.offs, []string{"beta first", "beta second"}) {
			t.Errorf("%+v after %q", got, dev.offs)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := roomOf(t, one(stuck("a")))
		waits := later(func() Report { return r.Fence(t.Context(), "beta", "x") })
		r.Close()
		if got := <-waits; got.Outcome != Unknown || !strings.Contains(got.Reason, "the agent stops") {
			t.Errorf("%+v", got)
		}
		if got := r.Fence(t.Context(), "beta", "x"); got.Outcome != Refused {
			t.Errorf("after the end: %+v", got)
		}
	})
}

// A node without devices, and this one, are not fenced.
func TestNoDevice(t *testing.T) {
	r := roomOf(t, one(ok("a")))
	for node, why := range map[string]string{"gamma": "no fence device is configured for node gamma", "alpha": "does not fence itself"} {
		if got := r.Fence(t.Context(), node, "x"); got.Outcome != Refused || !strings.Contains(got.Reason, why) {
			t.Errorf("%s: %+v", node, got)
		}
		if err := r.Ready(node); !errors.Is(err, ErrNoDevice) {
			t.Errorf("ready %s: %v", node, err)
		}
		if err := r.Confirm(node, "root"); !errors.Is(err, ErrNoDevice) {
			t.Errorf("confirm %s: %v", node, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	good := bind(ok("a"))
	none, never, endless := good, good, good
	none.Monitor, never.Timeout, endless.Timeout = 0, -1, 0
	for name, nodes := range map[string]map[string][]Level{
		"itself": {"alpha": {{good}}}, "no levels": {"beta": nil}, "an empty level": {"beta": {{}}}, "no interval": {"beta": {{none}}},
		"negative": {"beta": {{never}}}, "endless": {"beta": {{endless}}}, "too many": {"beta": slices.Repeat([]Level{{good}}, levelsMax+1)},
	} {
		if _, err := New(Config{Self: "alpha", Nodes: nodes}); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// The history and the reasons are bounded.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told int
		long := strings.Repeat("é", reasonMax)
		r, err := New(Config{Self: "alpha", Nodes: map[string][]Level{"beta": {{bind(&fake{name: long})}}}, OnReport: func(Report) { told++ }})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for i := range historyMax + 3 {
			r.Fence(t.Context(), "beta", fmt.Sprint(i))
		}
		h := r.Status().History
		if len(h) != historyMax || told != historyMax+3 || len(h[0].Reason) > reasonMax || !strings.Contains(h[0].Reason, " ... ") {
			t.Errorf("%d reports kept, %d told; a reason of %d bytes", len(h), told, len(h[0].Reason))
		}
	})
}

// The word of an operator ends a fence that waits for it, whatever the levels do.
func TestConfirm(t *testing.T) {
	for name, levels := range map[string][][]device.Device{
		"manual is the last level": {one(bad("a")), one(Manual())}, "the only one": {one(Manual())}, "no manual device": {one(stuck("a"))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := roomOf(t, levels...)
				if err := r.Confirm("beta", "eve"); !errors.Is(err, ErrNothingToConfirm) {
					t.Errorf("before any fence: %v", err)
				}
				waits := later(func() Report { return r.Fence(t.Context(), "beta", "x") })
				time.Sleep(5 * time.Second)
				if f := r.Status().Nodes[0].Fence; f == nil || f.Waiting != (name != "no manual device") {
					t.Errorf("under way: %+v", f)
				}
				if err := r.Confirm("beta", "eve"); err != nil {
					t.Fatal(err)
				}
				wantReport(t, <-waits, Confirmed, "manual", 5*time.Second, "confirmed by the operator eve")
				if err := r.Confirm("beta", "eve"); !errors.Is(err, ErrNothingToConfirm) {
					t.Errorf("after a confirmed one: %v", err)
				}
			})
		})
	}
}

// A word about a fence that failed is for the next one, for a while, and as long
// as the two have not met.
func TestConfirmFailed(t *testing.T) {
	for name, c := range map[string]struct {
		wait time.Duration
		met  bool
		want Outcome
	}{"at once": {time.Minute, false, Confirmed}, "too late": {wordLasts, false, Refused}, "they met": {time.Minute, true, Refused}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dev := bad("a")
				r := roomOf(t, one(dev))
				r.Fence(t.Context(), "beta", "x")
				at := time.Now()
				if err := r.Confirm("beta", "eve"); err != nil {
					t.Fatal(err)
				}
				if h := r.Status().History; len(h) != 2 || h[1].Outcome != Confirmed || !strings.Contains(h[1].Reason, "a: refused: as told; confirmed by the operator eve") {
					t.Errorf("history: %+v", h)
				}
				time.Sleep(c.wait)
				if c.met {
					r.Met("beta")
				}
				got := r.Fence(t.Context(), "beta", "y")
				if got.Outcome != c.want || c.want == Confirmed && (!got.Began.Equal(at) || dev.asked() != 1) {
					t.Errorf("%+v, word given at %s", got, at)
				}
				if got := r.Fence(t.Context(), "beta", "z"); got.Outcome != Refused {
					t.Errorf("a word counts twice: %+v", got)
				}
			})
		})
	}
}

// Devices are monitored at once and at their interval; Ready goes by that.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := ok("a"), ok("b"), ok("c")
		b.bad = errors.New("login denied")
		r := roomOf(t, one(a, b), one(c))
		if err := r.Ready("beta"); err == nil || !strings.Contains(err.Error(), "not checked yet") {
			t.Errorf("before the first monitor: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := later(func() bool { r.Run(ctx); return true })
		time.Sleep(2 * time.Second)
		if err := r.Ready("beta"); err != nil {
			t.Errorf("level 2 is good: %v", err)
		}
		c.now(time.Second, errors.New("no route"))
		time.Sleep(time.Minute)
		err := r.Ready("beta")
		if err == nil || !strings.Contains(err.Error(), "level 1: b: login denied") || !strings.Contains(err.Error(), "level 2: c: no route") {
			t.Errorf("no level is good: %v", err)
		}
		b.now(time.Hour, nil)
		time.Sleep(90 * time.Second)
		if err := r.Ready("beta"); err == nil || !strings.Contains(err.Error(), "b: took too long: 20s") {
			t.Errorf("it hangs: %v", err)
		}
		cancel()
		<-ended
		if a.monitors != 3 {
			t.Errorf("a was monitored %d times", a.monitors)
		}
	})
}

// A fence does not wait for a monitor, and no device is asked two things at a time.
func TestFenceOverMonitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := &fake{name: "a", takes: 15 * time.Second, out: Confirmed}
		r := roomOf(t, one(dev))
		ctx, cancel := context.WithCancel(t.Context())
		ended := later(func() bool { r.Run(ctx); return true })
		wantReport(t, r.Fence(t.Context(), "beta", "x"), Confirmed, "a", 15*time.Second)
		if err := r.Ready("beta"); err == nil || !strings.Contains(err.Error(), "not checked yet") {
			t.Errorf("a monitor that was broken off says: %v", err)
		}
		time.Sleep(2 * time.Minute)
		cancel()
		<-ended
		if err := r.Ready("beta"); err != nil || dev.crossed {
			t.Errorf("%v; asked two things at a time: %v", err, dev.crossed)
		}
	})
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := roomOf(t, one(bad("a")), one(stuck("b"), ok("c")), one(Manual()))
		waits := later(func() Report { return r.Fence(t.Context(), "beta", "it is silent") })
		time.Sleep(2 * time.Second)
		s := r.Status()
		n := s.Nodes[0]
		if len(s.Nodes) != 1 || n.Node != "beta" || n.Takes != time.Minute || len(n.Devices) != 4 || n.Devices[2].Level != 2 || n.Last != nil {
			t.Errorf("%+v", s)
		}
		if f := n.Fence; f == nil || f.Level != 2 || f.Why != "it is silent" || !strings.Contains(f.Failed, "level 1: a: refused") || f.Waiting {
			t.Errorf("under way: %+v", n.Fence)
		}
		r.Close()
		<-waits
		if last := r.Status().Nodes[0].Last; last == nil || last.Outcome != Unknown {
			t.Errorf("last: %+v", last)
		}
	})
}
