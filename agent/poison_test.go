package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hapair/agent/config"
	"hapair/fencing/device"
	"hapair/fencing/sbd"
	"hapair/fencing/watchdog"
)

var pairOwner = sbd.Owner{Cluster: "shop", Nodes: []string{"alpha", "beta"}}

// poisoned is an agent that reads a disk, which is made if it is to be.
func poisoned(t *testing.T, a *agent, path string, made bool) {
	t.Helper()
	a.cfg.Cluster = "shop"
	a.cfg.Fencing = []config.NodeFencing{{Node: "alpha", Devices: []config.FenceDevice{{SBD: path, Timeout: time.Minute}}}}
	if !made {
		return
	}
	if _, err := sbd.Create(path, pairOwner, true); errors.Is(err, sbd.ErrBuffered) {
		t.Skipf("needs a directory that is not in memory: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// A pill does not wait for a pet that hangs: the watchdog's board may have hung, and the
// machine is reset without it.
func TestPillWhileAPetHangs(t *testing.T) {
	a, b := dogWorld(t, "boot 1", t.TempDir())
	begun, release := make(chan struct{}, 1), make(chan struct{})
	b.hang = func() {
		select {
		case begun <- struct{}{}:
		default:
		}
		<-release
	}
	if err := a.startWatchdog(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-begun
	reset := make(chan struct{})
	resetNow = func(watchdog.Timer, string) error { close(reset); return nil }
	p := &poison{armed: make(chan struct{})}
	close(p.armed)
	doomed := make(chan struct{})
	go func() {
		defer close(doomed)
		p.doom(a, a.dog)("a pill")
	}()
	select {
	case <-reset:
	case <-time.After(10 * time.Second):
		t.Error("not reset while a pet hangs")
	}
	close(release)
	<-doomed
	if s := a.watchdogStatus(); s.Because != "a pill" {
		t.Errorf("%+v", s)
	}
	if err := a.stop(); err != nil || !b.left {
		t.Errorf("%v; left armed: %v", err, b.left)
	}
}

// fencedByBeta is what beta's agent makes of a fence of alpha.
func fencedByBeta(t *testing.T, a *agent, path string) (device.Outcome, string) {
	word := a.dog.word()
	return sbd.New(sbd.DeviceConfig{Path: path, Open: func() (sbd.Disk, error) { return sbd.OpenDisk(path) }, Owner: pairOwner, Self: "beta", Node: "alpha",
		Life: sbd.Name("beta"), Timeout: time.Minute, Hears: func() bool { return false }, Met: func() (string, bool) { return word, true }}).Off(t.Context(), device.Order{Node: "alpha", Why: "test"})
}

// An agent says on the disk that its watchdog is armed, heeds a pill there, and says
// when it is disarmed.
func TestPoisonOfAnAgent(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	for name, stops := range map[string]bool{"fenced": false, "stopped": true} {
		t.Run(name, func(t *testing.T) {
			run := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				a, b := dogWorld(t, "boot 1", run)
				poisoned(t, a, path, true)
				if err := a.startWatchdog(t.Context()); err != nil {
					t.Fatal(err)
				}
				a.stage("starting", time.Hour)
				time.Sleep(time.Minute)
				l, err := sbd.Show(path)
				if s := l.Slots[0].Slot; err != nil || !s.Armed || s.Timeout != 10*time.Second || s.Life != sbd.Name("boot 1") || b.wasReset() {
					t.Fatalf("%+v, %v; reset: %v", l, err, b.wasReset())
				}
				if s := a.watchdogStatus(); s.Disk != path || s.DiskBecause != "" || a.dog.word() != l.Slots[0].Slot.Word() {
					t.Errorf("%+v, %q", s, a.dog.word())
				}
				if stops {
					if err := a.stop(); err != nil {
						t.Error(err)
					}
				}
				out, said := fencedByBeta(t, a, path)
				if b.wasReset() == stops || out != map[bool]device.Outcome{true: device.Refused, false: device.Confirmed}[stops] {
					t.Errorf("%v: %s; reset: %v", out, said, b.wasReset())
				}
				if !stops {
					if err := a.stop(); err == nil || !b.left {
						t.Errorf("who has a pill is disarmed: %v", err)
					}
				}
			})
		})
	}
}

// A pill for this boot ends an agent that is started again; nothing of an earlier one
// does.
func TestPoisonAtTheStart(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	for boot, dies := range map[string]bool{"boot 1": true, "boot 2": false} {
		t.Run(boot, func(t *testing.T) {
			run := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				a, _ := dogWorld(t, "boot 1", run)
				poisoned(t, a, path, true)
				if err := a.startWatchdog(t.Context()); err != nil {
					t.Fatal(err)
				}
				killed(t, a)
				if out, said := fencedByBeta(t, a, path); out != device.Confirmed {
					t.Fatalf("%v: %s", out, said)
				}
				again, b := dogWorld(t, boot, run)
				poisoned(t, again, path, false)
				err := again.startWatchdog(t.Context())
				if errors.Is(err, sbd.ErrPill) != dies || b.wasReset() != dies || (again.dog == nil) != dies {
					t.Errorf("%v; reset: %v", err, b.wasReset())
				}
				if err := again.stop(); err != nil {
					t.Error(err)
				}
				b.timer.Stop()
			})
		})
	}
}

// killed ends an agent's looks at the disk, and leaves the watchdog armed.
func killed(t *testing.T, a *agent) {
	t.Helper()
	a.dog.poison.reader.Halt()
	if err := a.dog.keeper.Leave(); err != nil {
		t.Fatal(err)
	}
}

// A node that has just booted goes on without a disk that it cannot read, and says so,
// and so does one that has said on none that its watchdog is armed; one that has does not:
// others rely on that.
func TestPoisonWithoutDisk(t *testing.T) {
	for name, c := range map[string]struct {
		note string
		dies bool
	}{"a fresh boot": {"", false}, "killed in this boot, with a disk": {"boot 1\n" + sbd.Name("disk").String() + "\n", true}, "killed in this boot, without": {"boot 1\n\n", false},
		"killed in another boot": {"boot 0\n" + sbd.Name("disk").String() + "\n", false}} {
		t.Run(name, func(t *testing.T) {
			run := t.TempDir()
			if c.note != "" {
				if err := os.WriteFile(filepath.Join(run, bootFile), []byte(c.note), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				a, b := dogWorld(t, "boot 1", run)
				poisoned(t, a, filepath.Join(run, "nowhere"), false)
				err := a.startWatchdog(t.Context())
				if (err != nil) != c.dies || a.dog.word() != "" || (a.dog == nil) != c.dies {
					t.Fatalf("%v, %q", err, a.dog.word())
				}
				if c.dies {
					b.timer.Stop()
					return
				}
				a.stage("starting", time.Hour)
				time.Sleep(time.Minute)
				if s := a.watchdogStatus(); b.wasReset() || !strings.Contains(s.DiskBecause, "cannot be fenced by it until its agent is started again") {
					t.Errorf("reset: %v; %+v", b.wasReset(), s)
				}
				if err := a.stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// An agent that was killed, and is started again in the same boot with another disk or
// none, does not go on: the other node may rely on what is on the disk of before.
func TestPoisonOnAnotherDisk(t *testing.T) {
	dir := t.TempDir()
	path, another := filepath.Join(dir, "disk"), filepath.Join(dir, "another")
	for name, c := range map[string]struct {
		path string
		goes bool
	}{"that disk": {path, true}, "another": {another, false}, "none": {"", false}} {
		t.Run(name, func(t *testing.T) {
			run := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				a, b := dogWorld(t, "boot 1", run)
				poisoned(t, a, another, true)
				poisoned(t, a, path, true)
				if err := a.startWatchdog(t.Context()); err != nil {
					t.Fatal(err)
				}
				killed(t, a)
				b.timer.Stop()
				for range 2 { // the note stays
					again, b := dogWorld(t, "boot 1", run)
					poisoned(t, again, c.path, false)
					if err := again.startWatchdog(t.Context()); (err == nil) != c.goes || c.goes == (again.dog == nil) || b.left {
						t.Errorf("%v", err)
					}
					if c.goes {
						killed(t, again)
					}
					b.timer.Stop()
				}
			})
		})
	}
}
