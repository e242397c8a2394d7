package handler

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hapair/fencing/device"
)

func script(t *testing.T, lines string, args ...string) *Handler {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fence-it")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+lines+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	h, err := New(Config{Self: "alpha", Command: append([]string{name}, args...)})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Of DRBD's exit codes only 7 says that a node does not run.
func TestExitCodes(t *testing.T) {
	for code := range 12 {
		want := map[int]device.Outcome{6: device.Refused, 7: device.Confirmed}[code]
		out, said := script(t, fmt.Sprintf("echo said so; exit %d", code)).Off(t.Context(), device.Order{Node: "beta"})
		if out != want || !strings.Contains(said, fmt.Sprintf("exit code %d", code)) && code != 0 || !strings.HasSuffix(said, ": said so") {
			t.Errorf("%d: %s: %s, want %s", code, out, said, want)
		}
	}
	if out, said := script(t, "kill -9 $$").Off(t.Context(), device.Order{}); out != device.Unknown || said != "ended by signal killed" {
		t.Errorf("%s: %s", out, said)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/x")
	out, said := script(t, `echo "$1 $HAPAIR_NODE $HAPAIR_SELF $HAPAIR_WHY $DRBD_PEER $DRBD_PEERS${NOTIFY_SOCKET}"; exit 7`, "$(reboot)").
		Off(t.Context(), device.Order{Node: "beta", Why: "it is silent; `reboot`"})
	if out != device.Confirmed || !strings.HasSuffix(said, ": $(reboot) beta alpha it is silent; `reboot` beta beta") {
		t.Errorf("%s: %s", out, said)
	}
}

func TestTimeOut(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, &device.Error{Text: "too long"})
	defer cancel()
	if out, said := script(t, "sleep 1000").Off(ctx, device.Order{}); out != device.Unknown || said != "too long" {
		t.Errorf("%s: %s", out, said)
	}
}

func TestCheck(t *testing.T) {
	h := script(t, "exit 7")
	if err := h.Monitor(t.Context()); err != nil || h.Name() != "exec fence-it" {
		t.Errorf("%s: %v", h.Name(), err)
	}
	if err := os.Chmod(h.cfg.Command[0], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []*Handler{h, {Config{Command: []string{"/nowhere"}}}, {Config{Command: []string{t.TempDir()}}}} {
		if err := bad.Check(); err == nil {
			t.Errorf("%q is accepted", bad.cfg.Command)
		}
	}
	for _, bad := range [][]string{nil, {"fence-it"}} {
		if _, err := New(Config{Command: bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
