package meta

import (
	"errors"
	"fmt"
	"sync"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
)

// Store writes the metadata of one attached volume. Every write is durable when
// its done runs with nil. done runs exactly once, on any goroutine, possibly
// before the call returns, and must not block; an error is final and means the
// disk is to be detached. Writes of the same block happen in the order they were
// asked for. A Store is safe for concurrent use; it does not own the disk.
type Store struct {
	disk   block.Disk
	fixed  Super // as opened: what WriteSuper must not change
	layout Layout

	mu struct {
		sync.Mutex
		sequence uint64 // of the last superblock known to be durable
		supers   lane
		ring     lane
		bitmap   lane
	}
}

// lane is what is to be written to one place, in order.
type lane struct {
	busy  bool
	queue []*op
}

// op is one write.
type op struct {
	store  *Store
	lane   *lane
	super  *Super
	what   string
	buffer *block.Buffer
	err    error // of the encoding
	done   func(error)
	req    block.Request
}

func newStore(disk block.Disk, snap Snapshot) *Store {
	s := &Store{disk: disk, fixed: snap.Super, layout: snap.Layout}
	s.mu.sequence = snap.Super.Sequence
	return s
}

// Layout is where everything is.
func (s *Store) Layout() Layout { return s.layout }

// WriteSuper replaces the superblock. Sequence is the Store's business; device,
// placement, size and activity slots must be those that were opened.
//
// The two superblocks are written in turn. After a failed write the same one is
// written again, never the only good one.
func (s *Store) WriteSuper(super Super, done func(error)) {
	o := s.newOp(1, done)
	o.what, o.super = "superblock", &super
	f := &s.fixed
	if super.Device != f.Device || super.Placement != f.Placement || super.DataBytes != f.DataBytes || super.ActivitySlots != f.ActivitySlots {
		o.err = fmt.Errorf("device %s of %d bytes cannot become %s of %d bytes", f.Device, f.DataBytes, super.Device, super.DataBytes)
	}
	s.enqueue(&s.mu.supers, o)
}

// WriteActivity writes a transaction of the activity log.
func (s *Store) WriteActivity(tx actlog.Transaction, done func(error)) {
	o := s.newOp(1, done)
	o.what = "activity log transaction"
	o.req.Offset = s.layout.RingOffset + int64(tx.Number%uint64(s.layout.RingBlocks))*BlockBytes
	o.err = encodeActivity(o.buffer.Bytes(BlockBytes), s.fixed.Device, s.fixed.ActivitySlots, tx)
	s.enqueue(&s.mu.ring, o)
}

// WriteBitmapPages writes pages of the bitmap from first on, as many as there are in
// payload, dirty.PageBytes each; payload may be reused when the call returns. They
// are one write: as many as the disk takes of blocks at once, each of which is the
// old one or the new one, or torn, after a cut.
func (s *Store) WriteBitmapPages(first int, payload []byte, done func(error)) {
	count, most := len(payload)/dirty.PageBytes, s.disk.Geometry().MaxTransferBytes/BlockBytes
	err := s.checkPages(first, count, most, len(payload)%dirty.PageBytes)
	if err != nil {
		count = 0
	}
	o := s.newOp(max(count, 1), done)
	o.what, o.err = "bitmap pages", err
	o.req.Offset = s.layout.BitmapOffset + int64(first)*BlockBytes
	for i := range count {
		err := encodePage(o.req.Data[i*BlockBytes:][:BlockBytes], s.fixed.Device, first+i, payload[i*dirty.PageBytes:][:dirty.PageBytes])
		o.err = errors.Join(o.err, err)
	}
	s.enqueue(&s.mu.bitmap, o)
}

func (s *Store) checkPages(first, count, most, odd int) error {
	switch {
	case count == 0 || odd != 0:
		return fmt.Errorf("%d pages and %d bytes, want whole pages of %d bytes", count, odd, dirty.PageBytes)
	case count > most:
		return fmt.Errorf("%d pages at once, the disk takes %d", count, most)
	case first < 0 || first > s.layout.BitmapPages-count:
		return fmt.Errorf("%d pages from page %d on, of %d", count, first, s.layout.BitmapPages)
	}
	return nil
}

var ops sync.Pool

func (s *Store) newOp(blocks int, done func(error)) *op {
	o, ok := ops.Get().(*op)
	if !ok {
		o = &op{}
		o.req.Done = o.landed
	}
	o.store, o.done, o.super, o.err = s, done, nil, nil
	o.buffer = block.GetBuffer(blocks * BlockBytes)
	o.req.Op, o.req.Flags, o.req.Data = block.Write, block.FUA, o.buffer.Bytes(blocks*BlockBytes)
	o.req.Length = int64(len(o.req.Data))
	return o
}

// enqueue starts o, or leaves it to whoever is at work on its place.
func (s *Store) enqueue(l *lane, o *op) {
	s.mu.Lock()
	o.lane = l
	if l.busy {
		l.queue = append(l.queue, o)
		s.mu.Unlock()
		return
	}
	l.busy = true
	s.mu.Unlock()
	s.start(o)
}

// start submits an operation whose turn it is. A superblock is encoded only now:
// its place depends on how the one before ended.
func (s *Store) start(o *op) {
	if o.super != nil && o.err == nil {
		s.mu.Lock()
		o.super.Sequence = s.mu.sequence + 1
		s.mu.Unlock()
		o.req.Offset = s.layout.supers[o.super.Sequence%superBlocks]
		o.err = encodeSuper(o.buffer.Bytes(BlockBytes), o.super, &s.layout)
	}
	if o.err != nil {
		s.finish(o, o.err)
		return
	}
	s.disk.Submit(&o.req)
}

func (o *op) landed(_ *block.Request, err error) { o.store.finish(o, err) }

// finish answers an operation, then starts the next of its lane.
func (s *Store) finish(o *op, err error) {
	if err != nil {
		err = fmt.Errorf("write %s of %s/%d at byte %d: %w", o.what, s.fixed.Resource, s.fixed.Volume, o.req.Offset, err)
	} else if o.super != nil {
		s.mu.Lock()
		s.mu.sequence = o.super.Sequence
		s.mu.Unlock()
	}
	l, done := o.lane, o.done
	o.req.PutBuffer(o.buffer)
	o.buffer, o.req.Data, o.done, o.super, o.lane, o.store = nil, nil, nil, nil, nil, nil
	ops.Put(o)
	done(err)

	s.mu.Lock()
	var next *op
	if len(l.queue) > 0 {
		next = l.queue[0]
		l.queue = l.queue[1:]
	} else {
		l.busy = false
	}
	s.mu.Unlock()
	if next != nil {
		s.start(next)
	}
}
