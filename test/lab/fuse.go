package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"hapair/kernel/mounts"
)

// Connections are the numbers of the FUSE connections that a process sees
// mounted below dir. Others are not its own.
func Connections(pid int, dir string) []string {
	all, err := mounts.Read(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil // it has ended
	}
	var out []string
	for _, m := range all {
		if servedBelow(m, dir) {
			out = append(out, strconv.FormatUint(uint64(unix.Minor(m.Dev)), 10))
		}
	}
	return out
}

func servedBelow(m mounts.Mount, dir string) bool {
	return strings.HasPrefix(m.Type, "fuse.") && strings.HasPrefix(m.Point, dir+"/")
}

// AbortConnections ends FUSE connections that nobody serves any more. A process
// that waits for one in the kernel, and with it everybody who looks at its
// device, goes on then; that it waited is an error to be told all the same.
func AbortConnections(numbers []string) error {
	if len(numbers) == 0 {
		return nil
	}
	control, err := os.MkdirTemp("", "fusectl")
	if err != nil {
		return err
	}
	if err := unix.Mount("none", control, "fusectl", 0, ""); err != nil {
		return errors.Join(fmt.Errorf("mount fusectl: %w", err), os.Remove(control))
	}
	for _, n := range numbers {
		if aerr := os.WriteFile(filepath.Join(control, n, "abort"), []byte("1"), 0); aerr != nil && !errors.Is(aerr, fs.ErrNotExist) {
			err = errors.Join(err, aerr)
		}
	}
	return errors.Join(err, unix.Unmount(control, 0), os.Remove(control))
}
