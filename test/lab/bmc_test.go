package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The chassis of a node tells what its outlet does, and no more than is known.
func TestChassis(t *testing.T) {
	l := &Lab{dir: t.TempDir(), state: newState("x", Options{Nodes: []string{"alpha", "beta"}})}
	if err := l.save(); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"alpha/power": "off\n", "beta/power": "on\n", "alpha/etc/bmc": "secret\n"} {
		file = filepath.Join(l.dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for ask, want := range map[string]string{
		"alpha get power":   "power:0",
		"alpha set power 0": "", // it is off
		"alpha set power 1": "nobody minds the button",
		"alpha set reset 1": "not implemented",
		"beta get power":    "its process 1 is gone",
		"gamma get power":   "no node",
		"client get power":  "no node",
		"alpha":             "want NODE get power",
	} {
		says, err := chassis(t.Context(), append([]string{filepath.Join(l.dir, chassisName)}, strings.Fields(ask)...))
		if err != nil {
			says = err.Error()
		}
		if want == "" != (says == "") || !strings.Contains(says, want) {
			t.Errorf("%s: %q, want %q", ask, says, want)
		}
	}
	dir, err := l.writeBMC("alpha")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "lan.conf"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file with the password: %v, %v", info, err)
	}
}
