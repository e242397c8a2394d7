package service

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountPoint is one line of /proc/PID/mountinfo (proc(5)).
type mountPoint struct {
	Dev      uint64 // of the files in it
	Path     string
	Type     string
	Source   string
	ReadOnly bool // the filesystem itself, not this mount of it
}

// parseMountinfo reads the whole file. The last line for a path is the mount
// one sees there.
func parseMountinfo(b []byte) ([]mountPoint, error) {
	var all []mountPoint
	for n, line := range bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		m, err := parseMountLine(string(line))
		if err != nil {
			return nil, fmt.Errorf("mountinfo line %d: %w", n+1, err)
		}
		all = append(all, m)
	}
	return all, nil
}

// parseMountLine reads: id parent major:minor root path options [optional...] - type source superoptions.
func parseMountLine(line string) (mountPoint, error) {
	f := strings.Split(line, " ")
	if len(f) < 6 {
		return mountPoint{}, fmt.Errorf("%d fields, want at least 10", len(f))
	}
	end := 6
	for end < len(f) && f[end] != "-" {
		end++
	}
	if end+2 >= len(f) {
		return mountPoint{}, fmt.Errorf("no filesystem type and source after the separator")
	}
	major, minor, ok := strings.Cut(f[2], ":")
	ma, err1 := strconv.ParseUint(major, 10, 32)
	mi, err2 := strconv.ParseUint(minor, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return mountPoint{}, fmt.Errorf("device %q, want major:minor", f[2])
	}
	return mountPoint{
		Dev: unix.Mkdev(uint32(ma), uint32(mi)), Path: unescape(f[4]),
		Type: f[end+1], Source: unescape(f[end+2]),
		ReadOnly: end+3 < len(f) && hasWord(f[end+3], "ro"),
	}, nil
}

func hasWord(list, word string) bool {
	return slices.Contains(strings.Split(list, ","), word)
}

// unescape undoes the kernel's octal spelling of blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func readMounts(file string) ([]mountPoint, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return parseMountinfo(b)
}

const ownMounts = "/proc/thread-self/mountinfo"

// mountAt returns the mount seen at path, nil when there is none.
func mountAt(path string) (*mountPoint, error) {
	all, err := readMounts(ownMounts)
	if err != nil {
		return nil, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Path == path {
			return &all[i], nil
		}
	}
	return nil, nil
}

// mountsOf returns where the block device with number rdev is mounted.
func mountsOf(all []mountPoint, rdev uint64) (found []mountPoint) {
	for _, m := range all {
		if m.isOf(rdev) {
			found = append(found, m)
		}
	}
	return found
}

// isOf reports whether m is a mount of the block device rdev. Filesystems such
// as btrfs number their files otherwise; their source names the device.
func (m mountPoint) isOf(rdev uint64) bool {
	if m.Dev == rdev {
		return true
	}
	if unix.Major(m.Dev) != 0 || !filepath.IsAbs(m.Source) {
		return false
	}
	source, err := blockNumber(m.Source)
	return err == nil && source == rdev
}

// below returns the mounts under path.
func below(path string) ([]string, error) {
	all, err := readMounts(ownMounts)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, m := range all {
		if strings.HasPrefix(m.Path, strings.TrimSuffix(path, "/")+"/") {
			found = append(found, m.Path)
		}
	}
	return found, nil
}

// notBlockError is returned for a path that is no block device.
type notBlockError struct{ path string }

func (e *notBlockError) Error() string { return e.path + " is not a block device" }

// blockNumber returns the device number of a block device file.
func blockNumber(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("look at device %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, &notBlockError{path: path}
	}
	return st.Rdev, nil
}
