package mirror

import (
	"sync/atomic"

	"hapair/mirror/block"
)

// pieceBytes is the longest discard or write-zeroes that goes through the
// engine as one: long ones would hold their range, and their extents of the
// activity log, for as long as the slower disk takes.
const pieceBytes = 16 << 20

// pieces is a long discard or write-zeroes on its way in parts. The parts do
// not overlap, so they may go side by side.
type pieces struct {
	whole  *block.Request
	left   atomic.Int32
	failed atomic.Pointer[error]
	parts  []block.Request
}

// long reports whether a request has to be split.
func long(r *block.Request) bool {
	return (r.Op == block.Discard || r.Op == block.WriteZeroes) && r.Length > pieceBytes
}

// split hands a long request to submit in parts, and answers it when the last
// has been answered, with the first error met.
func split(r *block.Request, submit func(*block.Request)) {
	n := int((r.Length + pieceBytes - 1) / pieceBytes)
	p := &pieces{whole: r, parts: make([]block.Request, n)}
	p.left.Store(int32(n))
	for i := range p.parts {
		part := &p.parts[i]
		part.Op, part.Flags, part.Done, part.By = r.Op, r.Flags, p.done, r.By
		part.Offset = r.Offset + int64(i)*pieceBytes
		part.Length = min(pieceBytes, r.End()-part.Offset)
		submit(part)
	}
}

func (p *pieces) done(_ *block.Request, err error) {
	if err != nil {
		p.failed.CompareAndSwap(nil, &err)
	}
	if p.left.Add(-1) > 0 {
		return
	}
	if failed := p.failed.Load(); failed != nil {
		err = *failed
	}
	p.whole.Done(p.whole, err)
}
