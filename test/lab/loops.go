package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"hapair/kernel/mounts"
	"hapair/mirror/front"
)

// fileID is one file of the machine, as the loop driver names it.
type fileID struct{ dev, ino uint64 }

// loopDevice is a loop device over one file.
type loopDevice struct {
	path string
	file fileID
}

// loops are the loop devices over the files that the node's agent serves.
func (p process) loops() []loopDevice {
	all, err := mounts.Read(fmt.Sprintf("/proc/%d/mountinfo", p.PID))
	if err != nil {
		return nil
	}
	served := map[uint64]bool{}
	for _, m := range all {
		if servedBelow(m, front.DefaultFuseDir) {
			served[encodeDevice(m.Dev)] = true
		}
	}
	return loopsOver(func(id fileID) bool { return served[id.dev] })
}

// attached reports whether it is still there, over the same file.
func (d loopDevice) attached() bool {
	info, err := loopInfo(d.path)
	return err == nil && d.file == fileID{info.Device, info.Inode}
}

// encodeDevice is a device number as the loop driver writes it.
func encodeDevice(dev uint64) uint64 {
	major, minor := unix.Major(dev), unix.Minor(dev)
	return uint64(minor&0xff | major<<8 | minor&^0xff<<12)
}

// loopsOver lists the loop devices whose file is one of those.
func loopsOver(mine func(fileID) bool) []loopDevice {
	names, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil // only a bad pattern fails, and this one is constant
	}
	var out []loopDevice
	for _, name := range names {
		dev := "/dev/" + filepath.Base(filepath.Dir(name))
		info, err := loopInfo(dev)
		if err == nil && mine(fileID{info.Device, info.Inode}) {
			out = append(out, loopDevice{dev, fileID{info.Device, info.Inode}})
		}
	}
	return out
}

func loopInfo(dev string) (*unix.LoopInfo64, error) {
	fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // only looked at
	return unix.IoctlLoopGetStatus64(fd)
}

// detach frees loop devices; one that is free already is as good.
func detach(loops []loopDevice) error {
	var errs []error
	for _, loop := range loops {
		dev := loop.path
		fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			errs = append(errs, fmt.Errorf("open %s: %w", dev, err))
			continue
		}
		err = unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
		if err != nil && !errors.Is(err, unix.ENXIO) {
			errs = append(errs, fmt.Errorf("detach %s: %w", dev, err))
		}
		unix.Close(fd) //nolint:errcheck // the ioctl says whether it is free
	}
	return errors.Join(errs...)
}

// freeLoops detaches the loop devices over files below a directory.
func (l *Lab) freeLoops(dir string) error {
	loops, err := loopsBelow(dir)
	return errors.Join(err, detach(loops))
}

func loopsBelow(dir string) ([]loopDevice, error) {
	files := map[fileID]bool{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err == nil {
			files[fileID{encodeDevice(st.Dev), st.Ino}] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return loopsOver(func(id fileID) bool { return files[id] }), nil
}
