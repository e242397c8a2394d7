package peering

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is an authenticated stream to a node of the cluster.
type Conn struct {
	net.Conn
	Node, Path, Purpose string
	Incarnation         uint64 // the peer's, when the stream came about
	Machine             string // the peer's, "" where it was not told

	net      *Net
	accepted bool
	raw      *net.TCPConn
	once     sync.Once
}

// Raw returns the TCP connection when the bytes of the stream are the bytes on
// the wire (mode PSK), for writev and its like; nil in mode TLS. Close the
// Conn, not the result.
func (c *Conn) Raw() *net.TCPConn {
	if _, encrypted := c.Conn.(*tls.Conn); encrypted {
		return nil
	}
	return c.raw
}

// Below returns the socket below the stream, for what is set there.
func (c *Conn) Below() syscall.Conn { return c.raw }

// CloseWrite tells the peer that nothing more will come; it may block as a
// write may.
func (c *Conn) CloseWrite() error {
	if t, ok := c.Conn.(*tls.Conn); ok {
		return t.CloseWrite()
	}
	return c.raw.CloseWrite()
}

// Close ends the stream at once: it never waits for the network, and sends no
// farewell. Protocols above have their own.
func (c *Conn) Close() error {
	c.net.forget(c)
	err := net.ErrClosed
	c.once.Do(func() { err = c.raw.Close() })
	return err
}

// tune sets what every stream has: no delay, keepalive, and an end to
// unacknowledged data.
func (n *Net) tune(c *net.TCPConn) error {
	if err := c.SetNoDelay(true); err != nil {
		return fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	if err := c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: n.cfg.KeepAlive, Interval: n.cfg.KeepAlive, Count: 3}); err != nil {
		return fmt.Errorf("set keepalive: %w", err)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("set TCP_USER_TIMEOUT: %w", err)
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(n.cfg.UserTimeout/time.Millisecond))
	}); err != nil {
		return fmt.Errorf("set TCP_USER_TIMEOUT: %w", err)
	}
	if set != nil {
		return fmt.Errorf("set TCP_USER_TIMEOUT: %w", set)
	}
	return nil
}

// OnPath returns Path, for users that know a stream only as a net.Conn.
func (c *Conn) OnPath() string { return c.Path }
