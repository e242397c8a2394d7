package watchdog

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	kernel "hapair/kernel/watchdog"
)

// box is a machine with a watchdog: it is reset when nobody pets it.
type box struct {
	timeout time.Duration
	took    time.Duration // the clock stood still for as long

	mu    sync.Mutex
	timer *time.Timer
	reset time.Duration // when; 0: it runs
	pets  int
	ended string
	err   error
	began time.Time
}

func newBox(timeout time.Duration) *box {
	b := &box{timeout: timeout, began: time.Now()}
	b.timer = time.AfterFunc(timeout, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.reset = b.now()
	})
	return b
}

func (b *box) now() time.Duration { return time.Since(b.began) + b.took }

func (b *box) Info() kernel.Info { return kernel.Info{Identity: "a box", Timeout: b.timeout} }

func (b *box) Pet() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	b.pets++
	b.timer.Reset(b.timeout)
	return nil
}

func (b *box) Disarm() error {
	b.timer.Stop()
	return b.Leave()
}

func (b *box) Leave() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = "closed"
	return nil
}

func (b *box) wasReset() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reset
}

// need is one that can be told.
type need struct {
	mu  sync.Mutex
	why string
}

func (n *need) say(why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.why = why
}

func (n *need) need(name string) Need {
	return Need{Name: name, Why: func(time.Duration) string {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.why
	}}
}

// A box whose needs are met runs on; one whose are not is reset a time-out after
// the last pet, and not before.
func TestPetsWhileAllIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(10 * time.Second)
		core, logged := observer.New(zap.WarnLevel)
		var told []string
		agent, lease := &need{}, &need{}
		k := Start(b, Config{Clock: b.now, Log: zap.New(core), Tell: func(s string, bad bool) { told = append(told, s) }}, agent.need("agent"))
		k.Add(lease.need("lease"))
		time.Sleep(time.Hour)
		if at := b.wasReset(); at != 0 || b.pets < 3600 || logged.Len() != 0 {
			t.Fatalf("reset at %v, after %d pets; %v", at, b.pets, logged.All())
		}
		lease.say("lost")
		time.Sleep(7 * time.Second)
		lease.say("") // just in time
		time.Sleep(time.Minute)
		if at := b.wasReset(); at != 0 || len(told) != 2 || !strings.Contains(told[0], "lease: lost") || !strings.Contains(told[1], "again") {
			t.Fatalf("reset at %v; told %q", at, told)
		}
		began := b.now()
		agent.say("hangs")
		lease.say("lost")
		time.Sleep(20 * time.Second)
		at := b.wasReset()
		if at < began+8*time.Second || at > began+10*time.Second {
			t.Errorf("reset at %v, not petted since %v", at, began)
		}
		if s := k.Status(); !strings.Contains(s.Withheld, "agent: hangs; lease: lost") || s.Petted < 19*time.Second || s.Timeout != 10*time.Second {
			t.Errorf("%+v", s)
		}
		if err := k.Leave(); err != nil {
			t.Error(err)
		}
	})
}

// In order it is disarmed; left, or condemned, it is not.
func TestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end   func(*Keeper) error
		reset bool
	}{
		"in order": {(*Keeper).Disarm, false}, "left": {(*Keeper).Leave, true},
		"condemned": {func(k *Keeper) error { k.Condemn("a pill"); return k.Disarm() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox(10 * time.Second)
				k := Start(b, Config{Clock: b.now, Log: zap.NewNop()})
				time.Sleep(time.Minute)
				if err := c.end(k); err != nil || b.ended != "closed" {
					t.Errorf("%v, %q", err, b.ended)
				}
				time.Sleep(11 * time.Second)
				if was := b.wasReset() != 0; was != c.reset {
					t.Errorf("reset: %v", was)
				}
			})
		})
	}
}

// One that is condemned is not petted once more, whatever its needs are.
func TestCondemned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(10 * time.Second)
		k := Start(b, Config{Clock: b.now, Log: zap.NewNop()})
		time.Sleep(time.Minute)
		k.Condemn("a pill")
		pets, began := b.pets, b.now()
		time.Sleep(time.Minute)
		if at := b.wasReset(); b.pets != pets || at > began+10*time.Second || at == 0 {
			t.Errorf("%d pets more, reset at %v", b.pets-pets, at)
		}
		if s := k.Status(); s.Withheld != "a pill" {
			t.Errorf("%+v", s)
		}
		if err := k.Leave(); err != nil {
			t.Error(err)
		}
	})
}

// A driver that fails is told of, and tried again. A machine that stood still for
// longer than the time-out and was not reset has a watchdog that is none.
func TestDriverFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(10 * time.Second)
		core, logged := observer.New(zap.WarnLevel)
		k := Start(b, Config{Clock: func() time.Duration { b.mu.Lock(); defer b.mu.Unlock(); return b.now() }, Log: zap.New(core)})
		time.Sleep(time.Minute)
		set := func(err error, took time.Duration) {
			b.mu.Lock()
			b.err, b.took = err, took
			b.mu.Unlock()
			time.Sleep(3 * time.Second)
		}
		set(errors.New("the bus is gone"), 0)
		if n := logged.FilterMessageSnippet("the bus is gone").Len(); n != 1 {
			t.Errorf("told %d times: %v", n, logged.All())
		}
		set(nil, 0)
		if s := k.Status(); s.Withheld != "" || s.Petted > 2*time.Second {
			t.Errorf("%+v", s)
		}
		set(nil, time.Hour)
		if n := logged.FilterMessageSnippet("does not bite").Len(); n != 1 {
			t.Errorf("told %d times: %v", n, logged.All())
		}
		if err := k.Disarm(); err != nil {
			t.Error(err)
		}
	})
}

// stuckTimer is one whose pets take as long as they are let.
type stuckTimer struct {
	*box
	begun, release chan struct{}
}

func (s stuckTimer) Pet() error {
	s.begun <- struct{}{}
	<-s.release
	return s.box.Pet()
}

// Nobody waits for a pet that hangs, and the one who is condemned meanwhile has no
// other.
func TestPetThatHangs(t *testing.T) {
	s := stuckTimer{newBox(time.Minute), make(chan struct{}, 10), make(chan struct{})}
	defer s.timer.Stop()
	k := Start(s, Config{Clock: s.now, Log: zap.NewNop()})
	<-s.begun
	done := make(chan Status, 1)
	go func() {
		k.Condemn("a pill")
		done <- k.Status()
	}()
	select {
	case got := <-done:
		if got.Withheld != "a pill" {
			t.Errorf("%+v", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for the pet")
	}
	close(s.release)
	if err := k.Disarm(); err != nil || s.ended != "closed" {
		t.Errorf("%v, %q", err, s.ended)
	}
	if got := k.Status(); got.Withheld != "a pill" || got.Pets != 1 || len(s.begun) != 0 {
		t.Errorf("%+v, and %d pets more", got, len(s.begun))
	}
}
