package sbd

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Disk is where the records are. Blocks are of blockBytes; a write is on the disk
// when it returns, and any read that begins afterwards, on any node, finds it.
type Disk interface {
	Read(block int, b []byte) error  // b has recordBytes
	Write(block int, b []byte) error // likewise
	Close() error
}

// ErrBuffered is wrapped where a disk cannot be read past the page cache: what the
// other node has written might not be seen.
var ErrBuffered = errors.New("it does not take direct I/O (O_DIRECT)")

// file is a Disk that is a block device, or a file that both nodes see.
type file struct {
	f    *os.File
	unit int    // bytes of one access: a multiple of recordBytes
	buf  []byte // aligned
}

// OpenDisk opens the disk at path. One goroutine at a time uses it.
func OpenDisk(path string) (Disk, error) {
	f, err := openFile(path, os.O_RDWR)
	if err != nil {
		return nil, fmt.Errorf("sbd %s: %w", path, err)
	}
	return f, nil
}

// LookAtDisk opens the disk at path for reading alone, likewise. Whoever closes a block
// device that was open for writing has udev look at it anew, and at its links.
func LookAtDisk(path string) (Disk, error) {
	f, err := openFile(path, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("sbd %s: %w", path, err)
	}
	return f, nil
}

func openFile(path string, flags int) (*file, error) {
	f, err := os.OpenFile(path, flags|unix.O_DIRECT|unix.O_DSYNC|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EINVAL):
		return nil, fmt.Errorf("%w: %w", ErrBuffered, err)
	case err != nil:
		return nil, err
	}
	d := &file{f: f}
	if err := d.measure(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	raw := make([]byte, 2*blockBytes)
	skip := (blockBytes - int(uintptr(unsafe.Pointer(&raw[0]))%blockBytes)) % blockBytes
	d.buf = raw[skip : skip+d.unit]
	return d, nil
}

// measure finds out in which units the disk is accessed, and whether it has room.
func (d *file) measure() error {
	size, err := d.f.Seek(0, 2)
	if err != nil {
		return fmt.Errorf("size: %w", err)
	}
	info, err := d.f.Stat()
	if err != nil {
		return err
	}
	switch d.unit = blockBytes; {
	case size < areaBytes:
		return fmt.Errorf("it has %d bytes, and %d are needed", size, areaBytes)
	case info.Mode().IsRegular():
		return nil
	case info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0:
		return errors.New("it is neither a block device nor a file")
	}
	if d.unit, err = unix.IoctlGetInt(int(d.f.Fd()), unix.BLKSSZGET); err != nil {
		return fmt.Errorf("BLKSSZGET: %w", err)
	}
	if d.unit < recordBytes || d.unit > blockBytes {
		return fmt.Errorf("its blocks have %d bytes; %d to %d are possible", d.unit, recordBytes, blockBytes)
	}
	return nil
}

// Read implements Disk.
func (d *file) Read(block int, b []byte) error {
	if n, err := d.f.ReadAt(d.buf, int64(block)*blockBytes); err != nil {
		return fmt.Errorf("read block %d: %d bytes: %w", block, n, err)
	}
	copy(b, d.buf)
	return nil
}

// Write implements Disk.
func (d *file) Write(block int, b []byte) error {
	clear(d.buf)
	copy(d.buf, b)
	if n, err := d.f.WriteAt(d.buf, int64(block)*blockBytes); err != nil {
		return fmt.Errorf("write block %d: %d bytes: %w", block, n, err)
	}
	return nil
}

// Close implements Disk.
func (d *file) Close() error { return d.f.Close() }

// area is a disk that is known to be ours.
type area struct {
	disk Disk
	head Head
}

// Owner says whose a disk has to be.
type Owner struct {
	Cluster string
	Nodes   []string // both
}

// ErrOther is wrapped where a disk is another cluster's.
var ErrOther = errors.New("it is another cluster's")

// take looks whose the disk is.
func take(d Disk, o Owner) (*area, error) {
	a, err := find(d)
	if err == nil {
		err = a.head.of(o)
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// find looks for a head on the disk, whose ever it is.
func find(d Disk) (*area, error) {
	b := make([]byte, recordBytes)
	if err := d.Read(0, b); err != nil {
		return nil, err
	}
	h, err := decodeHead(b)
	if err != nil {
		return nil, fmt.Errorf("head: %w; hactl create-sbd makes it", err)
	}
	return &area{d, h}, nil
}

// of wants the disk to be an owner's.
func (h *Head) of(o Owner) error {
	if h.Cluster != o.Cluster {
		return fmt.Errorf("%w: of %q, this one is %q", ErrOther, h.Cluster, o.Cluster)
	}
	for _, n := range o.Nodes {
		if h.slot(n) < 0 {
			return fmt.Errorf("%w: it has slots for %q, and none for %q", ErrOther, h.Nodes, n)
		}
	}
	return nil
}

// slot is the number of a node's slot, or -1.
func (h *Head) slot(node string) int {
	for i, n := range h.Nodes {
		if n == node && node != "" {
			return i
		}
	}
	return -1
}

// slot reads what a node says of itself.
func (a *area) slot(node string) (s Slot, err error) {
	b := make([]byte, recordBytes)
	if err = a.disk.Read(1+2*a.head.slot(node), b); err == nil {
		s, err = decodeSlot(b)
	}
	if err == nil && (s.Disk != a.head.Disk || s.Node != node) {
		err = fmt.Errorf("%w: it is of %q on disk %s", ErrDamaged, s.Node, s.Disk)
	}
	if err != nil {
		return s, fmt.Errorf("slot of %s: %w", node, err)
	}
	return s, nil
}

func (a *area) putSlot(s Slot) error {
	s.Disk = a.head.Disk
	if err := a.disk.Write(1+2*a.head.slot(s.Node), s.encode()); err != nil {
		return fmt.Errorf("slot of %s: %w", s.Node, err)
	}
	return nil
}

// mail reads what a node is told.
func (a *area) mail(node string) (m Mail, err error) {
	b := make([]byte, recordBytes)
	if err = a.disk.Read(2+2*a.head.slot(node), b); err == nil {
		m, err = decodeMail(b)
	}
	if err == nil && m.Disk != a.head.Disk {
		err = fmt.Errorf("%w: it is of disk %s", ErrDamaged, m.Disk)
	}
	if err != nil {
		return m, fmt.Errorf("mail of %s: %w", node, err)
	}
	return m, nil
}

func (a *area) putMail(node string, m Mail) error {
	m.Disk = a.head.Disk
	if err := a.disk.Write(2+2*a.head.slot(node), m.encode()); err != nil {
		return fmt.Errorf("mail of %s: %w", node, err)
	}
	return nil
}
