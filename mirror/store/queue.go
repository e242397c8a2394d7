package store

import (
	"sync"

	"hapair/mirror/block"
)

// queue is what waits for a worker. It never blocks whoever puts: a Done that
// submits the next request must not wait for the very worker it runs on. What it
// holds is bounded by the requests its users own; its memory is reused.
type queue struct {
	sync.Mutex
	some   sync.Cond
	ring   []*block.Request
	head   int
	n      int
	closed bool
}

func newQueue() *queue {
	q := &queue{ring: make([]*block.Request, 64)}
	q.some.L = &q.Mutex
	return q
}

// put reports false when the queue is closed.
func (q *queue) put(r *block.Request) bool {
	q.Lock()
	if q.closed {
		q.Unlock()
		return false
	}
	if q.n == len(q.ring) {
		q.grow()
	}
	q.ring[(q.head+q.n)%len(q.ring)] = r
	q.n++
	q.Unlock()
	q.some.Signal()
	return true
}

func (q *queue) grow() {
	bigger := make([]*block.Request, 2*len(q.ring))
	n := copy(bigger, q.ring[q.head:])
	copy(bigger[n:], q.ring[:q.head])
	q.ring, q.head = bigger, 0
}

// get waits for a request; false means the queue is closed and empty.
func (q *queue) get() (*block.Request, bool) {
	q.Lock()
	defer q.Unlock()
	for q.n == 0 {
		if q.closed {
			return nil, false
		}
		q.some.Wait()
	}
	r := q.ring[q.head]
	q.ring[q.head] = nil
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	return r, true
}

// close lets the workers end when the queue is empty.
func (q *queue) close() {
	q.Lock()
	q.closed = true
	q.Unlock()
	q.some.Broadcast()
}
