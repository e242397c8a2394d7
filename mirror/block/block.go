// Package block holds the words of block I/O that every part of the mirror
// shares: requests, geometry, the upper door (Handler) and the lower door
// (Disk). It imports nothing of ours and does no I/O.
//
// The terms are those of the Linux block layer
// (Documentation/block/writeback_cache_control.rst): flush, FUA, discard,
// write zeroes.
package block

import (
	"errors"
	"fmt"
)

// SectorBytes is the smallest unit an Offset or a Length may have.
const SectorBytes = 512

// Op is what a request asks for.
type Op uint8

// The operations. The numeric values are private to one process; the wire has
// its own.
const (
	Read Op = iota + 1
	Write
	Flush       // everything completed before is on stable storage when it completes
	Discard     // contents are no longer needed; a later read may return anything
	WriteZeroes // must read back as zero
)

// String returns the block layer's word for the operation.
func (o Op) String() string {
	switch o {
	case Read:
		return "read"
	case Write:
		return "write"
	case Flush:
		return "flush"
	case Discard:
		return "discard"
	case WriteZeroes:
		return "write-zeroes"
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

// Changes reports whether the operation alters the contents of the device.
func (o Op) Changes() bool { return o == Write || o == Discard || o == WriteZeroes }

// Flags modify an operation.
type Flags uint8

const (
	// FUA (forced unit access): completion means the data is on stable storage.
	FUA Flags = 1 << iota
	// NoUnmap forbids deallocation for WriteZeroes.
	NoUnmap
)

// Request is one block I/O. Whoever submits it owns it and its Data until Done
// has run; the receiver must not touch either afterwards. Requests are meant
// to be pooled: bind Done once, reuse the struct.
type Request struct {
	Op     Op
	Flags  Flags
	Offset int64  // bytes from the start of the volume
	Length int64  // bytes; 0 for Flush
	Data   []byte // Length bytes for Read (filled in) and Write, nil otherwise

	// Plugged says that more requests follow: the receiver may keep this one
	// back until the submitter calls its Unplug, or submits one that is not
	// Plugged. A receiver that is no Unplugger starts it at once.
	Plugged bool

	// Done runs exactly once, on any goroutine, and must not block. err is nil
	// or one that Errno can translate. Receivers call it by Answer or Answers.
	Done func(r *Request, err error)
	// By, when set, is told after a Done, or after several in a row.
	By Submitter

	// Kept is set before Done by a receiver that answers for a disk which does
	// not: the memory that Data was stays in its hands, and may be written to at
	// any time. The submitter forgets it (see PutBuffer) and, to use the request
	// again, gives it other memory.
	Kept bool

	// Tag and Owner are the submitter's own; nobody else looks at them.
	Tag   uint64
	Owner any
}

// PutBuffer gives the memory of a request that has been answered back to its
// pool, or leaves it to a disk that has it yet.
func (r *Request) PutBuffer(b *Buffer) {
	if !r.Kept {
		b.Put()
	}
	r.Kept = false
}

// End is the first byte after the request.
func (r *Request) End() int64 { return r.Offset + r.Length }

// String names the request the way every log line does: WRITE(offset, length).
func (r *Request) String() string {
	return fmt.Sprintf("%s(%d, %d)", r.Op, r.Offset, r.Length)
}

// Geometry describes a device. All sizes are bytes.
type Geometry struct {
	SizeBytes          int64
	LogicalBlockBytes  int  // smallest addressable unit, a power of two in [512, 4096]
	PhysicalBlockBytes int  // smallest unit written atomically
	MaxTransferBytes   int  // largest Data of one request; longer ones are split by the front end
	VolatileCache      bool // a completed write may be lost by a power cut until a flush
	ReadOnly           bool // nothing may be changed; a front end says so
	Discard            bool // Discard frees something below; it is accepted either way
}

// MaxTransferBytes bounds the Data of one request, everywhere: a front end
// splits what is longer. It is also the largest payload on the wire.
const MaxTransferBytes = 1 << 20

// Handler is the upper door: what a front end hands its requests to. Submit
// blocks only for back-pressure; Done may run before Submit returns. A Handler
// may be an Unplugger.
type Handler interface {
	Submit(r *Request)
}

// Disk is the lower door: a backing device. Requests may complete in any
// order; the caller keeps overlapping ones apart. A completed Flush covers
// every request completed before the Flush was submitted. A Disk may be an
// Unplugger.
type Disk interface {
	Submit(r *Request)
	Geometry() Geometry
	// Close waits for requests in flight, then releases the device.
	Close() error
}

// Errors at the doors. Match them with errors.Is.
var (
	ErrIO         = errors.New("input/output error")
	ErrNoSpace    = errors.New("no space left on the backing device")
	ErrRange      = errors.New("request reaches past the end of the device")
	ErrAlignment  = errors.New("request is not aligned to the logical block")
	ErrTooLong    = errors.New("request is longer than the largest transfer")
	ErrNotPrimary = errors.New("this node is not Primary for the resource")
	ErrNoAnswer   = errors.New("the disk does not answer")
	ErrSuspended  = errors.New("I/O is suspended")
	ErrClosed     = errors.New("device is closed")
	ErrNotSupp    = errors.New("operation is not supported")
)

// Check judges a request against a geometry. nil means it may go ahead; an
// error wraps ErrRange, ErrAlignment, ErrTooLong or ErrNotSupp and names the
// request.
func Check(r *Request, g Geometry) error {
	if r.Op == Flush {
		return nil
	}
	switch {
	case r.Op < Read || r.Op > WriteZeroes:
		return fmt.Errorf("%s: %w", r, ErrNotSupp)
	case r.Offset < 0 || r.Length <= 0 || r.Offset > g.SizeBytes || r.Length > g.SizeBytes-r.Offset:
		return fmt.Errorf("%s on a device of %d bytes: %w", r, g.SizeBytes, ErrRange)
	case r.Offset%int64(g.LogicalBlockBytes) != 0 || r.Length%int64(g.LogicalBlockBytes) != 0:
		return fmt.Errorf("%s with logical blocks of %d bytes: %w", r, g.LogicalBlockBytes, ErrAlignment)
	case (r.Op == Read || r.Op == Write) && r.Length > int64(g.MaxTransferBytes):
		return fmt.Errorf("%s, limit %d bytes: %w", r, g.MaxTransferBytes, ErrTooLong)
	case (r.Op == Read || r.Op == Write) && int64(len(r.Data)) != r.Length:
		return fmt.Errorf("%s with a buffer of %d bytes: %w", r, len(r.Data), ErrRange)
	}
	return nil
}
