package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

func TestSize(t *testing.T) {
	for text, want := range map[string]int64{"4096": 4096, "256M": 256 << 20, "1GiB": 1 << 30, "8k": 8 << 10, "16MB": 16 << 20} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "M", "-1M", "1T", "0", "1.5G"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}

func TestSame(t *testing.T) {
	a := bytes.Repeat([]byte{1}, compareBytes+3*blockBytes)
	b := bytes.Clone(a)
	if err := sameReaders(bytes.NewReader(a), bytes.NewReader(b)); err != nil {
		t.Error(err)
	}
	b[compareBytes+blockBytes+7] = 2
	b[len(b)-1] = 2
	if err := sameReaders(bytes.NewReader(a), bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "2 blocks differ, the first at 1052672") {
		t.Error(err)
	}
	if err := sameReaders(bytes.NewReader(a), bytes.NewReader(a[:100])); err == nil {
		t.Error("of different length, and the same")
	}
}

// Only what halab exec ran speaks for itself: of anything else the error is shown.
func TestOnlyExecEndsInSilence(t *testing.T) {
	failed := exec.Command("sh", "-c", "exit 7").Run()
	var spoken *commandError
	if err := asCommand(failed); !errors.As(err, &spoken) || spoken.code != 7 {
		t.Errorf("%v", err)
	}
	if err := fmt.Errorf("hactl create-metadata: %w", failed); errors.As(err, &spoken) {
		t.Errorf("%v ends in silence", err)
	}
}

// Every command can be built and says what it is.
func TestCommands(t *testing.T) {
	for _, c := range command().Commands() {
		if c.Short == "" {
			t.Errorf("%s has no description", c.Name())
		}
	}
}
