package lab

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hapair/agent/config"
	"hapair/fencing/device"
	"hapair/fencing/fenceagent"
)

// speak asks the fence agent from inside a node, as a program there would.
func speak(t *testing.T, l *Lab, from, action, plug string) (said string, code int) {
	t.Helper()
	out, err := l.Run(t.Context(), from, "sh", "-c", fmt.Sprintf("printf 'action=%s\\nplug=%s\\ndir=%s\\n' | %s", action, plug, l.Dir(), l.FenceProgram()))
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return strings.TrimSpace(out), code
}

// A node switches another one off by its fence agent: every process there dies,
// nothing says goodbye, and only then is it off.
func TestFence(t *testing.T) {
	l := newLab(t, nil)
	left := exec.Command("/bin/sh", "-c", "trap '' TERM; sleep 1000")
	if err := l.Enter("alpha", left); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- left.Wait() }()
	for _, step := range []struct {
		action, said string
		code         int
	}{
		{"monitor", "", 0}, {"status", "Status: ON", 0}, {"on", "fence_halab: " + errInside.Error(), 1}, {"reboot", "fence_halab: " + errInside.Error(), 1},
		{"off", "", 0}, {"status", "Status: OFF", 2}, {"off", "", 0},
	} {
		if said, code := speak(t, l, "beta", step.action, "alpha"); said != step.said || code != step.code {
			t.Fatalf("%s: %q, exit code %d; want %q, %d", step.action, said, code, step.said, step.code)
		}
	}
	var how *exec.ExitError
	if err := <-ended; !errors.As(err, &how) || how.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("a process of a fenced node ended by %v", err)
	}
	if reaches(t, l, "beta", "alpha", Crossover) || reaches(t, l, "gamma", "alpha", LAN) {
		t.Error("a fenced node answers")
	}
	for _, bad := range []string{"nobody", ""} {
		if said, code := speak(t, l, "beta", "off", bad); code != 1 || !strings.Contains(said, "no node") {
			t.Errorf("%q: %q, %d", bad, said, code)
		}
	}
	if err := l.PowerOn("alpha"); err != nil {
		t.Fatal(err)
	}
	if err := l.AwaitAPI(t.Context(), "alpha"); err != nil {
		t.Fatal(err)
	}
	if said, code := speak(t, l, "beta", "status", "alpha"); said != "Status: ON" || code != 0 {
		t.Errorf("on again: %q, %d", said, code)
	}
	if !await(t.Context(), 5*time.Second, func() bool { return reaches(t, l, "beta", "alpha", Crossover) }) {
		t.Error("a node that is on again is not reached")
	}
}

// hapair's fence device takes the lab's agent for what it is, and what the lab has
// switched off itself, for off.
func TestFenceDevice(t *testing.T) {
	l := newLab(t, nil)
	cfg := fenceagent.Config{Agent: l.FenceProgram(), Options: l.FenceOptions("alpha")}
	if err := fenceagent.Check(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	dev, err := fenceagent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	met := time.Now()
	if err := dev.Monitor(t.Context()); err != nil {
		t.Error(err)
	}
	for range 2 {
		if out, said := dev.Off(t.Context(), device.Order{Node: "alpha", Met: met}); out != device.Confirmed {
			t.Errorf("%s: %s", out, said)
		}
	}
	if err := l.PowerOff("beta"); err != nil {
		t.Fatal(err)
	}
	if said, code := speak(t, l, "gamma", "status", "beta"); said != "Status: OFF" || code != 2 {
		t.Errorf("%q, %d", said, code)
	}
	delete(cfg.Options, "plug")
	if err := fenceagent.Check(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "needs option plug") {
		t.Errorf("without a plug: %v", err)
	}
}

// What is on as far as it was written down, and has no process 1, is not off.
func TestPowerUnknown(t *testing.T) {
	dir := t.TempDir()
	outlet, err := openOutlet(dir)
	if err != nil {
		t.Fatal(err)
	}
	if power, err := powerOf(dir); err != nil || power != powerOn {
		t.Errorf("%q, %v", power, err)
	}
	if err := outlet.Close(); err != nil {
		t.Fatal(err)
	}
	if power, err := powerOf(dir); err == nil {
		t.Errorf("nobody listens, and it is %q", power)
	}
	if err := switchOff(t.Context(), dir, time.Millisecond); err == nil {
		t.Error("switched off what nobody knows of")
	}
}

// A pair that arbitrates by fencing gets a device for each node.
func TestFencingConfig(t *testing.T) {
	o := Options{Dir: t.TempDir(), Witness: "-", Arbitration: "fencing"}
	o.defaults()
	l := &Lab{dir: o.Dir, state: newState("x", o)}
	text, err := l.config()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse("hapair.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if d := cfg.FenceLevels("beta"); len(d) != 1 || d[0][0].Agent != filepath.Join(o.Dir, FenceName) || d[0][0].Options["plug"] != "beta" {
		t.Errorf("%+v", d)
	}
}

func TestFenceOptions(t *testing.T) {
	opt, err := fenceOptions(strings.NewReader("# a comment\naction=off\n\nport=beta\nnodename=x\n"))
	if err != nil || opt["action"] != "off" || opt["plug"] != "beta" || opt["power_timeout"] != "20" {
		t.Errorf("%v, %v", opt, err)
	}
	if _, err := fenceOptions(strings.NewReader("plugg=beta\n")); err == nil {
		t.Error("an unknown option is accepted")
	}
}

func FuzzFenceOptions(f *testing.F) {
	f.Add("action=off\nplug=beta\n")
	f.Add("=\n#\naction\n")
	f.Fuzz(func(t *testing.T, text string) {
		if opt, err := fenceOptions(strings.NewReader(text)); err == nil && opt["dir"] == "" && !strings.Contains(text, "dir") {
			t.Errorf("%v", opt)
		}
	})
}
