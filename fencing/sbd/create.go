package sbd

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// known are beginnings of what else may be on a disk, for the message only: whatever
// is not blank is refused.
var known = []struct {
	at   int
	sign string
	what string
}{
	{0, "SBD_SBD_", "a disk of ClusterLabs' sbd"}, {0, "LUKS\xba\xbe", "LUKS"}, {0x438, "\x53\xef", "an ext file system"}, {0, "XFSB", "an XFS file system"},
	{510, "\x55\xaa", "a partition table"}, {512, "LABELONE", "an LVM physical volume"}, {0x10040, "_BHRfS_M", "a btrfs file system"},
}

// ErrInUse is wrapped where a disk has something on it, or is used otherwise.
var ErrInUse = errors.New("it is in use")

// Create makes the disk at path one for the nodes of a cluster. A file is made where
// there is none. What has anything on it is refused; a disk that is ours already is made
// anew with force only: agents that use it then rely on nothing until they are
// started again.
func Create(path string, o Owner, force bool) (Head, error) {
	h, err := create(path, o, force)
	if err != nil {
		return h, fmt.Errorf("sbd %s: %w", path, err)
	}
	return h, nil
}

func create(path string, o Owner, force bool) (h Head, err error) {
	if len(o.Nodes) != slots {
		return h, fmt.Errorf("%q are not %d nodes", o.Nodes, slots)
	}
	h = Head{Cluster: o.Cluster, Nodes: [slots]string(o.Nodes), Made: time.Now()}
	if _, err := rand.Read(h.Disk[:]); err != nil {
		return h, err
	}
	if err := makeFile(path); err != nil {
		return h, err
	}
	flags := os.O_RDWR
	if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeDevice != 0 {
		flags |= unix.O_EXCL // a file system, LVM or another agent has it
	}
	d, err := openFile(path, flags)
	if errors.Is(err, unix.EBUSY) {
		return h, fmt.Errorf("%w: %w", ErrInUse, err)
	} else if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.vacant(force); err != nil {
		return h, err
	}
	return h, h.found(d)
}

// makeFile makes a file where nothing is. A name below /dev that is missing is a disk
// that is missing.
func makeFile(path string) error {
	if _, err := os.Lstat(path); err == nil || !errors.Is(err, os.ErrNotExist) || len(path) > 5 && path[:5] == "/dev/" {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, areaBytes))
	return errors.Join(err, f.Sync(), f.Close())
}

// vacant wants nothing to be on the disk: at its beginning, and at its end, where
// RAID and GPT have theirs.
func (d *file) vacant(force bool) error {
	size, err := d.f.Seek(0, 2)
	if err != nil {
		return err
	}
	first, err := d.bytes(0)
	if err != nil {
		return err
	}
	if _, _, _, err := open(first, kindHead); err == nil {
		h, err := decodeHead(first)
		switch {
		case err != nil && !force:
			return err
		case !force:
			return fmt.Errorf("%w: it is made already, for %q of cluster %q; --force makes it anew", ErrInUse, h.Nodes, h.Cluster)
		}
		return nil
	}
	more, err := d.bytes(areaBytes) // that of btrfs lies there
	if err != nil && size >= 2*areaBytes {
		return err
	}
	last, err := d.bytes((size - areaBytes) / blockBytes * blockBytes)
	if err != nil {
		return err
	}
	if all := append(append(first, more...), last...); len(bytes.Trim(all, "\x00")) > 0 {
		return fmt.Errorf("%w: %s; if nobody needs it: dd if=/dev/zero of=DISK bs=64k count=2, and its last 64 KiB likewise", ErrInUse, whatIs(first, more))
	}
	return nil
}

// bytes reads as many as are ours, from an offset.
func (d *file) bytes(at int64) ([]byte, error) {
	var out []byte
	for n := int64(0); n < areaBytes; n += int64(d.unit) {
		if _, err := d.f.ReadAt(d.buf, at+n); err != nil {
			return out, fmt.Errorf("read at %d: %w", at+n, err)
		}
		out = append(out, d.buf...)
	}
	return out, nil
}

func whatIs(first, more []byte) string {
	all := append(bytes.Clone(first), more...)
	for _, k := range known {
		if len(all) >= k.at+len(k.sign) && string(all[k.at:k.at+len(k.sign)]) == k.sign {
			return k.what + " is on it"
		}
	}
	return "something is on it"
}

// found writes a new disk, its head last: without that it is none.
func (h *Head) found(d Disk) error {
	if err := d.Write(0, make([]byte, recordBytes)); err != nil {
		return err
	}
	a := &area{d, *h}
	for _, n := range h.Nodes {
		if err := errors.Join(a.putSlot(Slot{Node: n, At: h.Made}), a.putMail(n, Mail{At: h.Made})); err != nil {
			return err
		}
	}
	return d.Write(0, h.encode())
}

// Look is what is on a disk.
type Look struct {
	Head  Head
	Slots []SlotLook // in the order of the head
}

// SlotLook is one node's part. Errors say what cannot be read of it.
type SlotLook struct {
	Node    string
	Slot    Slot
	Mail    Mail
	SlotErr error
	MailErr error
}

// Show reads the disk at path; it changes nothing.
func Show(path string) (Look, error) {
	l, err := show(path)
	if err != nil {
		return l, fmt.Errorf("sbd %s: %w", path, err)
	}
	return l, nil
}

func show(path string) (l Look, err error) {
	d, err := openFile(path, os.O_RDONLY)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	a, err := find(d)
	if err != nil {
		return l, err
	}
	l.Head = a.head
	for _, n := range l.Head.Nodes {
		s := SlotLook{Node: n}
		s.Slot, s.SlotErr = a.slot(n)
		s.Mail, s.MailErr = a.mail(n)
		l.Slots = append(l.Slots, s)
	}
	return l, nil
}

// Check looks whether the disk at path is there, and the cluster's.
func Check(path string, o Owner) error {
	l, err := Show(path)
	if err != nil {
		return err
	}
	if err := l.Head.of(o); err != nil {
		return fmt.Errorf("sbd %s: %w", path, err)
	}
	return nil
}
