package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The directory is shared once, whoever asks how often.
func TestNamespacesAreShared(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	err := onOwnThread(func() error { // with mounts of its own, and no such directory yet
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			return err
		}
		if err := unix.Mount("none", "/run", "tmpfs", 0, ""); err != nil {
			return err
		}
		for range 3 {
			if err := shareNamespaces(); err != nil {
				return err
			}
		}
		b, err := os.ReadFile("/proc/thread-self/mountinfo")
		if err != nil {
			return err
		}
		n := 0
		for line := range strings.Lines(string(b)) {
			if words := strings.Fields(line); words[4] == netnsDir && strings.HasPrefix(words[6], "shared:") {
				n++
			}
		}
		if n != 1 {
			return fmt.Errorf("%d shared mounts at %s:\n%s", n, netnsDir, b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
