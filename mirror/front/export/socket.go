package export

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a client's connection. Receiving parks the goroutine in the
// runtime's poller: a goroutine that blocks in the kernel instead keeps its
// processor until the scheduler's watchdog takes it away, which costs the
// Handler's goroutines far more than the poll (DESIGN.md has the figures).
// Sending is tried first, on whatever goroutine has something to send.
type socket struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	fd   int

	// The sender's, see waitSend.
	msg  *unix.Msghdr
	sent int
	err  error
	poll func(uintptr) bool
}

func newSocket(c *net.UnixConn) (*socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach the client's socket: %w", err)
	}
	s := &socket{conn: c, raw: raw}
	s.poll = s.trySend
	if err := raw.Control(func(fd uintptr) { s.fd = int(fd) }); err != nil {
		return nil, fmt.Errorf("reach the client's socket: %w", err)
	}
	return s, nil
}

// recv waits for some bytes. io.EOF says the other side, or shutdown, is done.
func (s *socket) recv(p []byte) (int, error) {
	n, err := s.conn.Read(p)
	if err != nil && err != io.EOF {
		return n, fmt.Errorf("receive: %w", err)
	}
	return n, err
}

// send writes what the message has, as much as fits; unix.EAGAIN says nothing
// does.
func (s *socket) send(m *unix.Msghdr) (int, error) {
	for {
		n, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(m)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if e == 0 {
			return int(n), nil
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}

// waitSend is send that waits for room.
func (s *socket) waitSend(m *unix.Msghdr) (int, error) {
	s.msg = m
	if err := s.raw.Write(s.poll); err != nil {
		return 0, fmt.Errorf("wait for a client to read: %w", err)
	}
	return s.sent, s.err
}

func (s *socket) trySend(uintptr) bool {
	s.sent, s.err = s.send(s.msg)
	return s.err != unix.EAGAIN
}

// shutdown ends both directions; whoever waits in recv or waitSend returns.
func (s *socket) shutdown() error {
	if err := unix.Shutdown(s.fd, unix.SHUT_RDWR); err != nil && err != unix.ENOTCONN {
		return fmt.Errorf("shut a client's socket down: %w", err)
	}
	return nil
}

func (s *socket) close() error {
	if err := s.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close a client's socket: %w", err)
	}
	return nil
}
