package uring

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What linux/io_uring.h says; golang.org/x/sys has none of it.
const (
	opFsync = 3
	opRead  = 22 // IORING_OP_READ, Linux 5.6
	opWrite = 23

	fsyncDatasync = 1 << 0

	setupClamp     = 1 << 4
	setupSubmitAll = 1 << 7 // Linux 5.18

	featNoDrop      = 1 << 1
	featSingleMmap  = 1 << 0
	offsetRings     = 0
	offsetEntries   = 0x10000000
	sqeBytes        = 64
	registerProbe   = 8
	probeSupported  = 1 << 0
	probeOps        = opWrite + 1
	probeHeadBytes  = 16
	probeEntryBytes = 8
)

type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
	_                                                           uint64
}

type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
	_                                                           uint64
}

type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFd uint32
	_                                                                      [3]uint32
	sq                                                                     sqOffsets
	cq                                                                     cqOffsets
}

// sqe is one submission as the kernel reads it.
type sqe struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	offset        uint64
	addr          uint64
	length        uint32
	opFlags       uint32 // RWF_ of a read or write, IORING_FSYNC_ of a sync
	user          uint64
	_             [3]uint64
}

// cqe is one completion as the kernel writes it.
type cqe struct {
	user  uint64
	res   int32
	flags uint32
}

// The kernel's sizes; a mistake does not compile.
var (
	_ [sqeBytes]byte = [unsafe.Sizeof(sqe{})]byte{}
	_ [16]byte       = [unsafe.Sizeof(cqe{})]byte{}
	_ [120]byte      = [unsafe.Sizeof(params{})]byte{}
)

// setup makes a ring, without a wish an older kernel does not know.
func setup(entries uint32, p *params) (fd int, err error) {
	for _, flags := range []uint32{setupClamp | setupSubmitAll, setupClamp} {
		*p = params{flags: flags}
		n, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(p)), 0)
		if errno == 0 {
			return int(n), nil
		}
		if err = errno; errno != unix.EINVAL {
			break
		}
	}
	return -1, fmt.Errorf("io_uring_setup: %w", err)
}

// probe fails unless the kernel knows every operation used here.
func probe(fd int) error {
	var known [probeHeadBytes + probeOps*probeEntryBytes]byte
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(fd), registerProbe, uintptr(unsafe.Pointer(&known)), probeOps, 0, 0)
	if errno != 0 {
		return fmt.Errorf("io_uring_register: %w", errno)
	}
	for _, op := range []int{opFsync, opRead, opWrite} {
		entry := known[probeHeadBytes+op*probeEntryBytes:]
		if int(entry[0]) != op || entry[2]&probeSupported == 0 {
			return fmt.Errorf("io_uring operation %d: %w", op, unix.ENOSYS)
		}
	}
	return nil
}

// enter has the kernel take n submissions and says how many it took.
func enter(fd int, n uint32) (uint32, unix.Errno) {
	took, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(fd), uintptr(n), 0, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return uint32(took), 0
}
