package watchdog

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What is no watchdog is not taken for one, and nothing is opened that would be
// armed by it. A real one is in test/vm.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{filepath.Join(dir, "watchdog"): ErrMissing, file: ErrNotOne, dir: ErrNotOne, "/dev/null": ErrNotOne} {
		d, err := Open(path, 10*time.Second)
		if d != nil || !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "text" {
		t.Errorf("the file holds %q, %v", text, err)
	}
	if err := Look("/dev/null"); err != nil {
		t.Errorf("a character device may be one: %v", err)
	}
}
