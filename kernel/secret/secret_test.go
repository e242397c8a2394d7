package secret

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := Read(file("good", "swordfish\n", 0o600), 10); err != nil || string(b) != "swordfish\n" {
		t.Errorf("%q, %v", b, err)
	}
	open := file("open", "swordfish", 0o640)
	for name, want := range map[string]string{
		open: "chmod 600 " + open, file("long", "12345678901", 0o600): "at most 10", dir: "must be a regular file", fifo: "must be a regular file",
		filepath.Join(dir, "none"): "no such file",
	} {
		if _, err := Read(name, 10); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if _, err := Public(open, 10); err != nil {
		t.Errorf("public: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a file away")
	}
	theirs := file("theirs", "x", 0o600)
	if err := os.Chown(theirs, 12345, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(theirs, 10); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("another's: %v", err)
	}
}
