package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hapair/fencing/fenceagent"
)

func TestFenceLevels(t *testing.T) {
	cfg := mustParse(t, fenced)
	var got []string
	for _, l := range cfg.FenceLevels("alpha") {
		var names []string
		for _, d := range l {
			names = append(names, strings.TrimSpace(filepath.Base(d.Agent)+map[bool]string{true: " manual"}[d.Manual]))
		}
		got = append(got, strings.Join(names, "+"))
	}
	if want := "fence_ipmilan fence_apc+fence_apc_old . manual"; strings.Join(got, " ") != want {
		t.Errorf("levels %q, want %q", strings.Join(got, " "), want)
	}
	if cfg.FenceLevels("gamma") != nil {
		t.Error("who has no devices has no levels")
	}
	if a, b := cfg.FenceTakes("alpha"), cfg.FenceTakes("beta"); a != 50*time.Second || b != 20*time.Second {
		t.Errorf("a fence takes %s and %s", a, b)
	}
	// Who fences alpha waits for alpha's fence of beta; who fences beta as the file says.
	if a, b := cfg.FenceDelay("alpha"), cfg.FenceDelay("beta"); a != 20*time.Second+cfg.Timing.Lease+10*cfg.Timing.Probe || b != time.Minute {
		t.Errorf("delays %s and %s", a, b)
	}
	for _, l := range cfg.FenceLevels("beta") {
		d, err := l[0].Device("alpha", fenceagent.Heard{})
		if err != nil || d.Name() != "exec fence-beta" {
			t.Errorf("%v, %v", d, err)
		}
	}
}

// The fence agents for the other node are asked what they are, those for this one not.
func TestCheckSystemFencing(t *testing.T) {
	dir := t.TempDir()
	agent := filepath.Join(dir, "fence_script")
	script := `#!/bin/sh
echo '<resource-agent name="fence_script"><parameters><parameter name="plug" required="1"/></parameters>'
echo '<actions><action name="off"/><action name="reboot"/><action name="status"/><action name="monitor"/></actions></resource-agent>'
`
	disk := filepath.Join(dir, "disk")
	for name, text := range map[string]string{agent: script, disk: "x"} {
		if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	text := "nodes: {alpha: 10.99.0.1, beta: 10.99.0.2}\ndisk: " + disk + "\nmetadata: internal\narbitration: fencing\nfencing:\n" +
		"  alpha: [{agent: " + agent + "}, {exec: [/nowhere/fence]}]\n  beta: [{agent: " + agent + ", options: {plug: 1}}, {manual: true}]\n"
	cfg := mustParse(t, text)
	if err := cfg.CheckSystem(t.Context(), "alpha"); err != nil {
		t.Errorf("on alpha: %v", err)
	}
	err := cfg.CheckSystem(t.Context(), "beta")
	if err == nil || !strings.Contains(err.Error(), "it needs option plug") || !strings.Contains(err.Error(), "hapair.yaml:6") || !strings.Contains(err.Error(), "/nowhere/fence: no such file") {
		t.Errorf("on beta: %v", err)
	}
}

// What nothing makes yet is said to be so, and by its name.
func TestDevicesNotBuilt(t *testing.T) {
	text := strings.Replace(strings.Replace(fenced, ", delay: 1m", "", 1), "- {manual: true}", "- {watchdog: /dev/watchdog}", 1)
	err := mustParse(t, text).CheckImplemented()
	var ni *NotImplementedError
	if !errors.As(err, &ni) || !strings.Contains(err.Error(), "watchdog as a fence device of alpha: not implemented") || !strings.Contains(err.Error(), "use a fence agent, or sbd") {
		t.Errorf("%v", err)
	}
}

// What belongs into files is one list.
func TestSecretsAreFiles(t *testing.T) {
	for option, want := range map[string]bool{"password": true, "community": true, "password_file": false, "plug": false} {
		if fenceagent.Secret(option) != want {
			t.Errorf("%s: %t", option, !want)
		}
	}
}
