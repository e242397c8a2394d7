// Package aio is the kernel's asynchronous I/O on one descriptor (io_setup(2),
// io_submit(2), io_getevents(2)): many reads and writes are started in one
// system call, and one wake-up brings many ends.
//
// Ends are announced through an eventfd, which the runtime's poller watches
// like a socket: no thread waits in the kernel for a disk. The interface is
// older and narrower than io_uring, is there in every kernel and allowed in
// most containers, and ends requests from the interrupt, on no thread of ours.
package aio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's ABI, include/uapi/linux/aio_abi.h, little-endian machines.
const (
	cmdPread  = 0
	cmdPwrite = 1
	flagResFD = 1
)

// iocb is struct iocb.
type iocb struct {
	data   uint64
	key    uint32
	rw     uint32
	opcode uint16
	_      int16 // priority
	fd     uint32
	buf    uint64
	nbytes uint64
	offset int64
	_      uint64
	flags  uint32
	resfd  uint32
}

// event is struct io_event.
type event struct {
	data, obj uint64
	res, res2 int64
}

var _ [64 - unsafe.Sizeof(iocb{})]struct{}
var _ [unsafe.Sizeof(iocb{}) - 64]struct{}

// Op is one read or write on its way.
type Op struct {
	Write  bool
	RWF    uint32 // RWF_... of preadv2(2); without RWF_NOWAIT Start may wait, and New has to be told
	Offset int64
	Data   []byte // memory of the heap, aligned as the descriptor wants it
	Tag    any    // the caller's

	// N and Err are the outcome: how many bytes, or why none.
	N   int
	Err error
}

// Queue starts operations on one descriptor and reports their ends.
type Queue struct {
	fd     int
	waits  bool // io_submit may put its thread to sleep
	ctx    uintptr
	event  *os.File
	raw    syscall.RawConn // event's
	ended  func([]Op)      // on the reaper
	reaper sync.WaitGroup

	mu struct {
		sync.Mutex
		idle       sync.Cond // nothing is in flight
		waiting    []Op      // not with the kernel yet
		slots      []slot
		free       []uint32
		submitting bool // somebody is handing waiting ones to the kernel
		stuck      bool // the kernel took none for lack of room; the next end tries again
		closed     bool
	}

	// the submitter's own
	taken []uint32
	cbs   []*iocb

	// the reaper's own
	events []event
	ops    []Op
}

// slot is what the kernel has of one operation.
type slot struct {
	cb iocb
	op Op
}

// batch is how many operations are started or ended by one system call.
const batch = 128

// New makes a queue for depth operations in flight; more wait in it. waits says that
// the kernel may have Start wait, also with RWF_NOWAIT: then it tells the scheduler, or
// the whole process would stand still with it at the next garbage collection. ended gets
// the operations that have ended, in series, on a goroutine of the Queue; it must not
// block, may Add and Start, and must not keep the slice.
func New(fd, depth int, waits bool, ended func([]Op)) (*Queue, error) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, fmt.Errorf("asynchronous I/O on a big-endian machine: %w", unix.ENOSYS)
	}
	q := &Queue{fd: fd, waits: waits, ended: ended, events: make([]event, batch), ops: make([]Op, 0, batch)}
	q.mu.idle.L = &q.mu.Mutex
	q.mu.slots = make([]slot, depth)
	for i := range depth {
		q.mu.free = append(q.mu.free, uint32(depth-1-i))
	}
	if _, _, e := unix.Syscall(unix.SYS_IO_SETUP, uintptr(depth), uintptr(unsafe.Pointer(&q.ctx)), 0); e != 0 {
		return nil, fmt.Errorf("io_setup for %d operations: %w", depth, e)
	}
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), q.destroy())
	}
	q.event = os.NewFile(uintptr(fd), "eventfd of asynchronous I/O")
	if q.raw, err = q.event.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), q.event.Close(), q.destroy())
	}
	for i := range q.mu.slots {
		cb := &q.mu.slots[i].cb
		cb.data, cb.fd, cb.flags, cb.resfd = uint64(i), uint32(q.fd), flagResFD, uint32(fd)
	}
	q.reaper.Go(q.reap)
	return q, nil
}

// Add appends an operation; Start, by anybody, starts it. It reports false when
// the queue is closed.
func (q *Queue) Add(op Op) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.closed {
		return false
	}
	q.mu.waiting = append(q.mu.waiting, op)
	return true
}

// Start hands what was added to the kernel, as far as it has room. It does not
// wait for the operations. refused gets those the kernel would not take, with
// Err set; it is not called otherwise.
func (q *Queue) Start(refused func(Op)) {
	q.mu.Lock()
	if q.mu.submitting || q.mu.stuck || len(q.mu.waiting) == 0 {
		q.mu.Unlock()
		return
	}
	q.mu.submitting = true
	for q.take() {
		q.mu.Unlock()
		n, errno := q.submit()
		q.mu.Lock()
		if op, bad := q.settle(n, errno); bad {
			q.mu.Unlock()
			refused(op)
			q.mu.Lock()
		}
	}
	q.mu.submitting = false
	q.mu.idle.Broadcast()
	q.mu.Unlock()
}

// take moves operations into slots, up to one batch; the lock is held.
func (q *Queue) take() bool {
	n := min(len(q.mu.waiting), len(q.mu.free), batch)
	if n == 0 || q.mu.stuck {
		return false
	}
	q.taken, q.cbs = q.taken[:0], q.cbs[:0]
	for i := range n {
		at := q.mu.free[len(q.mu.free)-1]
		q.mu.free = q.mu.free[:len(q.mu.free)-1]
		s := &q.mu.slots[at]
		s.op = q.mu.waiting[i]
		s.cb.opcode = cmdPread
		if s.op.Write {
			s.cb.opcode = cmdPwrite
		}
		s.cb.key, s.cb.rw, s.cb.offset = 0, s.op.RWF, s.op.Offset
		s.cb.buf, s.cb.nbytes = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(s.op.Data)))), uint64(len(s.op.Data))
		q.taken, q.cbs = append(q.taken, at), append(q.cbs, &s.cb)
	}
	rest := copy(q.mu.waiting, q.mu.waiting[n:])
	clear(q.mu.waiting[rest:])
	q.mu.waiting = q.mu.waiting[:rest]
	return true
}

// submit is one system call for the whole batch. Like all of the data path's it
// does not tell the scheduler (see package stream), unless it may wait: with RWF_NOWAIT
// the kernel gives back, with EAGAIN, what it would have to wait for, but not every driver
// and no filesystem does.
func (q *Queue) submit() (int, unix.Errno) {
	for {
		n, e := q.ioSubmit()
		if e != unix.EINTR {
			return int(n), e
		}
	}
}

func (q *Queue) ioSubmit() (n uintptr, e unix.Errno) {
	if q.waits {
		n, _, e = unix.Syscall(unix.SYS_IO_SUBMIT, q.ctx, uintptr(len(q.cbs)), uintptr(unsafe.Pointer(&q.cbs[0])))
	} else {
		n, _, e = unix.RawSyscall(unix.SYS_IO_SUBMIT, q.ctx, uintptr(len(q.cbs)), uintptr(unsafe.Pointer(&q.cbs[0])))
	}
	return n, e
}

// settle deals with what the kernel did not take of the batch; the lock is held.
// An error is about the first of the batch; with none, those behind the n-th were not looked at.
func (q *Queue) settle(n int, errno unix.Errno) (Op, bool) {
	if errno != 0 {
		n = 0
	}
	left := q.taken[n:]
	if len(left) == 0 {
		return Op{}, false
	}
	var bad Op
	isBad := false
	inFlight := len(q.mu.slots) - len(q.mu.free) - len(left)
	switch {
	case errno == unix.EAGAIN && inFlight > 0:
		q.mu.stuck = true
	case errno != 0:
		bad, isBad = q.vacate(left[0]), true
		bad.Err = errno
		left = left[1:]
	}
	back := make([]Op, 0, len(left)+len(q.mu.waiting)) // rare
	for _, at := range left {
		back = append(back, q.vacate(at))
	}
	q.mu.waiting = append(back, q.mu.waiting...)
	return bad, isBad
}

// vacate frees a slot and returns its operation; the lock is held.
func (q *Queue) vacate(at uint32) Op {
	op := q.mu.slots[at].op
	q.mu.slots[at].op = Op{}
	q.mu.free = append(q.mu.free, at)
	return op
}

// reap is a goroutine: it is woken by the end of operations, and ends when the
// eventfd is closed.
func (q *Queue) reap() {
	// The runtime polls edge by edge, and every end is an edge: the counter of
	// the eventfd need not be read.
	err := q.raw.Read(func(uintptr) bool {
		for q.collect() == batch {
		}
		return false
	})
	q.mu.Lock()
	closed := q.mu.closed
	q.mu.Unlock()
	if !closed {
		panic(fmt.Sprintf("aio: the eventfd cannot be polled: %v", err)) // no end would ever be seen
	}
}

// collect reports the operations that have ended and returns how many.
func (q *Queue) collect() int {
	var now unix.Timespec
	// Nothing waits here: the scheduler need not be told (see package stream).
	n, _, e := unix.RawSyscall6(unix.SYS_IO_GETEVENTS, q.ctx, 0, batch, uintptr(unsafe.Pointer(&q.events[0])), uintptr(unsafe.Pointer(&now)), 0)
	if e != 0 || n == 0 {
		return 0 // seen before the eventfd told
	}
	q.ops = q.ops[:0]
	q.mu.Lock()
	for _, ev := range q.events[:n] {
		op := q.vacate(uint32(ev.data))
		if ev.res < 0 {
			op.Err = unix.Errno(-ev.res)
		} else {
			op.N = int(ev.res)
		}
		q.ops = append(q.ops, op)
	}
	q.mu.stuck = false
	q.mu.idle.Broadcast()
	q.mu.Unlock()
	q.ended(q.ops)
	clear(q.ops)
	return int(n)
}

// Close refuses further operations, waits for those in flight and for their
// ended, and gives the kernel's memory back. Operations that were added must
// have been started.
func (q *Queue) Close() error {
	q.mu.Lock()
	q.mu.closed = true
	for len(q.mu.free) < len(q.mu.slots) || len(q.mu.waiting) > 0 || q.mu.submitting {
		q.mu.idle.Wait()
	}
	q.mu.Unlock()
	err := q.event.Close()
	q.reaper.Wait()
	return errors.Join(err, q.destroy())
}

func (q *Queue) destroy() error {
	if _, _, e := unix.Syscall(unix.SYS_IO_DESTROY, q.ctx, 0, 0); e != 0 {
		return fmt.Errorf("io_destroy: %w", e)
	}
	return nil
}
