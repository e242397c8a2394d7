package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"hapair/kernel/mounts"
)

// loopDevices is how many loop devices a node can name.
const loopDevices = 256

// makeRoot gives process 1 a file system of its own that looks like the
// machine's: everything is there, but /run, /srv, /etc, /dev, /var/lib/hapair
// and /disks are this node's, and its mounts are seen by nobody else.
func makeRoot(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := letGo(); err != nil {
		return err
	}
	root := filepath.Join(dir, "root")
	if err := tmpfs(root, "0755"); err != nil {
		return err
	}
	if err := spread("/", root, map[string]bool{"proc": true, "sys": true, "dev": true, "run": true, "srv": true, "etc": true, "var": true, "disks": true}); err != nil {
		return err
	}
	steps := []func() error{
		func() error {
			return spread("/var", filepath.Join(root, "var"), map[string]bool{"lib": true, "run": true})
		},
		func() error {
			return spread("/var/lib", filepath.Join(root, "var/lib"), map[string]bool{"hapair": true})
		},
		func() error { return os.Symlink("/run", filepath.Join(root, "var/run")) },
		func() error { return bind(filepath.Join(dir, "lib"), filepath.Join(root, "var/lib/hapair")) },
		func() error { return bind(filepath.Join(dir, "disks"), filepath.Join(root, "disks")) },
		func() error { return tmpfs(filepath.Join(root, "run"), "0755") },
		func() error { return os.Mkdir(filepath.Join(root, "run/hapair"), 0o755) },
		func() error { return tmpfs(filepath.Join(root, "srv"), "0755") },
		func() error { return copyEtc(dir, root) },
		func() error { return makeDev(filepath.Join(root, "dev")) },
		func() error { return mount("proc", filepath.Join(root, "proc")) },
		func() error { return mount("sysfs", filepath.Join(root, "sys")) },
		func() error { return pivot(root) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// letGo takes away what the machine happens to have mounted from loop devices:
// a copy of such a mount here would keep its device busy for whoever unmounts it
// there.
func letGo() error {
	all, err := mounts.Read(mounts.Own)
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(all) { // those on top first
		if !strings.HasPrefix(m.Source, "/dev/loop") || m.Point == "/" {
			continue
		}
		if err := unix.Unmount(m.Point, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT { // gone with one above it
			return fmt.Errorf("let go of %s on %s: %w", m.Source, m.Point, err)
		}
	}
	return nil
}

func tmpfs(at, mode string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "mode="+mode); err != nil {
		return fmt.Errorf("mount a tmpfs at %s: %w", at, err)
	}
	return nil
}

func mount(fstype, at string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(fstype, at, fstype, 0, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", fstype, at, err)
	}
	return nil
}

func bind(from, at string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(at, 0o755)
	} else {
		err = os.WriteFile(at, nil, 0o600)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(from, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", from, at, err)
	}
	return nil
}

// spread makes a directory that holds what another holds, by bind mounts, so
// that names can be added to it without touching the other.
func spread(from, at string, except map[string]bool) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if except[e.Name()] {
			continue
		}
		src, dst := filepath.Join(from, e.Name()), filepath.Join(at, e.Name())
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			err = copyLink(src, dst)
		case e.IsDir() || e.Type().IsRegular():
			err = bind(src, dst)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // gone since it was listed
			return err
		}
	}
	return nil
}

func copyLink(from, at string) error {
	to, err := os.Readlink(from)
	if err != nil {
		return err
	}
	return os.Symlink(to, at)
}

// copyEtc gives the node an /etc of its own, with the lab's configuration.
func copyEtc(dir, root string) error {
	etc := filepath.Join(root, "etc")
	if out, err := exec.Command("cp", "-a", "/etc", etc).CombinedOutput(); err != nil {
		return fmt.Errorf("copy /etc: %w: %s", err, out)
	}
	if err := os.RemoveAll(filepath.Join(etc, "hapair")); err != nil {
		return err
	}
	return bind(filepath.Join(dir, "etc"), filepath.Join(etc, "hapair"))
}

// makeDev makes the devices of the machine under names of the node's own:
// links below /dev/hapair are not the other node's.
func makeDev(at string) error {
	if err := tmpfs(at, "0755"); err != nil {
		return err
	}
	entries, err := os.ReadDir("/dev")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "hapair" {
			continue
		}
		if err := copyDevice(filepath.Join("/dev", e.Name()), filepath.Join(at, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for i := range loopDevices {
		err := unix.Mknod(filepath.Join(at, fmt.Sprintf("loop%d", i)), unix.S_IFBLK|0o660, int(unix.Mkdev(7, uint32(i))))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

func copyDevice(from, at string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return copyLink(from, at)
	case info.IsDir():
		return bind(from, at)
	case info.Mode()&fs.ModeDevice == 0:
		return nil // a socket of the machine's own
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: no device number", from)
	}
	if err := unix.Mknod(at, st.Mode, int(st.Rdev)); err != nil {
		return err
	}
	return unix.Chmod(at, st.Mode&0o7777) // not less the umask: who is not root writes to /dev/null too
}

// pivot makes root the root of this mount namespace and drops the old one.
func pivot(root string) error {
	old := filepath.Join(root, ".old")
	if err := os.Mkdir(old, 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(root, old); err != nil {
		return fmt.Errorf("pivot to %s: %w", root, err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/.old", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return os.Remove("/.old")
}
