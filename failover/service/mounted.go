package service

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"hapair/kernel/mounts"
)

// mountAt returns the mount seen at path, nil when there is none.
func mountAt(path string) (*mounts.Mount, error) {
	all, err := mounts.Read(mounts.Own)
	if err != nil {
		return nil, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Point == path {
			return &all[i], nil
		}
	}
	return nil, nil
}

// mountsOf returns where the block device with number rdev is mounted.
func mountsOf(all []mounts.Mount, rdev uint64) (found []mounts.Mount) {
	for _, m := range all {
		if isOf(m, rdev) {
			found = append(found, m)
		}
	}
	return found
}

// isOf reports whether m is a mount of the block device rdev. Filesystems such
// as btrfs number their files otherwise; their source names the device. Only
// names below /dev are followed: they lie on no device of ours.
func isOf(m mounts.Mount, rdev uint64) bool {
	if m.Dev == rdev {
		return true
	}
	if unix.Major(m.Dev) != 0 || !strings.HasPrefix(m.Source, "/dev/") {
		return false
	}
	source, err := blockNumber(m.Source)
	return err == nil && source == rdev
}

// below returns the mounts under path.
func below(path string) ([]string, error) {
	all, err := mounts.Read(mounts.Own)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, m := range all {
		if strings.HasPrefix(m.Point, strings.TrimSuffix(path, "/")+"/") {
			found = append(found, m.Point)
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

// resolve returns path as the kernel spells it, without symbolic links. Like
// what follows it looks at directories that may lie on a device of ours.
func resolve(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return path, nil
	}
	if err != nil {
		return "", fmt.Errorf("resolve mount point %s: %w", path, err)
	}
	defer unix.Close(fd) //nolint:errcheck // only looked at
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink("/proc/thread-self/fd/"+strconv.Itoa(fd), buf)
	if err != nil {
		return "", fmt.Errorf("resolve mount point %s: %w", path, err)
	}
	return string(buf[:n]), nil
}

// makeDirectory makes path and what lacks above it.
func makeDirectory(path string) error {
	err := unix.Mkdir(path, 0o755)
	if err == unix.ENOENT {
		if err := makeDirectory(filepath.Dir(path)); err != nil {
			return err
		}
		err = unix.Mkdir(path, 0o755)
	}
	if err != nil && err != unix.EEXIST {
		return fmt.Errorf("create %s: %w", path, err)
	}
	return nil
}

// fileNumber is the device number that files carry where path is.
func fileNumber(path string) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, 0, &st); err != nil {
		return 0, fmt.Errorf("look at %s: %w", path, err)
	}
	return unix.Mkdev(st.Dev_major, st.Dev_minor), nil
}
