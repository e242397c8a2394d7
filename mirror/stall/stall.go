// Package stall is a layer of block.Disk that knows how long a disk has been at
// its requests, and can answer for one that does not: a disk that hangs returns
// neither data nor an error, for minutes or for ever.
//
// What such a disk does later with the requests it was given is out of
// anybody's hands. So their memory stays with it (block.Request.Kept), nobody
// else is given the disk before it has let all of them go, and what it says of
// them is heard by nobody.
package stall

import (
	"cmp"
	"fmt"
	"sync"

	"hapair/mirror/block"
)

// Disk passes requests on to another disk and keeps a list of them. It is safe
// for concurrent use, and an Unplugger if the other disk is one.
type Disk struct {
	inner block.Disk
	plug  block.Unplugger

	mu struct {
		sync.Mutex
		ticks      uint64
		head, tail *request  // at the disk, the oldest first
		since      uint64    // the tick at which head became the oldest
		drained    sync.Cond // head is nil
		free       *request
		err        error // given up because of this
		failing    error // what is asked from now on fails with this, for somebody wants to see that
		abandoned  int   // requests that it has not let go since
		closing    bool  // then: the inner disk is closed after the last
	}
}

// request is what the inner disk gets in the place of a request.
type request struct {
	block.Request
	disk       *Disk
	orig       *block.Request // nil when it was answered for the disk
	prev, next *request
}

// New puts the layer around a disk. Close closes that as well.
func New(inner block.Disk) *Disk {
	d := &Disk{inner: inner}
	d.mu.drained.L = &d.mu.Mutex
	d.plug, _ = inner.(block.Unplugger)
	return d
}

// Geometry is the inner disk's.
func (d *Disk) Geometry() block.Geometry { return d.inner.Geometry() }

// Unplug starts what the inner disk has kept back.
func (d *Disk) Unplug() {
	if d.plug != nil {
		d.plug.Unplug()
	}
}

// Tick is the layer's clock. It counts what its caller has seen pass, not time:
// a process that was stopped for a minute has not waited for its disk a minute.
func (d *Disk) Tick() {
	d.mu.Lock()
	d.mu.ticks++
	d.mu.Unlock()
}

// Waiting is for how many ticks the oldest request has been the oldest; 0 when
// there is none, or when the disk was given up. A disk that is given a minute's
// work at once is busy for a minute: each answer shows that it goes on.
func (d *Disk) Waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.head == nil {
		return 0
	}
	return int(d.mu.ticks - d.mu.since)
}

// Abandoned is how many requests of a disk that was given up it still has.
func (d *Disk) Abandoned() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.abandoned
}

// Submit passes a request on. After Abandon and Fail it fails at once.
func (d *Disk) Submit(r *block.Request) {
	d.mu.Lock()
	if err := cmp.Or(d.mu.err, d.mu.failing); err != nil {
		d.mu.Unlock()
		r.Answer(err)
		return
	}
	q := d.take()
	q.orig, q.By = r, r.By
	q.Op, q.Flags, q.Offset, q.Length, q.Data, q.Plugged = r.Op, r.Flags, r.Offset, r.Length, r.Data, r.Plugged && d.plug != nil
	d.mu.Unlock()
	d.inner.Submit(&q.Request)
}

// take puts a blank request at the end of the list; mu is held.
func (d *Disk) take() *request {
	q := d.mu.free
	if q == nil {
		q = &request{disk: d}
		q.Done = q.done
	} else {
		d.mu.free = q.next
	}
	q.prev, q.next = d.mu.tail, nil
	if q.prev != nil {
		q.prev.next = q
	} else {
		d.mu.head, d.mu.since = q, d.mu.ticks
	}
	d.mu.tail = q
	return q
}

// drop takes a request off the list; mu is held.
func (d *Disk) drop(q *request) {
	if q.prev != nil {
		q.prev.next = q.next
	} else {
		d.mu.head, d.mu.since = q.next, d.mu.ticks
	}
	if d.mu.head == nil {
		d.mu.drained.Broadcast()
	}
	if q.next != nil {
		q.next.prev = q.prev
	} else {
		d.mu.tail = q.prev
	}
}

// done is the end of a request at the inner disk.
func (q *request) done(_ *block.Request, err error) {
	d := q.disk
	d.mu.Lock()
	orig := q.orig
	if orig == nil {
		d.mu.abandoned--
		closes := d.mu.closing && d.mu.abandoned == 0
		d.mu.Unlock()
		if closes {
			go d.inner.Close() //nolint:errcheck // nobody uses the disk any more; Close waits for this Done
		}
		return
	}
	d.drop(q)
	q.orig, q.Data, q.By = nil, nil, nil
	q.next, d.mu.free = d.mu.free, q
	d.mu.Unlock()
	orig.Done(orig, err)
}

// Abandon gives the disk up: everything it has not answered, and everything it
// is asked from now on, fails with an error that wraps why and
// block.ErrNoAnswer.
func (d *Disk) Abandon(why error) {
	d.mu.Lock()
	if d.mu.err != nil {
		d.mu.Unlock()
		return
	}
	d.mu.err = fmt.Errorf("%w: %w", why, block.ErrNoAnswer)
	var left []*block.Request
	for q := d.mu.head; q != nil; q = q.next {
		left = append(left, q.orig)
		q.orig = nil
		d.mu.abandoned++
	}
	d.mu.head, d.mu.tail = nil, nil
	d.mu.drained.Broadcast()
	err := d.mu.err
	d.mu.Unlock()
	var answers block.Answers
	for _, r := range left {
		r.Kept = len(r.Data) > 0
		answers.Done(r, err)
	}
	answers.Flush()
}

// Fail has the disk answer everything that it is asked from now on with an error, as
// one that has broken; nil ends that. What it has already been given it does and
// answers.
func (d *Disk) Fail(why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.failing = why
}

// Close waits for what is in flight and releases the disk. One that was given up,
// before or meanwhile, is not waited for: it is released when it has let the last
// request go, and until then nobody else can open it. The error says so.
func (d *Disk) Close() error {
	d.mu.Lock()
	for d.mu.head != nil {
		d.mu.drained.Wait()
	}
	n := d.mu.abandoned
	d.mu.closing = n > 0
	d.mu.Unlock()
	if n > 0 {
		return fmt.Errorf("%d requests are at the disk yet, which stays open until it answers them: %w", n, block.ErrNoAnswer)
	}
	return d.inner.Close()
}
