package store

import (
	"errors"
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"

	"hapair/mirror/block"
)

// carryOut does what a checked request asks, on the calling goroutine.
func (f *File) carryOut(r *block.Request) error {
	switch r.Op {
	case block.Read:
		return f.bounced(r, false)
	case block.Write:
		return f.bounced(r, true)
	case block.Flush:
		return f.sync()
	default:
		return f.zero(r)
	}
}

// bounced reads or writes, through an aligned buffer where direct I/O cannot use
// the caller's memory.
func (f *File) bounced(r *block.Request, write bool) error {
	if !f.direct || block.IsAligned(r.Data) {
		return f.transfer(r, r.Data, write)
	}
	b := block.GetBuffer(len(r.Data))
	defer b.Put()
	data := b.Bytes(len(r.Data))
	if write {
		copy(data, r.Data)
		return f.transfer(r, data, true)
	}
	if err := f.transfer(r, data, false); err != nil {
		return err
	}
	copy(r.Data, data)
	return nil
}

func (f *File) transfer(r *block.Request, data []byte, write bool) error {
	if !write {
		return f.readAll(data, r.Offset)
	}
	if r.Flags&block.FUA == 0 {
		return f.writeAll(data, r.Offset, 0)
	}
	if !f.can.noDsync.Load() {
		err := f.writeAll(data, r.Offset, unix.RWF_DSYNC)
		if err == nil || !isUnsupported(err) {
			return err
		}
		f.can.noDsync.Store(true)
	}
	if err := f.writeAll(data, r.Offset, 0); err != nil {
		return err
	}
	return f.sync()
}

func (f *File) readAll(data []byte, off int64) error {
	for len(data) > 0 {
		n, err := f.pread(data, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return sentinel(err)
		case n == 0:
			return fmt.Errorf("%w: the disk ends at byte %d: %w", block.ErrIO, off, io.ErrUnexpectedEOF)
		}
		data, off = data[n:], off+int64(n)
	}
	return nil
}

func (f *File) writeAll(data []byte, off int64, flags uintptr) error {
	for len(data) > 0 {
		n, err := f.pwrite(data, off, flags)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return sentinel(err)
		case n == 0:
			return fmt.Errorf("%w: nothing was written at byte %d", block.ErrIO, off)
		}
		data, off = data[n:], off+int64(n)
	}
	return nil
}

func (f *File) pread(data []byte, off int64) (int, error) {
	if f.inMemory {
		return f.vectored(unix.SYS_PREADV2, data, off, 0)
	}
	return unix.Pread(f.fd, data, off)
}

func (f *File) pwrite(data []byte, off int64, flags uintptr) (int, error) {
	if f.inMemory || flags != 0 {
		return f.vectored(unix.SYS_PWRITEV2, data, off, flags)
	}
	return unix.Pwrite(f.fd, data, off)
}

// vectored is preadv2 or pwritev2 with one vector on the stack: the library's
// wrappers allocate. Memory behind a filesystem waits for nothing: then the
// scheduler is not told (see package stream).
func (f *File) vectored(call uintptr, data []byte, off int64, flags uintptr) (int, error) {
	vec := unix.Iovec{Base: &data[0]}
	vec.SetLen(len(data))
	var done uintptr
	var errno unix.Errno
	if f.inMemory {
		done, _, errno = unix.RawSyscall6(call, uintptr(f.fd), uintptr(unsafe.Pointer(&vec)), 1, uintptr(off), uintptr(uint64(off)>>32), flags)
	} else {
		done, _, errno = unix.Syscall6(call, uintptr(f.fd), uintptr(unsafe.Pointer(&vec)), 1, uintptr(off), uintptr(uint64(off)>>32), flags)
	}
	if errno != 0 {
		return 0, errno
	}
	return int(done), nil
}

// sync makes everything completed so far durable. A failure is final: the kernel
// drops what it could not write, and the next fdatasync would succeed without it.
func (f *File) sync() error {
	if lost := f.lost.Load(); lost != nil {
		return fmt.Errorf("an earlier flush failed: %w", *lost)
	}
	for {
		switch err := unix.Fdatasync(f.fd); err {
		case nil:
			return nil
		case unix.EINTR:
		default:
			failure := sentinel(err)
			f.lost.CompareAndSwap(nil, &failure)
			return failure
		}
	}
}

// zero makes a range read as zeroes, by a hole unless the space must stay allocated,
// else by the kernel's other means, else by writing them. A discard is the same:
// what it leaves has to be the same on both copies, whatever their devices are.
func (f *File) zero(r *block.Request) error {
	err := f.punch(r)
	if err != nil { // whatever it is: if zeroes cannot be had at all, the others say so
		err = f.zeroRange(r)
	}
	if isUnsupported(err) {
		err = f.writeZeroes(r)
	}
	return f.fua(r, err)
}

// punch makes a hole. On a block device too it leaves zeroes, or fails: where the
// device would have to write them, and where it rejects the command.
func (f *File) punch(r *block.Request) error {
	if r.Flags&block.NoUnmap != 0 || f.can.noPunch.Load() {
		return unix.EOPNOTSUPP
	}
	err := f.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, r)
	if isUnsupported(err) || errors.Is(err, unix.EREMOTEIO) {
		f.can.noPunch.Store(true)
	}
	return err
}

func (f *File) zeroRange(r *block.Request) (err error) {
	switch {
	case f.can.noZero.Load():
		return unix.EOPNOTSUPP
	case f.isBlock:
		err = f.blockRange(unix.BLKZEROOUT, r)
	default:
		err = f.fallocate(unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, r)
	}
	if isUnsupported(err) {
		f.can.noZero.Store(true)
	}
	return err
}

// fua finishes a request that has no FUA of its own in the kernel.
func (f *File) fua(r *block.Request, err error) error {
	if err != nil || r.Flags&block.FUA == 0 {
		return err
	}
	return f.sync()
}

// zeroes is what writeZeroes writes from.
var zeroes = block.Aligned(256 << 10)

func (f *File) writeZeroes(r *block.Request) error {
	for off := r.Offset; off < r.End(); {
		n := min(r.End()-off, int64(len(zeroes)))
		if err := f.writeAll(zeroes[:n], off, 0); err != nil {
			return err
		}
		off += n
	}
	return nil
}

func (f *File) fallocate(mode uint32, r *block.Request) error {
	for {
		switch err := f.allocate(f.fd, mode, r.Offset, r.Length); err {
		case nil:
			return nil
		case unix.EINTR:
		default:
			return sentinel(err)
		}
	}
}

// blockRange is an ioctl that takes an offset and a length.
func (f *File) blockRange(request uintptr, r *block.Request) error {
	span := [2]uint64{uint64(r.Offset), uint64(r.Length)}
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), request, uintptr(unsafe.Pointer(&span)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		case unix.ENOTTY, unix.EINVAL: // a driver without it
			return sentinel(unix.EOPNOTSUPP)
		default:
			return sentinel(errno)
		}
	}
}
