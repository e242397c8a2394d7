// Package uring is a small io_uring: reads, writes and fdatasyncs of one file
// descriptor, submitted from any goroutine and answered on one.
//
// Nobody waits in the kernel for a completion: the ring's descriptor is in Go's
// network poller, edge-triggered, and the goroutine woken by it takes every
// completion out of shared memory without a system call.
package uring

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxEntries bounds the requests in flight that New can be asked for.
const MaxEntries = 4096

// ErrClosed is what Close returns when the ring was closed before.
var ErrClosed = errors.New("the ring is closed")

// Op is what a submission asks for.
type Op uint8

// The operations.
const (
	Read Op = iota + 1
	Write
	Datasync // covers every write that completed before it was submitted
)

var opcodes = [...]uint8{Read: opRead, Write: opWrite, Datasync: opFsync}

// Request is one submission. Owner comes back with the answer and stays
// reachable until then; it must keep Data reachable, which the kernel uses
// meanwhile.
type Request struct {
	Op     Op
	Flags  uint32 // RWF_ flags of a read or a write
	Data   []byte // read into or written from; not empty, unless Op is Datasync
	Offset int64
	Owner  any
}

// Ring is an open io_uring on a file descriptor. It is safe for concurrent use.
type Ring struct {
	fd     int // the file's
	ringFd int
	ring   *os.File // holds ringFd, in the poller
	answer func(owner any, res int32)

	rings, entries []byte // mapped

	sqHead, sqTail *atomic.Uint32
	sqes           []sqe
	cqHead, cqTail *atomic.Uint32
	cqes           []cqe

	served chan struct{}
	mu     struct {
		sync.Mutex
		idle     sync.Cond // inFlight is 0
		owners   []any     // by slot
		free     []uint32  // slots
		inFlight int       // submitted and not yet answered
		pending  uint32    // published, not yet asked of the kernel
		entering bool      // somebody is asking the kernel, and will for what is pending
		closed   bool
	}
}

// New makes a ring for up to entries (a power of two, at most MaxEntries)
// requests at once on fd, which must stay open until Close has returned. answer
// gets the result of each request, a byte count or a negative errno, on the
// ring's goroutine; when the kernel refuses the submission itself it gets
// -ECANCELED, which may be within Submit.
//
// The error wraps that of the system call: ENOSYS, EPERM and ENOMEM are those of
// a kernel without io_uring, or one that does not permit it.
func New(fd, entries int, answer func(owner any, res int32)) (*Ring, error) {
	if entries < 1 || entries > MaxEntries || entries&(entries-1) != 0 {
		return nil, fmt.Errorf("io_uring with %d entries, want a power of two up to %d", entries, MaxEntries)
	}
	r := &Ring{fd: fd, answer: answer, served: make(chan struct{})}
	var p params
	var err error
	if r.ringFd, err = setup(uint32(entries), &p); err != nil {
		return nil, err
	}
	err = errors.Join(probe(r.ringFd), unix.SetNonblock(r.ringFd, true))
	if err == nil {
		err = r.mapRings(&p)
	}
	if err != nil {
		return nil, errors.Join(err, r.unmap(), unix.Close(r.ringFd))
	}
	r.ring = os.NewFile(uintptr(r.ringFd), "io_uring")
	poll, err := r.ring.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, r.unmap(), r.ring.Close())
	}
	r.mu.idle.L = &r.mu
	r.mu.owners = make([]any, entries)
	for i := range entries {
		r.mu.free = append(r.mu.free, uint32(i))
	}
	go r.serve(poll.Read)
	return r, nil
}

func (r *Ring) mapRings(p *params) (err error) {
	if p.features&featSingleMmap == 0 || p.features&featNoDrop == 0 {
		return fmt.Errorf("io_uring features %#x: %w", p.features, unix.ENOSYS)
	}
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(cqe{})))
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.rings, err = unix.Mmap(r.ringFd, offsetRings, int(size), prot, flags); err != nil {
		return fmt.Errorf("map io_uring: %w", err)
	}
	if r.entries, err = unix.Mmap(r.ringFd, offsetEntries, int(p.sqEntries)*sqeBytes, prot, flags); err != nil {
		return fmt.Errorf("map io_uring's submissions: %w", err)
	}
	word := func(off uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&r.rings[off])) }
	r.sqHead, r.sqTail = word(p.sq.head), word(p.sq.tail)
	r.cqHead, r.cqTail = word(p.cq.head), word(p.cq.tail)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.entries[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.rings[p.cq.cqes])), p.cqEntries)
	for i := range p.sqEntries { // entry i of the queue is always submission i
		word(p.sq.array + 4*i).Store(i)
	}
	return nil
}

func (r *Ring) unmap() (err error) {
	for _, m := range [][]byte{r.rings, r.entries} {
		if m != nil {
			err = errors.Join(err, unix.Munmap(m))
		}
	}
	return err
}

// Submit hands a request to the kernel. It reports false, having done nothing,
// when as many as the ring has entries are in flight or the ring is closed. It
// does not wait for the request.
func (r *Ring) Submit(q Request) bool {
	r.mu.Lock()
	if r.mu.closed || len(r.mu.free) == 0 {
		r.mu.Unlock()
		return false
	}
	last := len(r.mu.free) - 1
	slot := r.mu.free[last]
	r.mu.free = r.mu.free[:last]
	r.mu.owners[slot] = q.Owner
	r.mu.inFlight++
	r.publish(&q, slot)
	r.mu.pending++
	if r.mu.entering {
		r.mu.Unlock() // whoever is asking the kernel comes back for this one
		return true
	}
	r.mu.entering = true
	for r.mu.pending > 0 {
		r.enter()
	}
	r.mu.entering = false
	r.mu.Unlock()
	return true
}

// publish needs the lock. There is room: no more are in flight than there are
// entries.
func (r *Ring) publish(q *Request, slot uint32) {
	tail := r.sqTail.Load()
	e := &r.sqes[tail&uint32(len(r.sqes)-1)]
	*e = sqe{opcode: opcodes[q.Op], fd: int32(r.fd), offset: uint64(q.Offset), length: uint32(len(q.Data)), opFlags: q.Flags, user: uint64(slot)}
	if q.Op == Datasync {
		e.offset, e.length, e.opFlags = 0, 0, fsyncDatasync
	} else {
		e.addr = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(q.Data))))
	}
	r.sqTail.Store(tail + 1)
}

// enter asks the kernel for what is pending. It releases the lock meanwhile.
func (r *Ring) enter() {
	n := r.mu.pending
	r.mu.pending = 0
	r.mu.Unlock()
	took, errno := enter(r.ringFd, n)
	r.mu.Lock()
	r.mu.pending += n - took
	if errno != 0 && errno != unix.EINTR || errno == 0 && took == 0 {
		r.takeBack()
	}
}

// takeBack answers what the kernel would not take. It needs the lock, and
// releases it while it answers. Only enter moves the head, so nobody does now.
func (r *Ring) takeBack() {
	head, tail := r.sqHead.Load(), r.sqTail.Load()
	slots := make([]uint32, 0, tail-head)
	for ; head != tail; tail-- {
		slots = append(slots, uint32(r.sqes[(tail-1)&uint32(len(r.sqes)-1)].user))
	}
	r.sqTail.Store(tail)
	r.mu.pending = 0
	for _, slot := range slots {
		owner := r.release(slot)
		r.mu.Unlock()
		r.answer(owner, -int32(unix.ECANCELED))
		r.mu.Lock()
		r.answered(1)
	}
}

// release needs the lock.
func (r *Ring) release(slot uint32) any {
	owner := r.mu.owners[slot]
	r.mu.owners[slot] = nil
	r.mu.free = append(r.mu.free, slot)
	return owner
}

// answered needs the lock.
func (r *Ring) answered(n int) {
	if r.mu.inFlight -= n; r.mu.inFlight == 0 {
		r.mu.idle.Broadcast()
	}
}

// serve answers until the ring's descriptor is closed.
func (r *Ring) serve(wait func(func(uintptr) bool) error) {
	defer close(r.served)
	// The poller calls back whenever there may be completions, until it gets true
	// or the descriptor is closed, which is its only error.
	for wait(func(uintptr) bool { r.reap(); return false }) == nil {
	}
}

// completion is one answer on its way.
type completion struct {
	owner any
	res   int32
}

// reap answers everything that is complete.
func (r *Ring) reap() {
	var batch [32]completion
	for {
		n := r.collect(batch[:])
		if n == 0 {
			return
		}
		for i := range batch[:n] {
			r.answer(batch[i].owner, batch[i].res)
			batch[i].owner = nil
		}
		r.mu.Lock()
		r.answered(n)
		r.mu.Unlock()
	}
}

func (r *Ring) collect(into []completion) int {
	head, n := r.cqHead.Load(), 0
	ready := r.cqTail.Load() - head
	if ready == 0 {
		return 0
	}
	r.mu.Lock()
	for n < len(into) && uint32(n) < ready {
		c := &r.cqes[(head+uint32(n))&uint32(len(r.cqes)-1)]
		into[n] = completion{r.release(uint32(c.user)), c.res}
		n++
	}
	r.mu.Unlock()
	r.cqHead.Store(head + uint32(n))
	return n
}

// Close refuses further requests, waits until those in flight are answered and
// releases the ring; the file stays open. An answer that calls it would wait for
// itself.
func (r *Ring) Close() error {
	r.mu.Lock()
	if r.mu.closed {
		r.mu.Unlock()
		return ErrClosed
	}
	r.mu.closed = true
	for r.mu.inFlight > 0 {
		r.mu.idle.Wait()
	}
	r.mu.Unlock()
	// A request is answered before the kernel has let go of its file, but both
	// happen under a lock that this call takes too (unless the kernel had to use a
	// thread of its own).
	err := errors.Join(probe(r.ringFd), r.ring.Close())
	<-r.served
	if err := errors.Join(err, r.unmap()); err != nil {
		return fmt.Errorf("close io_uring: %w", err)
	}
	return nil
}
