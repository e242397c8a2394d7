package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"hapair/agent/api"
	"hapair/agent/config"
	"hapair/agent/systemd"
	"hapair/fencing/watchdog"
	kernel "hapair/kernel/watchdog"
)

// fakeBox is a machine whose watchdog is held by a test.
type fakeBox struct {
	mu      sync.Mutex
	timer   *time.Timer
	timeout time.Duration
	reset   bool
	left    bool
	was     bool   // the agent has said that it may be armed already
	stays   bool   // it cannot be disarmed
	hang    func() // what a pet waits for; nil: nothing
}

func (b *fakeBox) Info() kernel.Info {
	return kernel.Info{Path: "fake", Timeout: b.timeout, NoWayOut: b.stays}
}

func (b *fakeBox) Pet() error {
	if b.hang != nil {
		b.hang()
	}
	b.timer.Reset(b.timeout)
	return nil
}

func (b *fakeBox) Disarm() error {
	if !b.stays {
		b.timer.Stop()
	}
	return nil
}

func (b *fakeBox) Leave() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = true
	return nil
}

func (b *fakeBox) wasReset() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reset
}

// dogWorld is an agent with nothing but a watchdog, in a boot of its machine.
func dogWorld(t *testing.T, boot, dir string) (*agent, *fakeBox) {
	t.Helper()
	began := time.Now()
	b := &fakeBox{timeout: 10 * time.Second}
	b.timer = time.AfterFunc(b.timeout, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.reset = true
	})
	wasOpen, wasBoot, wasReset := openWatchdog, bootID, resetNow
	resetNow = func(watchdog.Timer, string) error { // never the real one
		b.mu.Lock()
		defer b.mu.Unlock()
		b.reset = true
		return nil
	}
	openWatchdog = func(_ string, _ time.Duration, armed bool) (watchdog.Timer, error) {
		b.was = armed
		return b, nil
	}
	bootID = func() (string, error) { return boot, nil }
	t.Cleanup(func() { openWatchdog, bootID, resetNow = wasOpen, wasBoot, wasReset })
	a := &agent{self: "alpha", log: zap.NewNop(), clock: func() time.Duration { return time.Since(began) }, boss: systemd.New(zap.NewNop()), hub: api.NewHub("alpha", time.Now)}
	a.cfg = &config.Config{RunDir: dir, Nodes: []config.Node{{Name: "alpha"}, {Name: "beta"}},
		Watchdog: &config.Watchdog{Device: "fake", Timeout: 10 * time.Second, OnNoQuorum: config.WatchdogWait}}
	return a, b
}

// A start, and a stop, may take as long as their stages; loops have to turn, and a
// stop in order disarms.
func TestWatchdogOfAnAgent(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a, b := dogWorld(t, "boot 1", dir)
		if err := a.startWatchdog(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			a.stage("starting: something", time.Minute)
			time.Sleep(time.Minute)
		}
		turns := true
		a.dog.runs([]systemd.Loop{{Name: "ledger", Turned: func() time.Duration {
			if turns {
				return a.clock()
			}
			return 0
		}}})
		time.Sleep(time.Hour)
		if s := a.watchdogStatus(); b.wasReset() || s == nil || s.Because != "" || s.TimeoutMS != 10_000 {
			t.Fatalf("reset: %v; %+v", b.wasReset(), s)
		}
		turns = false // for a minute that is systemd's affair
		a.dog.runs(a.dog.loops)
		time.Sleep(stuckFor)
		if b.wasReset() {
			t.Fatal("reset before systemd could end it")
		}
		time.Sleep(15 * time.Second)
		if s := a.watchdogStatus(); !b.wasReset() || s.Because != "the agent: does not go on: ledger" {
			t.Errorf("not reset; %+v", s)
		}
		if err := a.stop(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 || b.left {
			t.Errorf("left armed: %v; the directory holds %v, %v", b.left, left, err)
		}
	})
}

// A start that hangs is not petted for ever.
func TestWatchdogOfAStartThatHangs(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a, b := dogWorld(t, "boot 1", dir)
		if err := a.startWatchdog(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.stage("starting: something that hangs", time.Minute)
		time.Sleep(time.Minute)
		if b.wasReset() {
			t.Error("reset while it may still go on")
		}
		time.Sleep(stageSlack + 11*time.Second)
		if !b.wasReset() {
			t.Error("not reset")
		}
		if err := a.stop(); err != nil {
			t.Error(err)
		}
	})
}

// What an agent that was killed has left behind ends with the machine when no other
// agent comes up; a fresh boot whose agent does not start is left alone, or it would
// be reset for ever.
func TestWatchdogOfAFailedStart(t *testing.T) {
	for name, c := range map[string]struct {
		note string
		left bool
	}{"killed in this boot": {"boot 1\n", true}, "a fresh boot": {"", false}, "killed in another boot": {"boot 0\n", false}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.note != "" {
				if err := os.WriteFile(filepath.Join(dir, bootFile), []byte(c.note), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				a, b := dogWorld(t, "boot 1", dir)
				if err := a.startWatchdog(t.Context()); err != nil {
					t.Fatal(err)
				}
				a.failed = true
				err := a.stop()
				_, note := os.Stat(filepath.Join(dir, bootFile))
				if b.left != c.left || b.was != c.left || c.left != (err != nil && strings.Contains(err.Error(), "stays armed")) || c.left != (note == nil) {
					t.Errorf("left armed: %v, %v; the note: %v", b.left, err, note)
				}
			})
		})
	}
}

// A watchdog that cannot be disarmed is petted on after a start that failed, until the
// agent is told to end: the machine is not reset again and again for a mistake. What an
// earlier life has left ends with the machine all the same.
func TestWatchdogWithoutAWayOut(t *testing.T) {
	for name, note := range map[string]string{"a fresh boot": "", "killed in this boot": "boot 1\n"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, bootFile), []byte(note), 0o600); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				a, b := dogWorld(t, "boot 1", dir)
				b.stays = true
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if err := a.startWatchdog(ctx); err != nil {
					t.Fatal(err)
				}
				a.failed = true
				ended := make(chan error, 1)
				go func() { ended <- a.stop() }()
				time.Sleep(time.Hour)
				if note != "" {
					if err := <-ended; err == nil || !b.wasReset() {
						t.Errorf("%v; reset: %v", err, b.wasReset())
					}
					return
				}
				if len(ended) != 0 || b.wasReset() {
					t.Fatalf("ended: %d; reset: %v", len(ended), b.wasReset())
				}
				cancel()
				if err := <-ended; err != nil || b.wasReset() {
					t.Errorf("%v; reset: %v", err, b.wasReset())
				}
				if time.Sleep(11 * time.Second); !b.wasReset() {
					t.Error("not reset, although nobody has started it again: this test would see nothing")
				}
			})
		})
	}
}

// While the machine boots, a device that is not there yet is waited for.
func TestWatchdogThatComesLate(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a, b := dogWorld(t, "boot 1", dir)
		b.timer.Stop()
		a.cfg.Watchdog.Device = "/dev/there-is-no-such-device"
		began := time.Now()
		openWatchdog = func(string, time.Duration, bool) (watchdog.Timer, error) { return nil, kernel.ErrMissing }
		if err := a.startWatchdog(t.Context()); !errors.Is(err, kernel.ErrMissing) || time.Since(began) != bootPatience {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := a.startWatchdog(t.Context()); !errors.Is(err, kernel.ErrMissing) || time.Since(began) != bootPatience {
			t.Errorf("%v after %v: the boot is long since over", err, time.Since(began))
		}
	})
}

// A device that cannot be opened is an error, and nothing is noted.
func TestWatchdogThatIsMissing(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a, b := dogWorld(t, "boot 1", dir)
		b.timer.Stop()
		openWatchdog = func(string, time.Duration, bool) (watchdog.Timer, error) { return nil, kernel.ErrBusy }
		if err := a.startWatchdog(t.Context()); !errors.Is(err, kernel.ErrBusy) {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 || a.dog != nil || a.stop() != nil {
			t.Errorf("the directory holds %v, %v", left, err)
		}
		a.dog.runs(nil)
		if a.dog.bites() != 0 || a.watchdogStatus() != nil {
			t.Error("there is one all the same")
		}
	})
}
