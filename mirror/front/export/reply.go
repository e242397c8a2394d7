package export

import (
	"sync"
	"unsafe"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
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
	bytes  int
	iovecs [iovecsMax]unix.Iovec
	used   int // iovecs filled
	sent   int // iovecs gone
	msg    unix.Msghdr
}

// answer puts a settled command on the outbox and sees that it leaves. p is
// the piece that was last. It runs inside the Handler's Done and must not
// block: the socket is written without waiting, and for a bounded time.
func (c *conn) answer(cmd *command, p *piece) {
	o := &c.out
	o.mu.Lock()
	empty := o.mu.head == nil
	if empty {
		o.mu.head = cmd
	} else {
		o.mu.tail.next = cmd
	}
	o.mu.tail = cmd
	// hold is read with the lock held: a reader that has cleared it flushes
	// the outbox afterwards, so either it or we send.
	hold := p != nil && p.hold.Load()
	if hold || o.mu.sending {
		o.mu.Unlock()
		if hold && empty {
			c.holdTimer.Reset(holdMax)
		}
		return
	}
	o.mu.sending = true
	o.mu.Unlock()
	c.send(false)
}

// flush sends what is on the outbox, unless somebody does already.
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
		if !wait && (round >= directRoundsMax || o.bytes > directBytesMax) || !c.push(wait) {
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
	o.used, o.sent, o.bytes = 0, 0, 0
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.head == nil {
		o.mu.sending = false
		return false
	}
	o.first = o.mu.head
	last := o.first
	for cmd := o.first; cmd != nil && o.used+1+cmd.count <= iovecsMax; cmd = cmd.next {
		c.gather(cmd)
		last = cmd
		if o.bytes > directBytesMax {
			break
		}
	}
	o.mu.head, last.next = last.next, nil
	return true
}

// gather adds one reply to the batch.
func (c *conn) gather(cmd *command) {
	n, data := cmd.encode(c.session.structured)
	c.out.add(cmd.head[:n])
	if !data {
		return
	}
	for i := range cmd.count {
		c.out.add(cmd.piece(i).req.Data)
	}
}

func (o *outbox) add(b []byte) {
	o.iovecs[o.used].Base = &b[0]
	o.iovecs[o.used].SetLen(len(b))
	o.used++
	o.bytes += len(b)
}

// push writes the batch; false means the socket is full.
func (c *conn) push(wait bool) bool {
	o := &c.out
	for !o.broken && o.sent < o.used {
		o.msg.Iov = &o.iovecs[o.sent]
		o.msg.SetIovlen(o.used - o.sent)
		n, err := c.sock.send(&o.msg)
		if err == unix.EAGAIN && wait {
			n, err = c.sock.waitSend(&o.msg)
		}
		if err == unix.EAGAIN {
			return false
		}
		if err != nil {
			c.breakOff(err)
			break
		}
		o.advance(n)
	}
	return true
}

// advance steps over n bytes that have gone.
func (o *outbox) advance(n int) {
	for n > 0 {
		v := &o.iovecs[o.sent]
		if n < int(v.Len) {
			v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), n))
			v.SetLen(int(v.Len) - n)
			return
		}
		n -= int(v.Len)
		o.sent++
	}
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
	clear(c.out.iovecs[:c.out.used]) // pooled memory must not be reachable from here
	for cmd != nil {
		next := cmd.next
		cmd.next = nil
		c.pool.put(cmd)
		cmd = next
	}
}
