package watchdog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
		d, err := Open(path, 10*time.Second, false)
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

// A time-out that the driver would refuse is refused before the device is opened, where
// that could not be undone.
func TestTakes(t *testing.T) {
	for _, c := range []struct {
		noway, least, most string
		timeout            time.Duration
		good               bool
	}{
		{"1", "2", "60", time.Minute, true}, {"1", "2", "60", time.Minute + 1, false}, {"1", "2", "60", time.Second, false},
		{"1", "1", "0", time.Hour, true}, {"1", "", "", time.Hour, true}, {"0", "2", "60", time.Hour, true}, {"", "2", "60", time.Hour, true},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"nowayout": c.noway, "min_timeout": c.least, "max_timeout": c.most} {
			if text == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := takes(dir, c.timeout); c.good != (err == nil) || err != nil && !errors.Is(err, ErrTimeout) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := takes("", time.Hour); err != nil {
		t.Error(err)
	}
}

// What cannot be used is disarmed, as this process has armed it, unless another one had
// before: then others may rely on its end. A terminal is no watchdog, and shows what is
// written to it.
func TestOpenLeavesIt(t *testing.T) {
	for _, armed := range []bool{false, true} {
		fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd) //nolint:errcheck // a test's
		n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
		if err == nil {
			err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(fmt.Sprint("/dev/pts/", n), time.Second, armed); !errors.Is(err, ErrNotOne) {
			t.Error(err)
		}
		b := make([]byte, 8)
		got, err := unix.Read(fd, b)
		if text := string(b[:max(got, 0)]); armed != (text == "") {
			t.Errorf("armed before: %v; it was told %q, %v", armed, text, err)
		}
	}
}
