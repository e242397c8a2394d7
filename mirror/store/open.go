package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hapair/kernel/mounts"
	"hapair/mirror/block"
)

func isUnsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, block.ErrNotSupp)
}

// busyPause is how long a disk that somebody else has is left alone before it is
// tried again.
const busyPause = 50 * time.Millisecond

// openPatiently opens the disk, again and again while somebody else has it: udev
// locks a whole disk while it looks at it, as after its birth and after each writer's
// close, and multipath or LVM may be about to let go. Nobody tells when they have.
func (f *File) openPatiently(o Options) error {
	for end := time.Now().Add(o.Patience); ; time.Sleep(busyPause) {
		err := f.open(o)
		if !errors.Is(err, ErrInUse) || !time.Now().Before(end) {
			return err
		}
	}
}

// open opens, locks and measures the disk.
func (f *File) open(o Options) error {
	var st unix.Stat_t
	if err := unix.Stat(f.path, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		f.isBlock = true
		if where := mountPoint(st.Rdev); where != "" && !o.ReadOnly {
			return fmt.Errorf("%w on %s", ErrMounted, where)
		}
	case unix.S_IFREG:
		if loop := loopDevice(f.path); loop != "" && !o.ReadOnly {
			return fmt.Errorf("%w: %s is set up on it", ErrInUse, loop)
		}
	default:
		return fmt.Errorf("%w (mode %#o)", ErrKind, st.Mode)
	}
	if err := f.openDescriptor(o); err != nil {
		return err
	}
	if err := f.prepare(o); err != nil {
		return errors.Join(err, f.lock.Close())
	}
	f.size.Store(f.geometry.SizeBytes)
	return nil
}

// openDescriptor opens with direct I/O, and without where that is refused.
func (f *File) openDescriptor(o Options) error {
	flags := unix.O_RDWR | unix.O_CLOEXEC
	if o.ReadOnly {
		flags = unix.O_RDONLY | unix.O_CLOEXEC
	} else if f.isBlock {
		flags |= unix.O_EXCL
	}
	fd, err := -1, error(unix.EINVAL)
	f.direct, f.directBy = false, "" // an earlier try may have set them
	if o.Buffered {
		f.directBy = "not wanted"
	} else if fd, err = unix.Open(f.path, flags|unix.O_DIRECT, 0); err == nil {
		f.direct = true
	} else {
		f.directBy = "the filesystem refuses O_DIRECT: " + err.Error()
	}
	if err == unix.EINVAL {
		fd, err = unix.Open(f.path, flags, 0)
	}
	switch {
	case err == unix.EBUSY:
		return fmt.Errorf("%w: %w (a filesystem, LVM, RAID, device mapper or another agent holds it)", ErrInUse, err)
	case err != nil:
		return fmt.Errorf("open: %w", err)
	}
	f.fd, f.lock = fd, os.NewFile(uintptr(fd), f.path)
	return nil
}

// prepare locks a file and finds out size and block sizes.
func (f *File) prepare(o Options) error {
	if !o.ReadOnly {
		// Also on block devices: a loop device takes O_EXCL from nobody who opened it without.
		if err := unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
			return fmt.Errorf("%w: it is locked (flock)", ErrInUse)
		} else if err != nil {
			return fmt.Errorf("flock: %w", err)
		}
	}
	f.geometry = block.Geometry{
		LogicalBlockBytes: block.SectorBytes, PhysicalBlockBytes: 4096,
		MaxTransferBytes: block.MaxTransferBytes, VolatileCache: true,
	}
	if f.isBlock {
		f.inline = o.Mode == Inline
		return f.measureDevice()
	}
	return f.measureFile(o)
}

func (f *File) measureFile(o Options) error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(f.fd, &fs); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	f.inMemory = fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC
	f.inline = o.Mode == Inline || o.Mode == Auto && f.inMemory
	if f.direct {
		f.geometry.LogicalBlockBytes = directAlignment(f.fd, int(st.Blksize))
	}
	f.geometry.SizeBytes = st.Size / int64(f.geometry.LogicalBlockBytes) * int64(f.geometry.LogicalBlockBytes)
	if f.geometry.SizeBytes == 0 {
		return fmt.Errorf("a file of %d bytes holds no block of %d", st.Size, f.geometry.LogicalBlockBytes)
	}
	// A hole behind the end changes nothing, and is refused where no holes can be made.
	behind := block.Request{Offset: (st.Size + block.AlignBytes - 1) / block.AlignBytes * block.AlignBytes, Length: block.AlignBytes}
	f.geometry.Discard = f.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, &behind) == nil
	return nil
}

// directAlignment is the smallest unit of direct I/O on a file.
func directAlignment(fd, blockSize int) int {
	var stx unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &stx)
	if err == nil && stx.Mask&unix.STATX_DIOALIGN != 0 && stx.Dio_offset_align != 0 {
		return max(int(stx.Dio_offset_align), block.SectorBytes)
	}
	return min(max(blockSize, block.SectorBytes), block.AlignBytes)
}

func (f *File) measureDevice() error {
	logical, err := unix.IoctlGetInt(f.fd, unix.BLKSSZGET)
	if err != nil {
		return fmt.Errorf("logical block size: %w", err)
	}
	physical, err := unix.IoctlGetUint32(f.fd, unix.BLKPBSZGET)
	if err != nil {
		return fmt.Errorf("physical block size: %w", err)
	}
	size, err := unix.Seek(f.fd, 0, unix.SEEK_END)
	if err != nil {
		return fmt.Errorf("size: %w", err)
	}
	if logical > block.AlignBytes {
		return fmt.Errorf("%w: logical blocks of %d bytes, at most %d", ErrKind, logical, block.AlignBytes)
	}
	if size == 0 {
		return fmt.Errorf("%w: the device has no size (no medium, or not set up)", ErrKind)
	}
	f.geometry.SizeBytes = size
	f.geometry.LogicalBlockBytes = logical
	f.geometry.PhysicalBlockBytes = int(physical)
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	f.dev = st.Rdev
	if mode, ok := queueAttribute(f.dev, "write_cache"); ok {
		f.geometry.VolatileCache = mode != "write through"
	}
	f.geometry.Discard = frees(f.dev)
	return nil
}

// frees reports whether a device frees what a hole is made of. One that discards but has no
// command for zeroes (dm-thin, most SATA disks) does not say what a discard leaves; one
// that has the command but cannot discard (a disk with WRITE SAME) writes all of them.
func frees(dev uint64) bool {
	for _, name := range []string{"discard_max_bytes", "write_zeroes_max_bytes"} {
		if n, ok := queueAttribute(dev, name); !ok || n == "0" {
			return false
		}
	}
	return true
}

// queueAttribute reads an attribute of a device's request queue from sysfs; a
// partition's is that of its disk.
func queueAttribute(dev uint64, name string) (string, bool) {
	base := sysfsOf(sysfs, dev) + "/"
	for _, dir := range []string{"queue/", "../queue/"} {
		if text, err := os.ReadFile(base + dir + name); err == nil {
			return strings.TrimSpace(string(text)), true
		}
	}
	return "", false
}

// mountPoint is where a block device is mounted in this mount namespace, or "".
func mountPoint(dev uint64) string {
	all, err := mounts.Read(mounts.Own)
	if err != nil {
		return "" // O_EXCL refuses it all the same
	}
	for _, m := range all {
		if m.Dev == dev {
			return m.Point
		}
	}
	return ""
}

// loopDevice is the loop device that is set up on a file, or "".
func loopDevice(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return ""
	}
	for _, name := range backing {
		if text, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(text)) == path {
			return "/dev/" + strings.Split(name, "/")[3]
		}
	}
	return ""
}
