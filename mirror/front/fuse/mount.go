package fuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"hapair/kernel/mounts"
	"hapair/mirror/block"
)

const fsType = "fuse.hapair"

// guard is a lock file: whoever has it owns the mount point, and it goes with
// the process. The descriptor is a bare number, which no finalizer closes.
type guard struct {
	path string
	fd   int
}

// errOwned: a living process has the mount point.
var errOwned = errors.New("another process serves this volume here")

// lockMountpoint takes the lock, or returns errOwned. The file may have been
// removed by its last owner between open and lock; then it is made anew.
func lockMountpoint(path string) (*guard, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open the lock %s: %w", path, err)
		}
		current, err := lockFile(fd, path)
		if err == nil && current {
			return &guard{path: path, fd: fd}, nil
		}
		if cerr := unix.Close(fd); err != nil || cerr != nil {
			return nil, errors.Join(err, cerr)
		}
	}
}

// lockFile locks the open file; current says it is still the one at path.
func lockFile(fd int, path string) (current bool, err error) {
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		return false, fmt.Errorf("lock %s: %w", path, errOwned)
	} else if err != nil {
		return false, fmt.Errorf("lock %s: %w", path, err)
	}
	var mine, there unix.Stat_t
	if err := unix.Fstat(fd, &mine); err != nil {
		return false, fmt.Errorf("look at the lock %s: %w", path, err)
	}
	if err := unix.Lstat(path, &there); err == unix.ENOENT {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("look at the lock %s: %w", path, err)
	}
	return mine.Dev == there.Dev && mine.Ino == there.Ino, nil
}

func (g *guard) release() error { return errors.Join(os.Remove(g.path), unix.Close(g.fd)) }

// clearStale unmounts what a killed process left at the mount point. The
// caller has the lock, so nobody serves it.
func clearStale(point string) error {
	all, err := mounts.Read(mounts.Own)
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.Point != point {
			continue
		}
		if m.Type != fsType {
			return fmt.Errorf("%s is a mount point of a %s file system that is not ours", point, m.Type)
		}
		if err := unmount(point); err != nil {
			return err
		}
	}
	return nil
}

// makeMountpoint makes the file to mount over, and returns its path without
// symbolic links, as the mount table has it.
func makeMountpoint(path string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("make the mount point's directory: %w", err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", fmt.Errorf("find the mount point's directory: %w", err)
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}

// touch makes an empty file where none is.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("make the mount point: %w", err)
	}
	return f.Close()
}

// mount puts the FUSE file at point; its root is the file itself.
func mount(fd int, point, source string) error {
	options := fmt.Sprintf("fd=%d,rootmode=100000,user_id=0,group_id=0,default_permissions,max_read=%d", fd, block.MaxTransferBytes)
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME)
	if err := unix.Mount(source, point, fsType, flags, options); err != nil {
		return fmt.Errorf("mount %s: %w", point, err)
	}
	return nil
}

// unmount ends the connection (MNT_FORCE fails what is in flight) and takes
// the mount out of sight, whoever still uses it.
func unmount(point string) error {
	err := unix.Unmount(point, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && err != unix.EINVAL { // EINVAL: not mounted any more
		return fmt.Errorf("unmount %s: %w", point, err)
	}
	return nil
}

// node opens a device node, and makes it first where /dev lacks it. It refuses
// a node that is another device.
func node(path string, kind uint32, dev uint64, flags int) (fd int, made bool, err error) {
	var st unix.Stat_t
	err = unix.Stat(path, &st)
	if err == unix.ENOENT {
		if err := unix.Mknod(path, kind|0o600, int(dev)); err != nil && err != unix.EEXIST {
			return -1, false, fmt.Errorf("make %s: %w", path, err)
		}
		made = true
		err = unix.Stat(path, &st)
	}
	if err != nil {
		return -1, made, fmt.Errorf("look at %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != kind || st.Rdev != dev {
		return -1, made, fmt.Errorf("%s is device %d:%d, should be %d:%d", path,
			unix.Major(st.Rdev), unix.Minor(st.Rdev), unix.Major(dev), unix.Minor(dev))
	}
	fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, made, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, made, nil
}
