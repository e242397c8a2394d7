package export

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"

	"hapair/mirror/block"
	"hapair/mirror/front/holder"
	"hapair/mirror/stream"
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

	pool    *pool
	in      reader
	out     outbox
	stuck   chan struct{}
	plug    block.Unplugger // handler, if it keeps plugged requests back
	idle    func()          // c.unplug, bound once
	onLeft  func()          // the client has gone; requests may be in flight
	aborted atomic.Bool
}

func newConn(s *socket, h block.Handler, g block.Geometry, ses session, peer holder.Holder, log *zap.Logger) (*conn, error) {
	v, err := stream.NewVector(s.conn, iovecsMax)
	if err != nil {
		return nil, fmt.Errorf("reach the client: %w", err)
	}
	c := &conn{handler: h, geometry: g, session: ses, sock: s, peer: peer, log: log, stuck: make(chan struct{}, 1)}
	c.pool = newPool(c)
	c.out.vector = v
	c.plug, _ = h.(block.Unplugger)
	c.idle = c.unplug
	c.in = reader{recv: s.recv, before: c.idle, buf: make([]byte, readBufferBytes)}
	return c, nil
}

// unplug lets go what the requests so far have led to. The reader calls it
// before it waits for anything.
func (c *conn) unplug() {
	if c.plug != nil {
		c.plug.Unplug()
	}
	c.flush()
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
	c.unplug()
	if !ended(err) {
		// Nobody reads what is still to be sent: do not wait for it. (After
		// an end between two requests the client may still be reading.)
		err = errors.Join(err, c.sock.shutdown())
	}
	c.pool.drain()
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
	cmd := c.pool.take(c.idle)
	cmd.begin(q, op, count)
	for i := range count {
		p := cmd.piece(i)
		n := min(left, unit)
		p.req.Op, p.req.Flags, p.req.Offset, p.req.Length, p.req.Plugged = op, flags, offset, n, c.plug != nil
		if err := c.supply(p); err != nil {
			c.giveUp(cmd, p, count-i)
			return err
		}
		c.handler.Submit(&p.req)
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
	c.pool.reserve(n, c.idle)
	p.buf = block.GetBuffer(n)
	p.req.Data = p.buf.Bytes(n)
	if p.req.Op == block.Write {
		if err := c.in.read(p.req.Data); err != nil {
			return fmt.Errorf("read the data of a write: %w", err)
		}
	}
	return nil
}

// giveUp accounts for the pieces that will never be submitted.
func (c *conn) giveUp(cmd *command, p *piece, missing int) {
	cmd.fail(nbdErrno(syscall.EIO))
	if p.buf != nil {
		p.release()
	}
	if cmd.owed.Add(int32(-missing)) == 0 {
		c.answer(cmd)
	}
}

// reject answers a refused request, after its data.
func (c *conn) reject(q request, number uint32) error {
	if q.kind == cmdWrite {
		if err := c.in.skip(int64(q.length)); err != nil {
			return fmt.Errorf("skip the data of a refused write: %w", err)
		}
	}
	cmd := c.pool.take(c.idle)
	op := block.Op(0) // answered without data
	if q.kind == cmdRead {
		op = block.Read
	}
	cmd.begin(q, op, 0)
	cmd.fail(number)
	c.answer(cmd)
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
