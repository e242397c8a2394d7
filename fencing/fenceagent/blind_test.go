package fenceagent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hapair/fencing/device"
)

// switched sets what the fake agent says of its node.
func switched(t *testing.T, cfg Config, off bool) {
	t.Helper()
	file := filepath.Join(cfg.Options["state"], "off")
	err := os.WriteFile(file, nil, 0o600)
	if !off {
		err = os.Remove(file)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func wantOff(t *testing.T, a *Agent, o device.Order, want device.Outcome, text string) {
	t.Helper()
	if out, said := a.Off(t.Context(), o); out != want || !strings.Contains(said, text) {
		t.Errorf("%s: %s; want %s: %s", out, said, want, text)
	}
}

// A node that is off beforehand is proven off by a device that has said on of it since
// the two met last: by a monitor, or the fence before.
func TestOffBeforehand(t *testing.T) {
	const unproven = "it has not said on of the node since the two nodes met last"
	cfg, _ := fake(t, "")
	a := newAgent(t, cfg)
	met := device.Order{Node: "beta", Met: time.Now()}
	switched(t, cfg, true)
	if err := a.Monitor(t.Context()); err != nil {
		t.Errorf("a node that is not heard may be off: %v", err)
	}
	wantOff(t, a, met, device.Unknown, unproven)
	switched(t, cfg, false)
	if err := a.Monitor(t.Context()); err != nil {
		t.Error(err)
	}
	switched(t, cfg, true)
	wantOff(t, a, met, device.Confirmed, "its status is off")
	wantOff(t, a, device.Order{Node: "beta", Met: time.Now()}, device.Unknown, unproven)
	wantOff(t, a, device.Order{Node: "beta"}, device.Unknown, unproven)
	switched(t, cfg, false)
	met.Met = time.Now()
	wantOff(t, a, met, device.Confirmed, "its status is off")
	wantOff(t, a, met, device.Confirmed, "its status is off")
}

// A device that says off of a node that runs cannot be used, whatever it has said
// before, and confirms nothing. What was heard before it said so is no contradiction.
func TestMonitorOfTheBlind(t *testing.T) {
	for name, c := range map[string]struct {
		heard func() time.Time
		want  error
	}{
		"heard":        {time.Now, ErrBlind},
		"heard a word": {after(), ErrBlind},
		"fell silent":  {always(time.Now()), nil},
		"silent":       {always(time.Now().Add(-time.Minute)), nil},
		"never heard":  {always(time.Time{}), nil},
		"nobody knows": {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, _ := fake(t, "")
			cfg.Heard = Heard{c.heard, time.Second}
			a := newAgent(t, cfg)
			met := device.Order{Node: "beta", Met: time.Now()}
			if err := a.Monitor(t.Context()); err != nil {
				t.Errorf("it says on: %v", err)
			}
			switched(t, cfg, true)
			if err := a.Monitor(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			want := device.Confirmed
			if c.want != nil {
				want = device.Unknown
			}
			wantOff(t, a, met, want, "its status is off")
		})
	}
}

func always(at time.Time) func() time.Time { return func() time.Time { return at } }

// after has a node answer once more, a while later.
func after() func() time.Time {
	var first time.Time
	return func() time.Time {
		if first.IsZero() {
			first = time.Now()
		}
		if time.Since(first) > 100*time.Millisecond {
			return time.Now()
		}
		return first.Add(-time.Millisecond)
	}
}

// A status that cannot be read makes a device unusable: nothing would prove a fence.
func TestMonitorWithoutStatus(t *testing.T) {
	for mode, want := range map[string]string{"mute": "its status ends with exit code 0", "args": `does not say "Status: OFF": usage`, "deny-status": "status: exit code 3 (login denied)"} {
		cfg, _ := fake(t, mode)
		if err := newAgent(t, cfg).Monitor(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

// The real fence_virsh says off where there is no virsh, of whatever machine.
func TestVirshIsMissing(t *testing.T) {
	if _, err := os.Stat(Dir + "/fence_virsh"); err != nil {
		t.Skipf("needs fence-agents: %v; run: sudo apt-get install -y fence-agents", err)
	}
	dir := t.TempDir()
	ssh, key := filepath.Join(dir, "ssh"), filepath.Join(dir, "key")
	const host = "#!/bin/sh\nprintf '[EXPECT]# '\nwhile read -r line; do echo \"bash: line 1: virsh: command not found\"; printf '[EXPECT]# '; done\n"
	for name, text := range map[string]string{ssh: host, key: "none\n"} {
		if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	a := newAgent(t, Config{Agent: "fence_virsh", Heard: Heard{time.Now, time.Second},
		Options: map[string]string{"ip": "127.0.0.1", "username": "root", "identity_file": key, "plug": "beta", "ssh_path": ssh}})
	met := device.Order{Node: "beta", Met: time.Now()}
	if err := a.Monitor(t.Context()); !errors.Is(err, ErrBlind) {
		t.Errorf("monitor: %v", err)
	}
	wantOff(t, a, met, device.Unknown, "it has not said on of the node")
}
