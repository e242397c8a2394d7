package service

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"hapair/kernel/mounts"
)

// Holder is what keeps a filesystem busy: a process, or something of the
// kernel's when PID is 0.
type Holder struct {
	PID     int
	Command string // or what it is
	Uses    string // such as "cwd", "open file /srv/pg/wal/1"
}

// String names the holder the way an operator looks for it.
func (h Holder) String() string {
	if h.PID == 0 {
		return fmt.Sprintf("%s (%s)", h.Command, h.Uses)
	}
	return fmt.Sprintf("pid %d %s (%s)", h.PID, h.Command, h.Uses)
}

const holdersMax = 64 // more say no more

// holdersOf scans /proc for what uses the filesystem whose files carry the
// device number dev and that is mounted at path. It asks the kernel for cached
// attributes only, so that no hung filesystem can hang it.
func holdersOf(dev uint64, path string) []Holder {
	var all []Holder
	for _, pid := range processes() {
		if use := useOf(pid, dev); use != "" {
			all = append(all, Holder{PID: pid, Command: commandOf(pid), Uses: use})
		}
		if len(all) == holdersMax {
			return all
		}
	}
	return append(all, kernelHolders(path)...)
}

func processes() []int {
	names, err := filepath.Glob("/proc/[1-9]*")
	if err != nil {
		return nil // the pattern is well formed
	}
	var pids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(filepath.Base(n)); err == nil {
			pids = append(pids, pid)
		}
	}
	sort.Ints(pids)
	return pids
}

// useOf says how a process uses the filesystem, "" if it does not. Processes
// vanish while one looks: what cannot be read is not held.
func useOf(pid int, dev uint64) string {
	base := "/proc/" + strconv.Itoa(pid) + "/"
	for _, link := range []string{"cwd", "root", "exe"} {
		if onDevice(base+link, dev) {
			return link
		}
	}
	fds, err := os.ReadDir(base + "fd")
	if err == nil {
		for _, fd := range fds {
			if name := base + "fd/" + fd.Name(); onDevice(name, dev) {
				target, _ := os.Readlink(name) // only for the message
				return "open file " + target
			}
		}
	}
	maps, err := os.ReadFile(base + "maps")
	if err != nil {
		return ""
	}
	if file := mappedFile(maps, dev); file != "" {
		return "mapped file " + file
	}
	return ""
}

func onDevice(name string, dev uint64) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, name, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &st)
	return err == nil && unix.Mkdev(st.Dev_major, st.Dev_minor) == dev
}

// mappedFile finds a file of the device in /proc/PID/maps: range, permissions,
// offset, major:minor in hexadecimal, inode, path.
func mappedFile(maps []byte, dev uint64) string {
	want := fmt.Sprintf("%02x:%02x", unix.Major(dev), unix.Minor(dev))
	for _, line := range bytes.Split(maps, []byte("\n")) {
		f := strings.Fields(string(line))
		if len(f) >= 6 && f[3] == want {
			return strings.Join(f[5:], " ")
		}
	}
	return ""
}

func commandOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if text := head(bytes.ReplaceAll(b, []byte{0}, []byte{' '}), 100); err == nil && text != "" {
		return text
	}
	b, err = os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "?"
	}
	return "[" + strings.TrimSpace(string(b)) + "]"
}

// kernelHolders finds loop devices and swap files that lie under path.
func kernelHolders(path string) (found []Holder) {
	under := strings.TrimSuffix(path, "/") + "/"
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil // the pattern is well formed
	}
	for _, l := range loops {
		b, err := os.ReadFile(l)
		if file := strings.TrimSpace(string(b)); err == nil && strings.HasPrefix(file, under) {
			found = append(found, Holder{Command: "loop device /dev/" + strings.Split(l, "/")[3], Uses: "backing file " + file})
		}
	}
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return found
	}
	for _, line := range strings.Split(string(swaps), "\n") {
		if file, _, _ := strings.Cut(line, " "); strings.HasPrefix(mounts.Unescape(file), under) {
			found = append(found, Holder{Command: "swap", Uses: "swap file " + mounts.Unescape(file)})
		}
	}
	return found
}

// namespaceHolders finds who sees the block device rdev mounted, one process
// per mount namespace.
func namespaceHolders(rdev uint64) (found []Holder) {
	seen := map[string]bool{}
	if own, err := os.Readlink("/proc/thread-self/ns/mnt"); err == nil {
		seen[own] = true
	}
	all, err := mounts.Read(mounts.Own)
	if err != nil {
		all = nil // the other namespaces may still say something
	}
	for _, m := range mountsOf(all, rdev) {
		found = append(found, Holder{Command: "a mount of this node's", Uses: "at " + m.Point})
	}
	for _, pid := range processes() {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		all, err := mounts.Read(fmt.Sprintf("/proc/%d/mountinfo", pid))
		if err != nil {
			continue // it ended meanwhile
		}
		for _, m := range mountsOf(all, rdev) {
			found = append(found, Holder{PID: pid, Command: commandOf(pid), Uses: "mounted at " + m.Point + " in its own mount namespace"})
			break
		}
	}
	return found
}
