package export

import (
	"errors"
	"sync"

	"go.uber.org/zap"

	"hapair/mirror/stream"
)

// outbox holds the commands whose replies are due. At any time at most one
// goroutine, the sender, writes to the socket; it is the one that found
// nobody else sending, so that a lone reply costs no hand-off, and replies
// that become due meanwhile leave together.
type outbox struct {
	mu struct {
		sync.Mutex
		head, tail *command
		sending    bool
	}

	// The rest belongs to the sender.
	broken bool // the client cannot be reached any more
	first  *command
	vector *stream.Vector
}

// answer puts a settled command on the outbox; flush sends it. It runs inside
// the Handler's Done.
func (c *conn) answer(cmd *command) {
	o := &c.out
	o.mu.Lock()
	if o.mu.head == nil {
		o.mu.head = cmd
	} else {
		o.mu.tail.next = cmd
	}
	o.mu.tail = cmd
	o.mu.Unlock()
}

// Answered makes a connection the submitter of its requests: a series of
// replies is due.
func (c *conn) Answered() { c.flush() }

// flush sends what is on the outbox, unless somebody does already. It must not
// block: the socket is written without waiting, and for a bounded time.
func (c *conn) flush() {
	o := &c.out
	o.mu.Lock()
	if o.mu.sending || o.mu.head == nil {
		o.mu.Unlock()
		return
	}
	o.mu.sending = true
	o.mu.Unlock()
	c.send(false)
}

// send empties the outbox. The caller is the sender. Without wait, what the
// socket does not take at once is left to the writer goroutine, which is the
// sender from then on.
func (c *conn) send(wait bool) {
	o := &c.out
	for round := 0; ; round++ {
		if o.first == nil && !c.nextBatch() {
			return
		}
		if !wait && (round >= directRoundsMax || o.vector.Bytes() > directBytesMax) || !c.push(wait) {
			c.stuck <- struct{}{} // has room: there is one sender
			return
		}
		c.retire()
	}
}

// writer is a goroutine: it is woken when a sender meets a full socket.
func (c *conn) writer() {
	for range c.stuck {
		c.send(true)
	}
}

// nextBatch takes the replies that fit into one system call. With none left
// the caller is the sender no more.
func (c *conn) nextBatch() bool {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.head == nil {
		o.mu.sending = false
		return false
	}
	o.first = o.mu.head
	last := o.first
	for cmd := o.first; cmd != nil && o.vector.Room() > cmd.count; cmd = cmd.next {
		c.gather(cmd)
		last = cmd
		if o.vector.Bytes() > directBytesMax {
			break
		}
	}
	o.mu.head, last.next = last.next, nil
	return true
}

// gather adds one reply to the batch.
func (c *conn) gather(cmd *command) {
	n, data := cmd.encode(c.session.structured)
	c.out.vector.Add(cmd.head[:n])
	if !data {
		return
	}
	for i := range cmd.count {
		c.out.vector.Add(cmd.piece(i).req.Data)
	}
}

// push writes the batch; false means the socket is full.
func (c *conn) push(wait bool) bool {
	if c.out.broken {
		return true
	}
	err := c.out.vector.Push(wait)
	if errors.Is(err, stream.ErrFull) {
		return false
	}
	if err != nil {
		c.breakOff(err)
	}
	return true
}

// breakOff gives the client up; the reader sees the end of the stream.
func (c *conn) breakOff(err error) {
	c.out.broken = true
	c.log.Info("client is gone", zap.Error(err))
	if err := c.sock.shutdown(); err != nil {
		c.log.Warn("cannot end a connection", zap.Error(err))
	}
}

// retire frees the commands of the batch.
func (c *conn) retire() {
	cmd := c.out.first
	c.out.first = nil
	c.out.vector.Reset()
	for cmd != nil {
		next := cmd.next
		cmd.next = nil
		c.pool.put(cmd)
		cmd = next
	}
}
