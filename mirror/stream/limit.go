package stream

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// LimitUnsent has a socket be full when so many bytes of it have not left, whatever
// its buffer: what is sent, and is not confirmed, does not count.
func LimitUnsent(conn syscall.Conn, bytes int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("reach a socket: %w", err)
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes) }); err != nil {
		return fmt.Errorf("reach a socket: %w", err)
	}
	if set != nil {
		return fmt.Errorf("set TCP_NOTSENT_LOWAT: %w", set)
	}
	return nil
}
