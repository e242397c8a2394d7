package meta

import (
	"fmt"
	"sync"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
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
		pages    map[int]*lane
	}
}

// lane is what is to be written to one place, in order.
type lane struct {
	busy  bool
	queue []*op
}

// op is one write of one block.
type op struct {
	store  *Store
	lane   *lane
	page   int // number of the bitmap page, or noPage
	super  *Super
	what   string
	buffer *block.Buffer
	err    error // of the encoding
	done   func(error)
	req    block.Request
}

const noPage = -1

func newStore(disk block.Disk, snap Snapshot) *Store {
	s := &Store{disk: disk, fixed: snap.Super, layout: snap.Layout}
	s.mu.sequence = snap.Super.Sequence
	s.mu.pages = map[int]*lane{}
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
	o := s.newOp(done)
	o.what, o.super = "superblock", &super
	f := &s.fixed
	if super.Device != f.Device || super.Placement != f.Placement || super.DataBytes != f.DataBytes || super.ActivitySlots != f.ActivitySlots {
		o.err = fmt.Errorf("device %s of %d bytes cannot become %s of %d bytes", f.Device, f.DataBytes, super.Device, super.DataBytes)
	}
	s.enqueue(&s.mu.supers, o)
}

// WriteActivity writes a transaction of the activity log.
func (s *Store) WriteActivity(tx actlog.Transaction, done func(error)) {
	o := s.newOp(done)
	o.what = "activity log transaction"
	o.req.Offset = s.layout.RingOffset + int64(tx.Number%uint64(s.layout.RingBlocks))*BlockBytes
	o.err = encodeActivity(o.buffer.Bytes(BlockBytes), s.fixed.Device, s.fixed.ActivitySlots, tx)
	s.enqueue(&s.mu.ring, o)
}

// WriteBitmapPage writes one page of the bitmap; payload may be reused when the
// call returns.
func (s *Store) WriteBitmapPage(page int, payload []byte, done func(error)) {
	o := s.newOp(done)
	o.what, o.page = "bitmap page", page
	if page < 0 || page >= s.layout.BitmapPages {
		o.err = fmt.Errorf("page %d of %d", page, s.layout.BitmapPages)
	} else {
		o.req.Offset = s.layout.BitmapOffset + int64(page)*BlockBytes
		o.err = encodePage(o.buffer.Bytes(BlockBytes), s.fixed.Device, page, payload)
	}
	s.enqueue(nil, o)
}

var ops sync.Pool

func (s *Store) newOp(done func(error)) *op {
	o, ok := ops.Get().(*op)
	if !ok {
		o = &op{}
		o.req.Done = o.landed
	}
	o.store, o.done, o.page, o.super, o.err = s, done, noPage, nil, nil
	o.buffer = block.GetBuffer(BlockBytes)
	o.req.Op, o.req.Flags = block.Write, block.FUA
	o.req.Length, o.req.Data = BlockBytes, o.buffer.Bytes(BlockBytes)
	return o
}

// enqueue starts o, or leaves it to whoever is at work on its place. Without a
// lane it is a page's.
func (s *Store) enqueue(l *lane, o *op) {
	s.mu.Lock()
	if l == nil {
		if l = s.mu.pages[o.page]; l == nil {
			l = &lane{}
			s.mu.pages[o.page] = l
		}
	}
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
	l, page, done := o.lane, o.page, o.done
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
		if page != noPage {
			delete(s.mu.pages, page)
		}
	}
	s.mu.Unlock()
	if next != nil {
		s.start(next)
	}
}
