package fuse

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"hapair/mirror/block"
)

// server answers one FUSE connection.
//
// Goroutines: readersMax readers, woken by the kernel's requests, ended by the
// end of the connection.
type server struct {
	fd       int
	file     *os.File // fd, for the runtime's poller
	raw      syscall.RawConn
	handler  block.Handler
	plug     block.Unplugger // handler, if it keeps plugged requests back
	geometry atomic.Pointer[block.Geometry]
	log      *zap.Logger
	calls    *calls
	readers  sync.WaitGroup
	aborted  atomic.Bool
	opened   atomic.Bool // the one descriptor the loop device needs is given out
	ready    chan error  // the outcome of the greeting
}

// newServer takes the descriptor of a mounted connection over: a descriptor
// that is polled before it is mounted never wakes anybody.
func newServer(fd int, h block.Handler, g block.Geometry, log *zap.Logger) (*server, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("make /dev/fuse non-blocking: %w", err)
	}
	s := &server{fd: fd, handler: h, log: log, ready: make(chan error, 1)}
	s.geometry.Store(&g)
	s.file = os.NewFile(uintptr(fd), fuseDevice)
	raw, err := s.file.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("poll /dev/fuse: %w", err), s.file.Close())
	}
	s.raw = raw
	s.plug, _ = h.(block.Unplugger)
	s.calls = newCalls(s)
	return s, nil
}

// run starts the readers.
func (s *server) run() {
	for range readersMax {
		s.readers.Go(s.read)
	}
}

// unplug starts what the requests so far have led to. A reader calls it before
// it waits for anything.
func (s *server) unplug() {
	if s.plug != nil {
		s.plug.Unplug()
	}
}

// wait returns when the readers have ended and nothing is in flight.
func (s *server) wait() {
	s.readers.Wait()
	s.calls.drain()
}

// inbox is one reader's memory: the kernel puts headers into head, and the
// data of a write, aligned, into buf.
type inbox struct {
	head   [headBytes + ioHeadBytes]byte
	buf    *block.Buffer
	iovecs [2]unix.Iovec
	out    reply
	idle   func() // runs before the reader waits
	n      int
	failed syscall.Errno
}

// read is a reader: one request of the kernel after the other.
func (s *server) read() {
	in := &inbox{buf: block.GetBuffer(block.MaxTransferBytes), idle: s.unplug}
	defer func() { in.buf.Put() }()
	try := in.try
	for {
		n, err := s.receive(in, try)
		if err == unix.ENODEV || err == unix.ECONNABORTED {
			return // unmounted or aborted
		}
		if err != nil {
			s.log.Error("cannot read from /dev/fuse", zap.Error(err))
			return
		}
		m, err := parseMessage(in.head[:min(n, len(in.head))], n)
		if err != nil {
			s.log.Error("request of the kernel dropped", zap.Error(err))
			continue
		}
		s.dispatch(in, m, n)
	}
}

// receive waits for the next request. try is in.try, bound once.
func (s *server) receive(in *inbox, try func(uintptr) bool) (int, error) {
	data := in.buf.Bytes(block.MaxTransferBytes)
	in.iovecs[0].Base = &in.head[0]
	in.iovecs[0].SetLen(len(in.head))
	in.iovecs[1].Base = &data[0]
	in.iovecs[1].SetLen(len(data))
	if err := s.raw.Read(try); err != nil {
		return 0, fmt.Errorf("poll /dev/fuse: %w", err)
	}
	if in.failed != 0 {
		return 0, in.failed
	}
	return in.n, nil
}

// try reads without waiting, and so without telling the scheduler; false means
// nothing is there.
func (in *inbox) try(fd uintptr) bool {
	for {
		n, _, e := unix.RawSyscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&in.iovecs[0])), 2)
		switch e {
		case unix.EINTR, unix.ENOENT: // ENOENT: given up before we had it
			continue
		case unix.EAGAIN:
			in.idle()
			return false
		}
		in.n, in.failed = int(n), e
		return true
	}
}

// dispatch handles one request: reads and writes first.
func (s *server) dispatch(in *inbox, m message, n int) {
	switch m.op {
	case opRead, opWrite:
		s.transfer(in, m, n)
	case opFsync:
		s.flush(m)
	case opFallocate:
		s.hole(in, m)
	case opForget, opBatchForget:
		// These have no answer.
	default:
		data, number := s.housekeeping(m)
		s.send(&in.out, m.unique, number, 0, data)
	}
}

// housekeeping is everything but I/O.
func (s *server) housekeeping(m message) ([]byte, syscall.Errno) {
	switch m.op {
	case opInit:
		data, err := initReply(m)
		s.ready <- err
		if err != nil {
			return nil, syscall.EPROTO
		}
		return data, 0
	case opGetattr:
		return attrReply(*s.geometry.Load()), 0
	case opOpen:
		if s.opened.Swap(true) {
			return nil, syscall.EBUSY // the volume is reached through its device
		}
		return openReply(), 0
	case opRelease:
		s.opened.Store(false) // another loop device is tried, or the end
		return nil, 0
	case opDestroy:
		return nil, 0
	case opLookup:
		return nil, syscall.ENOENT
	case opSetattr:
		return nil, syscall.EPERM
	case opStatfs:
		return statfsReply(*s.geometry.Load()), 0
	}
	return nil, syscall.ENOSYS // the kernel does not ask again
}

// fail answers a request that is not handed to the Handler.
func (s *server) fail(in *inbox, m message, number syscall.Errno) {
	s.send(&in.out, m.unique, number, 0, nil)
}

// transfer starts a read or write.
func (s *server) transfer(in *inbox, m message, n int) {
	t, err := parseTransfer(m)
	if err == nil && m.op == opWrite && n != headBytes+ioHeadBytes+int(t.length) {
		err = fmt.Errorf("write of %d bytes comes with %d: %w", t.length, n-headBytes-ioHeadBytes, errProtocol)
	}
	if err != nil || t.length == 0 || t.length > block.MaxTransferBytes || t.offset > uint64(s.geometry.Load().SizeBytes) {
		s.log.Error("transfer refused", zap.Uint64("offset", t.offset), zap.Uint32("length", t.length), zap.Error(err))
		s.fail(in, m, syscall.EINVAL)
		return
	}
	length := int(t.length)
	c := s.calls.take(length, s.unplug)
	c.begin(m.unique, 1)
	if m.op == opWrite {
		c.req.Op = block.Write
		c.buf = in.takeData(length)
	} else {
		c.req.Op = block.Read
		c.buf = block.GetBuffer(length)
	}
	c.req.Data = c.buf.Bytes(length)
	c.req.Flags, c.req.Offset, c.req.Length, c.req.Plugged = 0, int64(t.offset), int64(length), s.plug != nil
	s.submit(c, &c.req)
}

// takeData gives the data of a write away: a copy of a short one, the whole
// buffer of a long one.
func (in *inbox) takeData(n int) *block.Buffer {
	if n <= copyBytesMax {
		b := block.GetBuffer(n)
		copy(b.Bytes(n), in.buf.Bytes(n))
		return b
	}
	b := in.buf
	in.buf = block.GetBuffer(block.MaxTransferBytes)
	return b
}

// submit checks a piece and hands it over.
func (s *server) submit(c *call, r *block.Request) {
	if s.aborted.Load() {
		c.done(r, block.ErrClosed)
		return
	}
	if err := block.Check(r, *s.geometry.Load()); err != nil {
		c.done(r, err)
		return
	}
	s.handler.Submit(r)
}

func (s *server) flush(m message) {
	c := s.calls.take(0, s.unplug)
	c.begin(m.unique, 1)
	c.req.Op, c.req.Flags, c.req.Offset, c.req.Length, c.req.Plugged = block.Flush, 0, 0, 0, false
	s.submit(c, &c.req)
}

// meaning says what a fallocate asks of the volume.
//
// A hole must read as zero, and not only because a file's does: the loop
// device turns both a discard and a write-zeroes that may unmap into the same
// PUNCH_HOLE, and who asked for zeroes (ext4 for its inode tables) relies on
// them. So a hole is a write-zeroes that may unmap, never a discard. Where it
// would free nothing it is refused: the kernel then stops sending discards (a
// mkfs need not zero the whole disk) and writes the zeroes it needs itself.
func meaning(mode uint32, discard bool) (block.Flags, error) {
	switch mode &^ fallocKeepSize {
	case fallocPunchHole:
		if discard {
			return 0, nil
		}
	case fallocZeroRange:
		return block.NoUnmap, nil
	}
	return 0, fmt.Errorf("fallocate mode %#x: %w", mode, block.ErrNotSupp)
}

// hole starts a fallocate, in as many pieces as it takes.
func (s *server) hole(in *inbox, m message) {
	h, err := parseHole(m)
	if err != nil {
		s.log.Error("fallocate refused", zap.Error(err))
		s.fail(in, m, syscall.EINVAL)
		return
	}
	flags, err := meaning(h.mode, s.geometry.Load().Discard)
	if err != nil {
		s.fail(in, m, syscall.EOPNOTSUPP)
		return
	}
	size := uint64(s.geometry.Load().SizeBytes)
	if h.length == 0 || h.length > rangeBytesMax*rangePiecesMax || h.offset > size || h.length > size-h.offset {
		s.fail(in, m, syscall.EINVAL)
		return
	}
	count := int((h.length + rangeBytesMax - 1) / rangeBytesMax)
	c := s.calls.take(0, s.unplug)
	c.begin(m.unique, count)
	c.req.Op = block.WriteZeroes // what answer looks at, whichever piece is last
	c.req.Plugged = false
	offset, left := int64(h.offset), int64(h.length)
	more := make([]block.Request, count-1)
	for i := range count {
		r := &c.req
		if i > 0 {
			r = &more[i-1]
			r.Done = c.done
		}
		r.Op, r.Flags, r.Offset, r.Length = block.WriteZeroes, flags, offset, min(left, rangeBytesMax)
		offset, left = offset+r.Length, left-r.Length
		s.submit(c, r)
	}
}

// errNotGreeted: the kernel did not say hello.
var errNotGreeted = errors.New("the kernel did not greet the FUSE connection")
