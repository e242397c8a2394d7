package config

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const watchedPair = "nodes: {alpha: 10.99.0.1, beta: 10.99.0.2}\ndisk: /dev/vg0/a\n"

func TestWatchdog(t *testing.T) {
	if cfg := mustParse(t, watchedPair); cfg.Watchdog != nil {
		t.Errorf("nobody asked for it: %+v", cfg.Watchdog)
	}
	if w := mustParse(t, watchedPair+"watchdog: {}\n").Watchdog; w == nil || *w != (Watchdog{DefaultWatchdogDevice, 10 * time.Second, WatchdogWait}) {
		t.Errorf("%+v", w)
	}
	reset := "witness: {name: gamma, address: 10.99.0.3}\nwatchdog: {timeout: 5s, on_no_quorum: reset}\n"
	if w := mustParse(t, watchedPair+reset).Watchdog; w.OnNoQuorum != WatchdogReset || w.Timeout != 5*time.Second {
		t.Errorf("%+v", w)
	}
	for text, want := range map[string]string{
		"{timeout: 1s}":                                  "between 2s and 10m",
		"{timeout: 2500ms}":                              "whole seconds",
		"{device: watchdog}":                             "not an absolute path",
		"{on_no_quorum: freeze}":                         "on_no_quorum",
		"{on_no_quorum: reset}":                          "with arbitration manual a Primary holds no lease",
		"{device: /dev/watchdog1, timeout: 10s, pet: 1}": "pet",
	} {
		if _, err := Parse("f", []byte(watchedPair+"watchdog: "+text+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// The device is looked for, on data nodes only, and not opened.
func TestCheckSystemWatchdog(t *testing.T) {
	for path, want := range map[string]string{filepath.Join(t.TempDir(), "watchdog"): "there is no such device", "/dev/null": ""} {
		text := "nodes: {alpha: 10.99.0.1, beta: 10.99.0.2}\nwitness: {name: gamma, address: 10.99.0.3}\ndisk: /nowhere\nwatchdog: {device: " + path + "}\n"
		cfg := mustParse(t, text)
		err := cfg.CheckSystem(t.Context(), "alpha")
		if err == nil || (want != "") != strings.Contains(err.Error(), "watchdog") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
		if err := cfg.CheckSystem(t.Context(), "gamma"); err != nil && strings.Contains(err.Error(), "watchdog") {
			t.Errorf("a witness has none: %v", err)
		}
	}
}
