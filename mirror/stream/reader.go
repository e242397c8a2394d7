package stream

import (
	"fmt"
	"io"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reader reads a socket. It has one owner at a time and allocates nothing.
type Reader struct {
	raw syscall.RawConn

	// of the call under way
	try func(fd uintptr) bool // receive, bound once
	p   []byte
	n   int
	err error
}

// NewReader makes a reader. Deadlines and the end of conn apply to it.
func NewReader(conn syscall.Conn) (*Reader, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach a socket: %w", err)
	}
	r := &Reader{raw: raw}
	r.try = r.receive
	return r, nil
}

// Read waits for some bytes, as io.Reader says.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	r.p = p
	err := r.raw.Read(r.try)
	r.p = nil
	switch {
	case err != nil:
		return 0, fmt.Errorf("receive: %w", err)
	case r.err != nil:
		return 0, fmt.Errorf("receive: %w", r.err)
	case r.n == 0:
		return 0, io.EOF
	}
	return r.n, nil
}

// receive takes what is there; false means nothing is.
func (r *Reader) receive(fd uintptr) bool {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&r.p[0])), uintptr(len(r.p)), unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			r.n, r.err = int(n), nil
			return true
		case unix.EAGAIN:
			return false
		case unix.EINTR:
		default:
			r.n, r.err = 0, e
			return true
		}
	}
}
