package export

import (
	"errors"
	"fmt"
	"io"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a connected stream socket in blocking mode. A reader that blocks
// in the kernel answers one wake-up sooner than one parked in the runtime's
// poller (DESIGN.md has the figures); there are at most connectionsMax.
type socket struct{ fd int }

// takeSocket takes the descriptor out of a net.UnixConn, which is closed.
func takeSocket(c *net.UnixConn) (socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return socket{}, errors.Join(fmt.Errorf("reach the client's socket: %w", err), c.Close())
	}
	fd := -1
	if cerr := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		err = cerr
	}
	if err != nil {
		return socket{}, errors.Join(fmt.Errorf("duplicate the client's socket: %w", err), c.Close())
	}
	if err := errors.Join(c.Close(), unix.SetNonblock(fd, false)); err != nil {
		return socket{}, errors.Join(fmt.Errorf("make the client's socket blocking: %w", err), unix.Close(fd))
	}
	return socket{fd: fd}, nil
}

// recv waits for some bytes. io.EOF says the other side, or shutdown, is done.
func (s socket) recv(p []byte) (int, error) {
	for {
		n, err := unix.Read(s.fd, p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("receive: %w", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// send writes what the message has, as much as fits. Without wait it returns
// unix.EAGAIN instead of blocking.
func (s socket) send(m *unix.Msghdr, wait bool) (int, error) {
	flags := uintptr(unix.MSG_NOSIGNAL)
	if !wait {
		flags |= unix.MSG_DONTWAIT
	}
	for {
		n, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(m)), flags)
		if e == 0 {
			return int(n), nil
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}

// shutdown ends both directions; whoever blocks in recv or send returns.
func (s socket) shutdown() error {
	if err := unix.Shutdown(s.fd, unix.SHUT_RDWR); err != nil && err != unix.ENOTCONN {
		return fmt.Errorf("shut a client's socket down: %w", err)
	}
	return nil
}

func (s socket) close() error {
	if err := unix.Close(s.fd); err != nil {
		return fmt.Errorf("close a client's socket: %w", err)
	}
	return nil
}
