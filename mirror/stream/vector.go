// Package stream reads and writes stream sockets the way the data path wants
// it: many pieces in one system call, and no hand-off for what does not wait.
//
// Both directions make their system calls without telling the scheduler (see
// RawSyscall in package syscall): they never wait in the kernel, and telling
// wakes the runtime's monitor thread each time the process was idle, which costs
// a lone request more than the call itself. Waiting is the runtime's poller's.
package stream

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrFull says that the socket takes nothing at the moment.
var ErrFull = errors.New("the socket is full")

// Vector is the pieces on their way to one socket. It has one owner at a time
// and starts no goroutine.
type Vector struct {
	raw    syscall.RawConn
	iovecs []unix.Iovec // pieces; cap is the bound
	gone   int          // of them, wholly sent
	bytes  int          // not yet sent
	msg    unix.Msghdr

	// what the calls of raw leave; bound once, so that nothing is allocated
	try, wait func(fd uintptr) bool
	err       error
}

// NewVector makes an empty vector of at most pieces pieces (the kernel takes
// 1024).
func NewVector(conn syscall.Conn, pieces int) (*Vector, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach a socket: %w", err)
	}
	v := &Vector{raw: raw, iovecs: make([]unix.Iovec, 0, pieces)}
	v.try = func(fd uintptr) bool {
		v.err = v.send(int(fd))
		return true
	}
	v.wait = func(fd uintptr) bool {
		v.err = v.send(int(fd))
		return v.err != unix.EAGAIN
	}
	return v, nil
}

// Room is how many pieces Add still takes.
func (v *Vector) Room() int { return cap(v.iovecs) - len(v.iovecs) }

// Bytes is how many bytes are still to be sent.
func (v *Vector) Bytes() int { return v.bytes }

// Add appends a piece; it must stay as it is until Reset. An empty one is none.
// There must be Room.
func (v *Vector) Add(b []byte) {
	if len(b) == 0 {
		return
	}
	v.iovecs = append(v.iovecs, unix.Iovec{Base: &b[0]})
	v.iovecs[len(v.iovecs)-1].SetLen(len(b))
	v.bytes += len(b)
}

// Reset forgets all pieces.
func (v *Vector) Reset() {
	clear(v.iovecs) // pooled memory must not be reachable from here
	v.iovecs, v.gone, v.bytes = v.iovecs[:0], 0, 0
	v.msg.Iov = nil
}

// Push sends what is left. With wait it waits for the socket as long as that
// takes, or until it is closed; without, ErrFull says that something is left.
func (v *Vector) Push(wait bool) error {
	how := v.try
	if wait {
		how = v.wait
	}
	for v.bytes > 0 {
		if err := v.raw.Write(how); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		switch {
		case v.err == unix.EAGAIN:
			return ErrFull
		case v.err != nil:
			return fmt.Errorf("send: %w", v.err)
		}
	}
	return nil
}

// send is one system call.
func (v *Vector) send(fd int) error {
	left := v.iovecs[v.gone:]
	v.msg.Iov = &left[0]
	v.msg.SetIovlen(len(left))
	for {
		n, _, e := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.msg)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		switch e {
		case 0:
			v.advance(int(n))
			return nil
		case unix.EINTR:
		default:
			return e
		}
	}
}

// advance steps over n bytes that have gone.
func (v *Vector) advance(n int) {
	v.bytes -= n
	for n > 0 {
		p := &v.iovecs[v.gone]
		if n < int(p.Len) {
			p.Base = (*byte)(unsafe.Add(unsafe.Pointer(p.Base), n))
			p.SetLen(int(p.Len) - n)
			return
		}
		n -= int(p.Len)
		v.gone++
	}
}
