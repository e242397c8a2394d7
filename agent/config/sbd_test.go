package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hapair/fencing/sbd"
)

const poisoned = "nodes: {alpha: 10.99.0.1, beta: 10.99.0.2}\ndisk: /dev/vg0/a\narbitration: fencing\n"

func TestSBD(t *testing.T) {
	cfg := mustParse(t, poisoned+"watchdog: {timeout: 5s}\nfencing:\n  alpha: [{exec: [/usr/bin/fence]}, {sbd: /dev/sdx}]\n  beta: [{sbd: /dev/sdy, timeout: 1m}]\n")
	if err := cfg.CheckImplemented(); err != nil {
		t.Error(err)
	}
	if a, b := cfg.SBDOf("alpha"), cfg.SBDOf("beta"); a != "/dev/sdx" || b != "/dev/sdy" || cfg.SBDOf("gamma") != "" {
		t.Errorf("disks %q and %q", a, b)
	}
	// (2.5 s + 15 s) and 2 %, 1 s for the reset, 3 s for the disk.
	if got := cfg.FenceLevels("alpha")[1][0].Timeout; got != 22*time.Second {
		t.Errorf("a time-out of %s", got)
	}
	if a, b := cfg.FenceTakes("alpha"), cfg.FenceTakes("beta"); a != 42*time.Second || b != time.Minute {
		t.Errorf("a fence takes %s and %s", a, b)
	}
	// Who fences beta waits until alpha's fence of it struck, pill last; who fences alpha until
	// all of it has ended.
	cfg = mustParse(t, poisoned+"watchdog: {timeout: 5s}\nfencing:\n  alpha: [{exec: [/usr/bin/fence]}, {sbd: /dev/sdx}]\n  beta: [{sbd: /dev/sdx}, {exec: [/usr/bin/fence]}]\n")
	more := cfg.Timing.Lease + 10*cfg.Timing.Probe
	if a, b := cfg.FenceDelay("beta"), cfg.FenceDelay("alpha"); a != 20*time.Second+sbd.Strikes+more || b != 42*time.Second+more {
		t.Errorf("delays %s and %s", a, b)
	}
	for text, want := range map[string]string{
		"fencing: {alpha: [{sbd: /dev/sdx}], beta: [{sbd: /dev/sdx}]}":                                      "there is none",
		"watchdog: {}\nfencing: {alpha: [{sbd: /dev/sdx, timeout: 20s}], beta: [{manual: true}]}":           "is certainly down after 40s",
		"watchdog: {}\nfencing: {alpha: [{sbd: /dev/sdx}, {sbd: /dev/sdy}], beta: [{manual: true}]}":        "has 2 sbd disks",
		"watchdog: {}\nfencing: {alpha: [{sbd: sdx}], beta: [{manual: true}]}":                              "not an absolute path",
		"watchdog: {timeout: 5m}\nfencing: {alpha: [{sbd: /dev/sdx}], beta: [{manual: true}]}":              "between 1s and 10m",
		"watchdog: {}\nfencing: {alpha: [{sbd: /dev/sdx, exec: [/usr/bin/fence]}], beta: [{manual: true}]}": "this one has 2 of them",
		"watchdog: {on_no_quorum: reset}\nfencing: {alpha: [{sbd: /dev/sdx}], beta: [{sbd: /dev/sdx}]}":     "with arbitration fencing a Primary holds no lease",
	} {
		if _, err := Parse("f", []byte(poisoned+text+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// The disk is looked at on both nodes: one reads it, the other writes to it.
func TestCheckSystemSBD(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	cfg := mustParse(t, poisoned+"watchdog: {device: /dev/null}\nfencing: {alpha: [{sbd: "+path+"}], beta: [{manual: true}]}\n")
	says := func(want string) {
		t.Helper()
		for _, node := range []string{"alpha", "beta"} {
			if err := cfg.CheckSystem(t.Context(), node); err == nil || strings.Contains(err.Error(), "sbd") != (want != "") || !strings.Contains(err.Error(), want) {
				t.Errorf("on %s: %v, want %q", node, err, want)
			}
		}
	}
	says("no such file")
	if _, err := sbd.Create(path, cfg.SBDOwner(), false); errors.Is(err, sbd.ErrBuffered) {
		t.Skipf("needs a directory that is not in memory: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	says("")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	says("nothing is written there; hactl create-sbd")
}
