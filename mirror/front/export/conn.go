package export

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"hapair/mirror/block"
	"hapair/mirror/front/holder"
)

// conn is one client in the transmission phase.
//
// Goroutines: the reader (serve), woken by the socket or by room in the pool;
// the writer, woken by a sender that met a full socket. Done of the Handler's
// requests runs wherever the Handler likes.
type conn struct {
	handler  block.Handler
	geometry block.Geometry
	session  session
	sock     *socket
	log      *zap.Logger
	peer     holder.Holder

	pool      *pool
	in        reader
	out       outbox
	stuck     chan struct{}
	holdTimer *time.Timer
	flushOut  func() // c.flush, bound once
	onLeft    func() // the client has gone; requests may be in flight
	aborted   atomic.Bool
}

func newConn(s *socket, h block.Handler, g block.Geometry, ses session, peer holder.Holder, log *zap.Logger) *conn {
	c := &conn{handler: h, geometry: g, session: ses, sock: s, peer: peer, log: log, stuck: make(chan struct{}, 1)}
	c.pool = newPool(c)
	c.flushOut = c.flush
	c.holdTimer = time.AfterFunc(time.Hour, c.flush)
	c.holdTimer.Stop()
	c.in = reader{recv: s.recv, before: c.flushOut, buf: make([]byte, readBufferBytes)}
	return c
}

// serve handles requests until the client leaves, and returns when everything
// it submitted is done and answered. nil means the client said goodbye.
func (c *conn) serve() error {
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.writer()
	}()
	err := c.requests()
	if c.onLeft != nil {
		c.onLeft()
	}
	c.flush()
	if !ended(err) {
		// Nobody reads what is still to be sent: do not wait for it. (After
		// an end between two requests the client may still be reading.)
		err = errors.Join(err, c.sock.shutdown())
	}
	c.pool.drain()
	c.holdTimer.Stop()
	close(c.stuck)
	<-written
	return err
}

// requests reads and starts requests.
func (c *conn) requests() error {
	for {
		head, err := c.in.next(requestHeadBytes)
		if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		q, err := parseRequest(head)
		if err != nil {
			return err
		}
		if q.kind == cmdDisconnect {
			return nil
		}
		if err := c.start(q); err != nil {
			return err
		}
	}
}

// start judges a request and submits it. An error ends the connection.
func (c *conn) start(q request) error {
	if no := refuse(q, c.geometry); no != 0 {
		return c.reject(q, nbdErrno(no))
	}
	op, flags := translate(q)
	unit := int64(block.MaxTransferBytes)
	if op == block.Discard || op == block.WriteZeroes {
		unit = rangeBytesMax
	}
	left, offset := int64(q.length), int64(q.offset)
	if op == block.Flush {
		left, offset = 0, 0
	}
	count := max(1, int((left+unit-1)/unit))
	cmd := c.pool.take(c.flushOut)
	cmd.begin(q, op, count)
	for i := range count {
		p := cmd.piece(i)
		n := min(left, unit)
		p.req.Op, p.req.Flags, p.req.Offset, p.req.Length = op, flags, offset, n
		if err := c.supply(p); err != nil {
			c.giveUp(cmd, p, count-i)
			return err
		}
		c.submit(p)
		left, offset = left-n, offset+n
	}
	return nil
}

// supply gives a read or write its memory, and a write its data.
func (c *conn) supply(p *piece) error {
	if c.aborted.Load() {
		return block.ErrClosed
	}
	if p.req.Op != block.Read && p.req.Op != block.Write {
		return nil
	}
	n := int(p.req.Length)
	c.pool.reserve(n, c.flushOut)
	p.buf = block.GetBuffer(n)
	p.req.Data = p.buf.Bytes(n)
	if p.req.Op == block.Write {
		if err := c.in.read(p.req.Data); err != nil {
			return fmt.Errorf("read the data of a write: %w", err)
		}
	}
	return nil
}

// submit hands a piece over. Replies that become due inside, on this
// goroutine, wait for the rest of what the client has sent already.
func (c *conn) submit(p *piece) {
	hold := c.in.buffered() >= requestHeadBytes
	if hold {
		p.hold.Store(true)
	}
	c.handler.Submit(&p.req)
	if hold {
		p.hold.Store(false)
	}
}

// giveUp accounts for the pieces that will never be submitted.
func (c *conn) giveUp(cmd *command, p *piece, missing int) {
	cmd.fail(nbdErrno(syscall.EIO))
	if p.buf != nil {
		p.release()
	}
	if cmd.owed.Add(int32(-missing)) == 0 {
		c.answer(cmd, nil)
	}
}

// reject answers a refused request, after its data.
func (c *conn) reject(q request, number uint32) error {
	if q.kind == cmdWrite {
		if err := c.in.skip(int64(q.length)); err != nil {
			return fmt.Errorf("skip the data of a refused write: %w", err)
		}
	}
	cmd := c.pool.take(c.flushOut)
	op := block.Op(0) // answered without data
	if q.kind == cmdRead {
		op = block.Read
	}
	cmd.begin(q, op, 0)
	cmd.fail(number)
	c.answer(cmd, nil)
	return nil
}

// abort ends the connection from outside; nothing new is submitted. It does
// not wait.
func (c *conn) abort() error {
	c.aborted.Store(true)
	return c.sock.shutdown()
}

// ended reports whether an error of serve is an ordinary end.
func ended(err error) bool { return err == nil || errors.Is(err, io.EOF) }
