// Package holder finds out who keeps a device open: processes with a
// descriptor on it, mounts, swap areas, and other block devices stacked on it.
package holder

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"hapair/kernel/apart"
	"hapair/kernel/mounts"
)

// Holder is one user of a device. PID is 0 when the kernel itself holds it (a
// mount, a swap area, a stacked device); Command then says what.
type Holder struct {
	PID     int
	Command string
}

// String is "qemu-img (pid 4711)" or what the kernel does with the device.
func (h Holder) String() string {
	if h.PID == 0 {
		return h.Command
	}
	return fmt.Sprintf("%s (pid %d)", h.Command, h.PID)
}

// BusyError says that a device was not given up because it is in use.
type BusyError struct {
	Path    string
	Holders []Holder
}

// Error names the device and everybody who holds it.
func (e *BusyError) Error() string {
	if len(e.Holders) == 0 {
		return e.Path + " is held open by a process that could not be found (it may live in another PID namespace)"
	}
	names := make([]string, len(e.Holders))
	for i, h := range e.Holders {
		names[i] = h.String()
	}
	return e.Path + " is held open by " + strings.Join(names, ", ")
}

// Mounted is the file system mounted on a directory of this namespace.
func Mounted(dir string) Holder { return Holder{Command: "mount on " + dir} }

// Process describes a process by its number.
func Process(pid int) Holder {
	comm, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	if err != nil {
		return Holder{PID: pid, Command: "a process that has ended"}
	}
	return Holder{PID: pid, Command: string(bytes.TrimSpace(comm))}
}

// Own tells a descriptor of this very process that does not count.
type Own struct{ FD int }

// OfBlockDevice lists who holds the block device dev (a dev_t), except the
// descriptors of this process named in own. Processes that end while the list
// is made are left out.
func OfBlockDevice(dev uint64, own ...Own) ([]Holder, error) {
	found, err := openers(dev, own)
	if err != nil {
		return nil, err
	}
	mounted, err := mountsOf(dev)
	if err != nil {
		return nil, err
	}
	found = append(found, mounted...)
	swaps, err := swapsOn(dev)
	if err != nil {
		return nil, err
	}
	found = append(found, swaps...)
	stacked, err := stackedOn(dev)
	if err != nil {
		return nil, err
	}
	return append(found, stacked...), nil
}

// openers scans the descriptor tables of all processes.
func openers(dev uint64, own []Own) ([]Holder, error) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []Holder
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue // not a process
		}
		if hasOpen(pid, dev, own) {
			found = append(found, Process(pid))
		}
	}
	return found, nil
}

// hasOpen reports whether a process has a descriptor on the device. What
// cannot be read belongs to a process that has ended meanwhile.
func hasOpen(pid int, dev uint64, own []Own) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if pid == os.Getpid() && isOwn(fd.Name(), own) {
			continue
		}
		if is, err := isDevice(filepath.Join(dir, fd.Name()), dev); err == nil && is {
			return true
		}
	}
	return false
}

// isDevice reports whether path leads to the block device dev, under any name.
// It asks for what the kernel knows already, so that a file system that hangs
// does not hang us, as long as path is a link of /proc to an open file.
func isDevice(path string, dev uint64) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return false, fmt.Errorf("statx %s: %w", path, err)
	}
	return st.Mode&unix.S_IFMT == unix.S_IFBLK && unix.Mkdev(st.Rdev_major, st.Rdev_minor) == dev, nil
}

func isOwn(fd string, own []Own) bool {
	for _, o := range own {
		if strconv.Itoa(o.FD) == fd {
			return true
		}
	}
	return false
}

// mountsOf lists mounts of the device in the mount namespaces of all
// processes, each mount point once. One in another namespace than ours is told
// by a process that lives there: umount here does not reach it.
func mountsOf(dev uint64) ([]Holder, error) {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("find our mount namespace: %w", err)
	}
	tables, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mount tables: %w", err)
	}
	namespaces := map[string]bool{}
	points := map[string]bool{}
	var found []Holder
	for _, table := range tables {
		ns, err := os.Readlink(filepath.Join(filepath.Dir(table), "ns/mnt"))
		if err != nil || namespaces[ns] {
			continue
		}
		text, err := os.ReadFile(table)
		if err != nil {
			continue // the process has ended
		}
		namespaces[ns] = true
		all, err := mounts.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("read mounts from %s: %w", table, err)
		}
		for _, m := range all {
			switch {
			case m.Dev != dev:
			case ns == own:
				points[Mounted(m.Point).Command] = true
			default:
				found = append(found, elsewhere(m, table))
			}
		}
	}
	return append(kernelHolders(points), found...), nil
}

// elsewhere describes a mount in another namespace.
func elsewhere(m mounts.Mount, table string) Holder {
	pid, err := strconv.Atoi(filepath.Base(filepath.Dir(table)))
	if err != nil {
		return Holder{Command: "mount on " + m.Point + " in another mount namespace"}
	}
	h := Process(pid)
	h.Command = "mount on " + m.Point + " in the mount namespace of " + h.Command
	return h
}

func kernelHolders(names map[string]bool) []Holder {
	var found []Holder
	for name := range names {
		found = append(found, Holder{Command: name})
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Command < found[j].Command })
	return found
}

// swapsOn tells whether the device is a swap area.
func swapsOn(dev uint64) ([]Holder, error) {
	text, err := os.ReadFile("/proc/swaps")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without swap
	}
	if err != nil {
		return nil, fmt.Errorf("list swap areas: %w", err)
	}
	var areas []string
	for line := range strings.Lines(string(text)) {
		if name, _, _ := strings.Cut(line, " "); filepath.IsAbs(name) {
			areas = append(areas, mounts.Unescape(name))
		}
	}
	are, err := areDevice(areas, dev)
	if err != nil {
		return nil, err
	}
	var found []Holder
	for i, name := range areas {
		if are[i] {
			found = append(found, Holder{Command: "swap area " + name})
		}
	}
	return found, nil
}

// areDevice reports which of the paths lead to the block device. They may lie
// on a file system on the very device, and wait for it.
func areDevice(paths []string, dev uint64) ([]bool, error) {
	are := make([]bool, len(paths))
	err := apart.Do(func() error {
		for i, path := range paths {
			is, err := isDevice(path, dev)
			are[i] = err == nil && is
		}
		return nil
	})
	return are, err
}

// stackedOn lists block devices on top of this one: device mapper and md
// through sysfs, loop devices through their backing file.
func stackedOn(dev uint64) ([]Holder, error) {
	names := map[string]bool{}
	dir := fmt.Sprintf("/sys/dev/block/%d:%d/holders", unix.Major(dev), unix.Minor(dev))
	above, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list devices above: %w", err)
	}
	for _, d := range above {
		names["device "+d.Name()] = true
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, fmt.Errorf("list loop devices: %w", err)
	}
	var paths []string
	for i, file := range backing {
		path, err := os.ReadFile(file)
		if err != nil {
			path = nil // detached meanwhile
		}
		paths, backing[i] = append(paths, string(bytes.TrimSpace(path))), filepath.Base(filepath.Dir(filepath.Dir(file)))
	}
	are, err := areDevice(paths, dev)
	if err != nil {
		return nil, err
	}
	for i, name := range backing {
		if are[i] {
			names["device "+name] = true
		}
	}
	return kernelHolders(names), nil
}
