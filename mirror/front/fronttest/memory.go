// Package fronttest holds the conformance suite every front end must pass, and
// the Handler it is run against.
package fronttest

import (
	"fmt"
	"slices"
	"sync"

	"hapair/mirror/block"
)

// Seen is one request as the Handler saw it.
type Seen struct {
	Op     block.Op
	Flags  block.Flags
	Offset int64
	Length int64
}

// Memory is a Handler that keeps a volume in RAM. The zero value is not
// usable; see NewMemory. It is safe for concurrent use.
type Memory struct {
	geometry block.Geometry
	content  sync.RWMutex // held while data are touched
	data     []byte
	async    chan *block.Request // nil: requests complete inside Submit
	workers  sync.WaitGroup

	// Quiet turns the record of requests off, for benchmarks.
	Quiet bool

	mu struct {
		sync.Mutex
		changed *sync.Cond
		seen    []Seen
		fail    map[block.Op]error
		held    map[block.Op]bool
		waiting []*block.Request
		flying  int // submitted and not done
		keep    bool
		kept    [][]byte // memory of requests that was not given back
		reused  bool     // some of it came again
	}
}

// Geometry describes the volumes the tests use: bytes long, blocks of 512,
// with a volatile cache and discard.
func Geometry(bytes int64) block.Geometry {
	return block.Geometry{
		SizeBytes: bytes, LogicalBlockBytes: 512, PhysicalBlockBytes: 4096,
		MaxTransferBytes: block.MaxTransferBytes, VolatileCache: true, Discard: true,
	}
}

// NewMemory makes a volume of zeroes. With workers > 0 that many goroutines
// complete requests, in any order; with 0 they complete inside Submit. Close
// ends the workers.
func NewMemory(g block.Geometry, workers int) *Memory {
	m := &Memory{geometry: g, data: block.Aligned(int(g.SizeBytes))}
	m.mu.changed = sync.NewCond(&m.mu)
	m.mu.fail = map[block.Op]error{}
	m.mu.held = map[block.Op]bool{}
	if workers > 0 {
		m.async = make(chan *block.Request, 64)
	}
	for range workers {
		m.workers.Go(func() {
			for r := range m.async {
				m.carryOut(r)
			}
		})
	}
	return m
}

// Geometry is what the volume was made with.
func (m *Memory) Geometry() block.Geometry { return m.geometry }

// Close ends the workers; no request may be in flight.
func (m *Memory) Close() {
	if m.async != nil {
		close(m.async)
	}
	m.workers.Wait()
}

// Submit implements block.Handler.
func (m *Memory) Submit(r *block.Request) {
	if !m.Quiet && m.note(r) {
		return
	}
	if m.async != nil {
		m.async <- r
		return
	}
	m.carryOut(r)
}

// note records a request and keeps it if its kind is held.
func (m *Memory) note(r *block.Request) (kept bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.seen = append(m.mu.seen, Seen{r.Op, r.Flags, r.Offset, r.Length})
	m.mu.flying++
	m.mu.reused = m.mu.reused || len(r.Data) > 0 && slices.ContainsFunc(m.mu.kept, func(b []byte) bool { return &b[0] == &r.Data[0] })
	kept = m.mu.held[r.Op]
	if kept {
		m.mu.waiting = append(m.mu.waiting, r)
	}
	m.mu.changed.Broadcast()
	return kept
}

func (m *Memory) carryOut(r *block.Request) {
	err := block.Check(r, m.geometry)
	if err == nil && !m.Quiet {
		m.mu.Lock()
		err = m.mu.fail[r.Op]
		m.mu.Unlock()
	}
	if err == nil {
		m.keep(r)
		m.apply(r)
	}
	if !m.Quiet {
		m.mu.Lock()
		m.mu.flying--
		m.mu.changed.Broadcast()
		m.mu.Unlock()
	}
	r.Answer(err)
}

// Keep makes requests leave their memory to a disk that does not answer, from now
// on; false ends that.
func (m *Memory) Keep(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.keep = on
}

// Scribble does what such a disk may do at any time: it writes into the memory that
// was left to it. It reports whether some of that was used for another request.
func (m *Memory) Scribble() (reused bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.mu.kept {
		for i := range b {
			b[i] = 0xee
		}
	}
	return m.mu.reused
}

// keep leaves the memory of a request to a disk: what a read finds is elsewhere.
func (m *Memory) keep(r *block.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mu.keep || len(r.Data) == 0 {
		return
	}
	m.mu.kept, r.Kept = append(m.mu.kept, r.Data), true
	if r.Op == block.Read {
		r.Data = block.Aligned(len(r.Data))
	}
}

// apply touches the data. Which of overlapping requests in flight comes first
// is the client's affair, as on a disk.
func (m *Memory) apply(r *block.Request) {
	if r.Op == block.Read {
		m.content.RLock()
		defer m.content.RUnlock()
		copy(r.Data, m.data[r.Offset:r.End()])
		return
	}
	m.content.Lock()
	defer m.content.Unlock()
	switch r.Op {
	case block.Write:
		copy(m.data[r.Offset:r.End()], r.Data)
	case block.Discard, block.WriteZeroes:
		clear(m.data[r.Offset:r.End()])
	default: // a flush: memory has no cache before it
	}
}

// Bytes waits until nothing is in flight and returns the volume itself, to be
// used while nothing else comes.
func (m *Memory) Bytes() []byte {
	m.AwaitIdle()
	return m.data
}

// Fail makes requests of a kind fail from now on; nil ends that.
func (m *Memory) Fail(op block.Op, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("injected: %w", err)
	}
	m.mu.fail[op] = err
}

// Hold keeps requests of a kind in flight until Release.
func (m *Memory) Hold(op block.Op) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.held[op] = true
}

// Release ends all holds and carries out what they kept.
func (m *Memory) Release() {
	m.mu.Lock()
	kept := m.mu.waiting
	m.mu.waiting = nil
	clear(m.mu.held)
	m.mu.Unlock()
	for _, r := range kept {
		m.carryOut(r)
	}
}

// Seen returns the requests submitted so far, in order.
func (m *Memory) Seen() []Seen {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Seen(nil), m.mu.seen...)
}

// Forget empties the record.
func (m *Memory) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.seen = nil
}

// AwaitHeld waits until n requests are held.
func (m *Memory) AwaitHeld(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.mu.waiting) < n {
		m.mu.changed.Wait()
	}
}

// AwaitIdle waits until nothing is in flight.
func (m *Memory) AwaitIdle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.mu.flying > 0 {
		m.mu.changed.Wait()
	}
}
