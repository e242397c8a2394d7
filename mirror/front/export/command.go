package export

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"hapair/mirror/block"
	"hapair/mirror/front/errno"
)

// command is one request of a client while it is in flight: on the free list,
// with its pieces at the Handler, or on the connection's outbox. It counts
// down the pieces it is owed.
type command struct {
	conn   *conn
	q      request
	op     block.Op
	owed   atomic.Int32
	failed atomic.Uint32 // the first error, as an NBD error number
	count  int           // pieces in use
	first  piece
	rest   []*piece // pieces 2.., kept for reuse
	head   [chunkHeadBytes + 8]byte
	next   *command
}

// piece is a part of a command that the Handler takes at once.
type piece struct {
	req block.Request
	cmd *command
	buf *block.Buffer // nil for what has no data
}

// newCommand binds what never changes.
func newCommand(c *conn) *command {
	cmd := &command{conn: c}
	cmd.first.bind(cmd)
	return cmd
}

func (p *piece) bind(cmd *command) {
	p.cmd = cmd
	p.req.Done, p.req.By = p.done, cmd.conn
}

// piece returns the i-th piece.
func (cmd *command) piece(i int) *piece {
	if i == 0 {
		return &cmd.first
	}
	for len(cmd.rest) < i {
		p := &piece{}
		p.bind(cmd)
		cmd.rest = append(cmd.rest, p)
	}
	return cmd.rest[i-1]
}

// begin sets a command up for a request of count pieces.
func (cmd *command) begin(q request, op block.Op, count int) {
	cmd.q, cmd.op, cmd.count = q, op, count
	cmd.failed.Store(0)
	cmd.owed.Store(int32(count))
}

// fail keeps the first error.
func (cmd *command) fail(number uint32) { cmd.failed.CompareAndSwap(0, number) }

// done is what the Handler calls.
func (p *piece) done(r *block.Request, err error) {
	cmd := p.cmd
	if err != nil {
		cmd.fail(nbdErrno(errno.Of(r.Op, err)))
	}
	if p.buf != nil && r.Op == block.Write {
		p.release()
	}
	if cmd.owed.Add(-1) == 0 {
		cmd.conn.answer(cmd)
	}
}

// release gives the piece's memory back.
func (p *piece) release() {
	n := len(p.req.Data)
	p.req.Data = nil
	p.req.PutBuffer(p.buf)
	p.buf = nil
	p.cmd.conn.pool.unreserve(n)
}

// encode writes the head of the reply and says how long it is, and whether the
// data of the pieces follow.
func (cmd *command) encode(structured bool) (n int, data bool) {
	number := cmd.failed.Load()
	b := cmd.head[:]
	if cmd.op != block.Read || !structured {
		binary.BigEndian.PutUint32(b, simpleMagic)
		binary.BigEndian.PutUint32(b[4:], number)
		binary.BigEndian.PutUint64(b[8:], cmd.q.cookie)
		return simpleHeadBytes, cmd.op == block.Read && number == 0
	}
	binary.BigEndian.PutUint32(b, structuredMagic)
	binary.BigEndian.PutUint16(b[4:], chunkDone)
	binary.BigEndian.PutUint64(b[8:], cmd.q.cookie)
	if number != 0 {
		binary.BigEndian.PutUint16(b[6:], chunkError)
		binary.BigEndian.PutUint32(b[16:], 6)
		binary.BigEndian.PutUint32(b[20:], number)
		binary.BigEndian.PutUint16(b[24:], 0) // no text
		return chunkHeadBytes + 6, false
	}
	binary.BigEndian.PutUint16(b[6:], chunkOffsetData)
	binary.BigEndian.PutUint32(b[16:], 8+cmd.q.length)
	binary.BigEndian.PutUint64(b[20:], cmd.q.offset)
	return chunkHeadBytes + 8, true
}

// pool bounds what one connection has in flight.
type pool struct {
	mu struct {
		sync.Mutex
		free     *command
		inFlight int // commands not on the free list
		bytes    int // payload held
	}
	wake *sync.Cond // any of the above went down
}

func newPool(c *conn) *pool {
	p := &pool{}
	p.wake = sync.NewCond(&p.mu)
	for range commandsMax {
		cmd := newCommand(c)
		cmd.next, p.mu.free = p.mu.free, cmd
	}
	return p
}

// take waits for a free command; idle runs once before it must wait.
func (p *pool) take(idle func()) *command {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waitFor(func() bool { return p.mu.free != nil }, idle)
	cmd := p.mu.free
	p.mu.free, cmd.next = cmd.next, nil
	p.mu.inFlight++
	return cmd
}

// reserve waits until n more bytes of payload may be held.
func (p *pool) reserve(n int, idle func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waitFor(func() bool { return p.mu.bytes+n <= payloadBytesMax }, idle)
	p.mu.bytes += n
}

// waitFor is called with the lock held.
func (p *pool) waitFor(ready func() bool, idle func()) {
	if ready() {
		return
	}
	p.mu.Unlock()
	idle()
	p.mu.Lock()
	for !ready() {
		p.wake.Wait()
	}
}

func (p *pool) unreserve(n int) {
	p.mu.Lock()
	p.mu.bytes -= n
	p.mu.Unlock()
	p.wake.Broadcast()
}

// put takes a command back after its reply is out.
func (p *pool) put(cmd *command) {
	for i := range cmd.count {
		if it := cmd.piece(i); it.buf != nil {
			it.release()
		}
	}
	p.mu.Lock()
	cmd.next, p.mu.free = p.mu.free, cmd
	p.mu.inFlight--
	p.mu.Unlock()
	p.wake.Broadcast()
}

// drain waits until nothing is in flight.
func (p *pool) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.mu.inFlight > 0 {
		p.wake.Wait()
	}
}
