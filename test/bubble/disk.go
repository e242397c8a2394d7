package bubble

import (
	"fmt"
	"math/rand"
	"sync"
	"time"

	"hapair/mirror/block"
	"hapair/test/fault"
)

// platter is a disk in memory that loses nothing.
type platter struct {
	mu   sync.Mutex
	data []byte
}

// Geometry implements block.Disk.
func (p *platter) Geometry() block.Geometry {
	return block.Geometry{SizeBytes: int64(len(p.data)), LogicalBlockBytes: block.SectorBytes, PhysicalBlockBytes: 4096,
		MaxTransferBytes: block.MaxTransferBytes, VolatileCache: true, Discard: true}
}

// Submit implements block.Disk.
func (p *platter) Submit(r *block.Request) {
	err := block.Check(r, p.Geometry())
	if err == nil {
		p.mu.Lock()
		switch r.Op {
		case block.Read:
			copy(r.Data, p.data[r.Offset:])
		case block.Write:
			copy(p.data[r.Offset:], r.Data)
		case block.WriteZeroes, block.Discard:
			clear(p.data[r.Offset:r.End()])
		case block.Flush: // the cache is in front of it
		}
		p.mu.Unlock()
	}
	r.Answer(err)
}

// Close implements block.Disk.
func (p *platter) Close() error { return nil }

// drive is a platter behind a volatile cache. It outlives processes; the power
// cut empties the cache.
type drive struct {
	platter *platter
	cache   *fault.Cache
}

func newDrive(size int64, seed uint64) *drive {
	p := &platter{data: make([]byte, size)}
	return &drive{p, fault.NewCache(p, fault.CacheOptions{Seed: seed, Early: 0.2})}
}

// read reads what the drive would return, without any delay.
func (d *drive) read(offset int64, b []byte) error {
	done := make(chan error, 1)
	d.cache.Submit(&block.Request{Op: block.Read, Offset: offset, Length: int64(len(b)), Data: b,
		Done: func(_ *block.Request, err error) { done <- err }})
	return <-done
}

// handle is one process's opening of a drive. Requests take a moment; they can
// be made to hang, to be slow and to fail; those of a dead process are not
// carried out any more.
type handle struct {
	d       *drive
	pending sync.WaitGroup

	mu   sync.Mutex
	rng  *rand.Rand
	slow time.Duration
	fail error
	dead bool
	hung int // reasons to hang
	held []func()
}

func (d *drive) open(seed int64) *handle {
	return &handle{d: d, rng: rand.New(rand.NewSource(seed)), slow: 400 * time.Microsecond}
}

// Geometry implements block.Disk.
func (h *handle) Geometry() block.Geometry { return h.d.cache.Geometry() }

// Submit implements block.Disk.
func (h *handle) Submit(r *block.Request) {
	h.pending.Add(1)
	h.mu.Lock()
	takes := 50*time.Microsecond + time.Duration(h.rng.Int63n(int64(h.slow)))
	h.mu.Unlock()
	time.AfterFunc(takes, func() { h.when(func() { h.enter(r) }) })
}

// when runs fn now, or when the disk does not hang any more.
func (h *handle) when(fn func()) {
	h.mu.Lock()
	if h.hung > 0 && !h.dead {
		h.held = append(h.held, fn)
		h.mu.Unlock()
		return
	}
	h.mu.Unlock()
	fn()
}

func (h *handle) enter(r *block.Request) {
	h.mu.Lock()
	err := h.fail
	if h.dead {
		err = errDead
	}
	h.mu.Unlock()
	if err != nil {
		h.answer(r, fmt.Errorf("%s: %w: %w", r, block.ErrIO, err))
		return
	}
	copied := *r
	copied.Done = func(_ *block.Request, err error) { h.when(func() { h.answer(r, err) }) }
	h.d.cache.Submit(&copied)
}

func (h *handle) answer(r *block.Request, err error) {
	r.Answer(err)
	h.pending.Done()
}

// Close implements block.Disk.
func (h *handle) Close() error {
	h.pending.Wait()
	return nil
}

// hang begins or ends one reason to hang.
func (h *handle) hang(on bool) {
	h.mu.Lock()
	if on {
		h.hung++
	} else {
		h.hung = max(h.hung-1, 0)
	}
	h.release()
}

// release lets go what is held, if nothing holds it; it unlocks.
func (h *handle) release() {
	var held []func()
	if h.hung == 0 || h.dead {
		held, h.held = h.held, nil
	}
	h.mu.Unlock()
	for _, fn := range held {
		fn()
	}
}

func (h *handle) kill() {
	h.mu.Lock()
	h.dead = true
	h.release()
}

func (h *handle) setSlow(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.slow = d
}

func (h *handle) setError(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = err
}
