package store

import (
	"fmt"
	"sync"

	"hapair/mirror/block"
)

// Section is the part [offset, offset+length) of a disk as a disk of its own:
// the data beside internal metadata. A flush covers the whole disk. Closing it
// waits for its own requests and leaves the disk open.
//
// It panics when the range is not within the disk or not aligned to its logical
// blocks: that is a mistake of the caller, not of the disk.
func Section(disk block.Disk, offset, length int64) block.Disk {
	g := disk.Geometry()
	unit := int64(g.LogicalBlockBytes)
	if offset < 0 || length <= 0 || offset > g.SizeBytes-length || offset%unit != 0 || length%unit != 0 {
		panic(fmt.Sprintf("store: section (%d, %d) of a disk of %d bytes with blocks of %d", offset, length, g.SizeBytes, unit))
	}
	g.SizeBytes = length
	return &section{disk: disk, offset: offset, geometry: g}
}

type section struct {
	disk     block.Disk
	offset   int64
	geometry block.Geometry
	requests sync.Pool

	mu struct {
		sync.Mutex
		closed   bool
		inflight sync.WaitGroup
	}
}

// shifted is a request of the section on its way through the disk.
type shifted struct {
	of    *section
	outer *block.Request
	inner block.Request
}

func (s *section) Geometry() block.Geometry { return s.geometry }

func (s *section) Submit(r *block.Request) {
	if err := block.Check(r, s.geometry); err != nil {
		r.Answer(err)
		return
	}
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		r.Answer(fmt.Errorf("%s: %w", r, block.ErrClosed))
		return
	}
	s.mu.inflight.Add(1)
	s.mu.Unlock()
	q, ok := s.requests.Get().(*shifted)
	if !ok {
		q = &shifted{of: s}
		q.inner.Done = q.done
	}
	q.outer = r
	q.inner.By = r.By
	q.inner.Op, q.inner.Flags, q.inner.Offset, q.inner.Length, q.inner.Data = r.Op, r.Flags, r.Offset, r.Length, r.Data
	if r.Op != block.Flush {
		q.inner.Offset += s.offset
	}
	s.disk.Submit(&q.inner)
}

func (q *shifted) done(_ *block.Request, err error) {
	s, r := q.of, q.outer
	q.outer, q.inner.Data, q.inner.By = nil, nil, nil
	s.requests.Put(q)
	r.Done(r, err) // whoever ends q tells By
	s.mu.inflight.Done()
}

func (s *section) Close() error {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return fmt.Errorf("close a section: %w", block.ErrClosed)
	}
	s.mu.closed = true
	s.mu.Unlock()
	s.mu.inflight.Wait()
	return nil
}
