package api

import (
	"net"
	"sync"
)

// MaxConns bounds the connections at once; further callers wait in the kernel's
// queue.
const MaxConns = 256

// limited is a listener that hands out at most MaxConns connections at a time.
// Unlike x/net's, what it hands out still tells who calls.
type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newLimited(l net.Listener) *limited {
	return &limited{Listener: l, slots: make(chan struct{}, MaxConns), closed: make(chan struct{})}
}

// Accept waits for a free slot, then for a caller.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	free := sync.OnceFunc(func() { <-l.slots })
	if u, ok := conn.(*net.UnixConn); ok {
		return &unixConn{u, free}, nil
	}
	return &otherConn{conn, free}, nil
}

// Close also wakes an Accept that waits for a slot.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type unixConn struct {
	*net.UnixConn
	free func()
}

// Close gives the slot back.
func (c *unixConn) Close() error {
	defer c.free()
	return c.UnixConn.Close()
}

type otherConn struct {
	net.Conn
	free func()
}

// Close gives the slot back.
func (c *otherConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
