package ledgertest

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// maxQueued bounds what one direction of a stream may hold, in bytes.
const maxQueued = 8 << 20

var errReset = errors.New("connection reset by peer")

type chunk struct {
	at time.Time // arrives
	b  []byte
}

// half is one direction of a stream. Net.mu guards it.
type half struct {
	net      *Net
	from, to string
	chunks   []chunk
	queued   int
	last     time.Time
	ended    bool // the writer has closed
	gone     bool // the reader has closed
	silent   bool // a crash: nothing arrives any more
	deadline time.Time
	changed  chan struct{}
}

func (h *half) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// conn is one end of a stream.
type conn struct {
	in, out       *half
	local, remote string
}

type addr string

func (addr) Network() string  { return "memory" }
func (a addr) String() string { return string(a) }

func (c *conn) LocalAddr() net.Addr  { return addr(c.local) }
func (c *conn) RemoteAddr() net.Addr { return addr(c.remote) }

// Read waits for what has arrived, the end, or the deadline.
func (c *conn) Read(b []byte) (int, error) {
	h := c.in
	for {
		h.net.mu.Lock()
		n, wait, err := h.tryRead(b)
		changed := h.changed
		h.net.mu.Unlock()
		if n > 0 || err != nil {
			return n, err
		}
		var timer *time.Timer
		var fire <-chan time.Time
		if !wait.IsZero() {
			timer = time.NewTimer(time.Until(wait))
			fire = timer.C
		}
		select {
		case <-changed:
		case <-fire:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// tryRead returns what can be read now, or until when to wait (zero: for a change).
func (h *half) tryRead(b []byte) (n int, wait time.Time, err error) {
	now := time.Now()
	if h.gone {
		return 0, wait, net.ErrClosed
	}
	if !h.deadline.IsZero() && !now.Before(h.deadline) {
		return 0, wait, os.ErrDeadlineExceeded
	}
	wait = h.deadline
	if h.silent || h.net.blocked(h.from, h.to) {
		return 0, wait, nil
	}
	if len(h.chunks) == 0 {
		if h.ended {
			return 0, wait, io.EOF
		}
		return 0, wait, nil
	}
	first := &h.chunks[0]
	if now.Before(first.at) {
		if wait.IsZero() || first.at.Before(wait) {
			wait = first.at
		}
		return 0, wait, nil
	}
	n = copy(b, first.b)
	h.queued -= n
	if first.b = first.b[n:]; len(first.b) == 0 {
		h.chunks = h.chunks[1:]
	}
	return n, wait, nil
}

// Write queues; it never blocks.
func (c *conn) Write(b []byte) (int, error) {
	h := c.out
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	switch {
	case h.ended:
		return 0, net.ErrClosed
	case h.gone && !h.net.blocked(h.from, h.to):
		return 0, errReset
	case h.queued+len(b) > maxQueued:
		return 0, os.ErrDeadlineExceeded
	}
	at := time.Now().Add(h.net.latency(h.net.rng, h.from, h.to))
	if at.Before(h.last) {
		at = h.last
	}
	h.last = at
	h.chunks = append(h.chunks, chunk{at, append([]byte(nil), b...)})
	h.queued += len(b)
	h.wake()
	return len(b), nil
}

// Close ends both directions.
func (c *conn) Close() error {
	n := c.in.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.in.gone {
		return net.ErrClosed
	}
	c.in.gone, c.out.ended = true, true
	c.in.chunks, c.in.queued = nil, 0
	for _, h := range []*half{c.in, c.out} {
		h.wake()
		if h.gone && h.ended {
			delete(n.halves, h)
		}
	}
	return nil
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.net.mu.Lock()
	defer c.in.net.mu.Unlock()
	if c.in.gone {
		return net.ErrClosed
	}
	c.in.deadline = t
	c.in.wake()
	return nil
}

// SetWriteDeadline implements net.Conn; writes never wait.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
