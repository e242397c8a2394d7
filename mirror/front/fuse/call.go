package fuse

import (
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"hapair/mirror/block"
	"hapair/mirror/front/errno"
)

// call is a request of the kernel while it is in flight: on the free list or
// at the Handler.
type call struct {
	server *server
	unique uint64
	req    block.Request // the only piece, or the first
	buf    *block.Buffer
	owed   atomic.Int32 // pieces not done
	failed atomic.Int32 // the first error number
	out    reply
	next   *call
}

// reply is an answer's head and the vector that points to it and to the data.
type reply struct {
	head   [replyHeadBytes + 8]byte
	iovecs [2]unix.Iovec
}

func newCall(s *server) *call {
	c := &call{server: s}
	c.req.Done = c.done
	return c
}

// begin readies a call for so many pieces.
func (c *call) begin(unique uint64, pieces int) {
	c.unique = unique
	c.failed.Store(0)
	c.owed.Store(int32(pieces))
}

// done is what the Handler calls, once for each piece. A write to /dev/fuse
// copies and wakes; it does not wait.
func (c *call) done(r *block.Request, err error) {
	if err != nil {
		c.failed.CompareAndSwap(0, int32(errno.Of(r.Op, err)))
	}
	if c.owed.Add(-1) == 0 {
		c.answer()
	}
}

// answer tells the kernel and frees the call.
func (c *call) answer() {
	s, number := c.server, syscall.Errno(c.failed.Load())
	var extra int
	var data []byte
	if number == 0 {
		switch c.req.Op {
		case block.Read:
			data = c.req.Data
		case block.Write:
			native.PutUint32(c.out.head[replyHeadBytes:], uint32(c.req.Length))
			native.PutUint32(c.out.head[replyHeadBytes+4:], 0)
			extra = 8
		default: // the head is the whole answer
		}
	}
	s.send(&c.out, c.unique, number, extra, data)
	s.calls.put(c)
}

// send writes one answer: head, extra bytes after it, data.
func (s *server) send(out *reply, unique uint64, number syscall.Errno, extra int, data []byte) {
	native.PutUint32(out.head[:], uint32(replyHeadBytes+extra+len(data)))
	native.PutUint32(out.head[4:], uint32(-int32(number)))
	native.PutUint64(out.head[8:], unique)
	out.iovecs[0].Base = &out.head[0]
	out.iovecs[0].SetLen(replyHeadBytes + extra)
	count := 1
	if len(data) > 0 {
		out.iovecs[1].Base = &data[0]
		out.iovecs[1].SetLen(len(data))
		count = 2
	}
	for {
		_, _, e := unix.Syscall(unix.SYS_WRITEV, uintptr(s.fd), uintptr(unsafe.Pointer(&out.iovecs[0])), uintptr(count))
		if e == unix.EINTR {
			continue
		}
		// ENOENT: the kernel gave the request up; ENODEV: the whole
		// connection. Nobody waits for this answer then.
		if e != 0 && e != unix.ENOENT && e != unix.ENODEV && e != unix.ECONNABORTED {
			s.log.Error("cannot answer the kernel", zap.Uint64("request", unique), zap.Error(e))
		}
		break
	}
	out.iovecs[1].Base = nil
}

// calls bounds what is in flight.
type calls struct {
	mu struct {
		sync.Mutex
		free     *call
		inFlight int
		bytes    int
	}
	wake *sync.Cond
}

func newCalls(s *server) *calls {
	p := &calls{}
	p.wake = sync.NewCond(&p.mu)
	for range callsMax {
		c := newCall(s)
		c.next, p.mu.free = p.mu.free, c
	}
	return p
}

// take waits for a free call and for room for n bytes of data; idle runs once
// before it must wait.
func (p *calls) take(n int, idle func()) *call {
	p.mu.Lock()
	defer p.mu.Unlock()
	full := func() bool { return p.mu.free == nil || p.mu.bytes+n > payloadBytesMax }
	if full() {
		p.mu.Unlock()
		idle()
		p.mu.Lock()
	}
	for full() {
		p.wake.Wait()
	}
	c := p.mu.free
	p.mu.free, c.next = c.next, nil
	p.mu.inFlight++
	p.mu.bytes += n
	return c
}

// put frees a call and its data.
func (p *calls) put(c *call) {
	n := len(c.req.Data)
	c.req.Data = nil
	if c.buf != nil {
		c.req.PutBuffer(c.buf)
		c.buf = nil
	}
	p.mu.Lock()
	c.next, p.mu.free = p.mu.free, c
	p.mu.inFlight--
	p.mu.bytes -= n
	p.mu.Unlock()
	p.wake.Broadcast()
}

// drain waits until nothing is in flight.
func (p *calls) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.mu.inFlight > 0 {
		p.wake.Wait()
	}
}
