// Package mounts reads the kernel's mount tables.
package mounts

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Own is the mount table of the calling thread.
const Own = "/proc/thread-self/mountinfo"

// Mount is one line of a mount table.
type Mount struct {
	Dev      uint64 // of the files in it
	Point    string // where it is mounted
	Type     string // of the filesystem
	Source   string
	ReadOnly bool // the filesystem itself, not this mount of it
}

// Read reads a mount table, such as Own. It makes system calls only, so that a
// thread without the process's descriptors may call it.
func Read(file string) ([]Mount, error) {
	text, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("read mounts from %s: %w", file, err)
	}
	all, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read mounts from %s: %w", file, err)
	}
	return all, nil
}

func readFile(file string) ([]byte, error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // only read from
	var text []byte
	for {
		text = slices.Grow(text, 4096)
		n, err := unix.Read(fd, text[len(text):cap(text)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			return text, nil
		}
		text = text[:len(text)+n]
	}
}

// Parse reads the text of a mount table, described in proc_pid_mountinfo(5).
// The last line for a point is the mount one sees there.
func Parse(text []byte) ([]Mount, error) {
	var all []Mount
	for n, line := range bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		m, err := parseLine(string(line))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		all = append(all, m)
	}
	return all, nil
}

// parseLine reads: id parent major:minor root point options [optional...] - type source superoptions.
func parseLine(line string) (Mount, error) {
	f := strings.Split(line, " ")
	if len(f) < 6 {
		return Mount{}, fmt.Errorf("%d fields, want at least 10", len(f))
	}
	end := 6
	for end < len(f) && f[end] != "-" {
		end++
	}
	if end+2 >= len(f) {
		return Mount{}, fmt.Errorf("no filesystem type and source after the separator")
	}
	major, minor, ok := strings.Cut(f[2], ":")
	ma, err1 := strconv.ParseUint(major, 10, 32)
	mi, err2 := strconv.ParseUint(minor, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return Mount{}, fmt.Errorf("device %q, want major:minor", f[2])
	}
	return Mount{
		Dev: unix.Mkdev(uint32(ma), uint32(mi)), Point: Unescape(f[4]),
		Type: f[end+1], Source: Unescape(f[end+2]),
		ReadOnly: end+3 < len(f) && slices.Contains(strings.Split(f[end+3], ","), "ro"),
	}, nil
}

// Unescape undoes the kernel's octal spelling of blanks and backslashes, here
// and in /proc/swaps.
func Unescape(s string) string {
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
