package export

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"hapair/mirror/stream"
)

// socket is a client's connection, for receiving; replies leave by a
// stream.Vector. Receiving parks the goroutine in the runtime's poller: a
// goroutine that blocks in the kernel instead keeps its processor until the
// scheduler's watchdog takes it away, which costs the Handler's goroutines far
// more than the poll (DESIGN.md has the figures).
type socket struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	in   *stream.Reader
}

func newSocket(c *net.UnixConn) (*socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach the client's socket: %w", err)
	}
	in, err := stream.NewReader(c)
	if err != nil {
		return nil, fmt.Errorf("reach the client's socket: %w", err)
	}
	return &socket{conn: c, raw: raw, in: in}, nil
}

// recv waits for some bytes. io.EOF says the other side, or shutdown, is done.
func (s *socket) recv(p []byte) (int, error) { return s.in.Read(p) }

// shutdown ends both directions; whoever waits for the client returns.
func (s *socket) shutdown() error {
	var down error
	err := s.raw.Control(func(fd uintptr) { down = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	if down != nil && down != unix.ENOTCONN {
		err = errors.Join(err, down)
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
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
