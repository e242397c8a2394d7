package bubble

import (
	"math/rand"
	"sync"
	"sync/atomic"
	"time"

	"hapair/mirror/block"
)

// session is the applications on a device, from its opening to its end: one
// worker per region, each with one request at a time.
type session struct {
	d       *door
	handler block.Handler
	tenure  uint64
	workers sync.WaitGroup
	ended   chan struct{} // all workers are

	stopping  chan struct{}
	aborted   chan struct{}
	stopOnce  sync.Once
	abortOnce sync.Once
	done      atomic.Int64          // requests answered
	since     [regions]atomic.Int64 // when the request under way was submitted; 0: none
}

func newSession(d *door, h block.Handler, tenure uint64) *session {
	s := &session{d: d, handler: h, tenure: tenure, ended: make(chan struct{}), stopping: make(chan struct{}), aborted: make(chan struct{})}
	for i := range regions {
		rng := rand.New(rand.NewSource(d.w.random()))
		s.workers.Go(func() { s.work(int64(i), rng) })
	}
	go func() {
		s.workers.Wait()
		close(s.ended)
	}()
	return s
}

// stop asks the applications to end; what is under way is waited for.
func (s *session) stop() { s.stopOnce.Do(func() { close(s.stopping) }) }

// abort takes the device from them: what is under way has no outcome.
func (s *session) abort(error) { s.abortOnce.Do(func() { close(s.aborted) }) }

func (s *session) over() bool {
	select {
	case <-s.aborted:
		return true
	default:
		return false
	}
}

func (s *session) work(region int64, rng *rand.Rand) {
	base := region * regionBytes
	for !s.read(region, base, regionBytes) { // whatever was there before
		if !s.think(rng) {
			return
		}
	}
	for s.think(rng) {
		length := int64(1+rng.Intn(16)) * sector
		if rng.Intn(4) == 0 {
			length = int64(1+rng.Intn(4)) * 4096
		}
		off := base + rng.Int63n((regionBytes-length)/sector+1)*sector
		switch n := rng.Intn(20); {
		case n < 11:
			s.write(region, off, length, rng)
		case n < 12:
			s.zero(region, off, length)
		case n < 18:
			s.read(region, off, length)
		default:
			s.flush(region)
		}
	}
}

// think waits a moment; false says that the session ends.
func (s *session) think(rng *rand.Rand) bool {
	pause := time.Duration(rng.Int63n(int64(s.d.w.think())))
	t := time.NewTimer(pause)
	defer t.Stop()
	for waiting := true; waiting; {
		select {
		case <-t.C:
			if waiting = s.d.w.resting(); waiting {
				t.Reset(10 * time.Millisecond)
			}
		case <-s.stopping:
			waiting = false
		case <-s.aborted:
			waiting = false
		}
	}
	select {
	case <-s.stopping:
		return false
	case <-s.aborted:
		return false
	default:
		return true
	}
}

// do submits a request and waits for its answer. told runs at the moment of a
// successful answer that somebody still hears. It reports whether there was one.
func (s *session) do(region int64, r *block.Request, told func()) bool {
	for thaw := s.d.standing(); thaw != nil; thaw = s.d.standing() {
		select {
		case <-thaw:
		case <-s.aborted:
			return false
		}
	}
	answer := make(chan bool, 1)
	r.Done = func(_ *block.Request, err error) {
		switch {
		case s.over():
		case err != nil:
			s.d.w.book.failure()
		default:
			told()
			s.done.Add(1)
		}
		answer <- err == nil
	}
	if s.over() {
		return false
	}
	s.since[region].Store(time.Now().UnixNano())
	defer s.since[region].Store(0)
	s.handler.Submit(r)
	select {
	case ok := <-answer:
		return ok
	case <-s.aborted:
		return false
	}
}

func (s *session) write(region, off, length int64, rng *rand.Rand) {
	k := s.d.w.book
	v := k.submit(s.tenure, off, length, false)
	data := block.Aligned(int(length))
	encode(off, data, v)
	r := &block.Request{Op: block.Write, Offset: onVolume(off), Length: length, Data: data}
	if rng.Intn(8) == 0 {
		r.Flags = block.FUA
	}
	cuts := s.d.w.powerCuts()
	var owed []*debt
	ok := s.do(region, r, func() {
		k.wrote(s.d.node, s.tenure, v)
		owed = s.d.w.owed(cuts)
	})
	for _, o := range owed {
		if ok {
			o.check(off, v, length)
		}
	}
}

func (s *session) zero(region, off, length int64) {
	k := s.d.w.book
	v := k.submit(s.tenure, off, length, true)
	s.do(region, &block.Request{Op: block.WriteZeroes, Offset: onVolume(off), Length: length}, func() { k.wrote(s.d.node, s.tenure, v) })
}

func (s *session) read(region, off, length int64) bool {
	data := block.Aligned(int(length))
	return s.do(region, &block.Request{Op: block.Read, Offset: onVolume(off), Length: length, Data: data}, func() {
		s.d.w.book.read(s.d.node, s.tenure, off, data)
	})
}

func (s *session) flush(region int64) {
	k := s.d.w.book
	before := k.snapshot()
	s.do(region, &block.Request{Op: block.Flush}, func() {
		k.flushed(s.d.node, s.tenure, before)
		k.durable(s.d.node, before, s.d.w.boxes[s.d.node].onPlatter)
	})
}

// oldest is how long the oldest request under way has been waiting.
func (s *session) oldest() time.Duration {
	var most time.Duration
	for i := range s.since {
		if at := s.since[i].Load(); at != 0 {
			most = max(most, time.Duration(time.Now().UnixNano()-at))
		}
	}
	return most
}
