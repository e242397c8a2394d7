package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// sysfs is where the kernel shows its devices.
const sysfs = "/sys"

// stack is what a block device is made of, as far as it matters to whoever starts
// requests with RWF_NOWAIT. The zero stack is one that nothing is known of.
type stack struct {
	raid   bool // md is part of it
	prompt bool // all of it gives back what it would have to wait for
}

// promptDrivers are the names of devices whose drivers heed RWF_NOWAIT, or answer
// that they do not know it. Others may, too: what is not known may wait. A loop device
// may start its file's I/O on the thread of whoever asks.
var promptDrivers = []string{"dm-", "nvme", "sd", "vd", "xvd"}

// stackOf looks at a device and all that it lies on, in the sysfs at root.
func stackOf(root string, dev uint64) stack {
	s := stack{prompt: true}
	if err := s.add(sysfsOf(root, dev)); err != nil {
		s.prompt = false
	}
	return s
}

func sysfsOf(root string, dev uint64) string {
	return fmt.Sprintf("%s/dev/block/%d:%d", root, unix.Major(dev), unix.Minor(dev))
}

// add looks at the device whose directory this is, and at those below it. An error
// leaves something that was not looked at.
func (s *stack) add(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("look at a device in sysfs: %w", err)
	}
	if exists(dir + "/partition") {
		dir = filepath.Dir(dir)
	}
	s.raid = s.raid || exists(dir+"/md")
	s.prompt = s.prompt && isPrompt(filepath.Base(dir))
	below, err := os.ReadDir(dir + "/slaves")
	if err != nil {
		return fmt.Errorf("look at what a device is made of: %w", err)
	}
	for _, d := range below {
		if err := s.add(dir + "/slaves/" + d.Name()); err != nil {
			return err
		}
	}
	return nil
}

func isPrompt(name string) bool {
	for _, prefix := range promptDrivers {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
