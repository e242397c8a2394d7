package fault

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"hapair/mirror/block"
)

// Granule is the unit in which a Cache keeps or loses data.
const Granule = 4096

// DefaultLimitBytes bounds the data a Cache holds.
const DefaultLimitBytes = 64 << 20

// CacheOptions tune a Cache.
type CacheOptions struct {
	Seed       uint64  // of the choice below; the same seed and requests give the same
	Early      float64 // chance of a granule to be written through at once, in [0, 1]
	LimitBytes int64   // of data held; beyond it random granules are written through. 0 is DefaultLimitBytes
}

// Cache is the volatile write cache of a disk, held in the memory of this
// process. What was not flushed dies with the process, or by Drop; a random part
// of it has reached the disk before that, in any order. A flush writes
// everything through and flushes the disk; an FUA write makes itself durable and
// nothing else. Write-zeroes of more than one transfer, and discards, go to the
// disk at once.
//
// One goroutine carries the requests out, in the order they were submitted.
type Cache struct {
	inner block.Disk
	early float64
	limit int
	done  chan struct{}

	queue struct {
		sync.Mutex
		some     sync.Cond
		requests []*block.Request
		closed   bool
	}
	held struct { // what the disk does not have
		sync.Mutex
		rng      *rand.Rand
		granules map[int64]*granule
		order    []int64 // their numbers, so that the choice depends on the seed alone
	}
}

// granule is cached data; valid has a bit per sector that is newer than the disk.
type granule struct {
	data  [Granule]byte
	valid uint8
	at    int // in order
}

var _ [8 - Granule/block.SectorBytes]struct{} // valid has a bit for each sector

// NewCache puts a volatile cache in front of a disk. Close writes nothing
// through: flush first, like on a real disk.
func NewCache(inner block.Disk, o CacheOptions) *Cache {
	if o.LimitBytes <= 0 {
		o.LimitBytes = DefaultLimitBytes
	}
	c := &Cache{inner: inner, early: o.Early, limit: int(max(o.LimitBytes/Granule, 1)), done: make(chan struct{})}
	c.queue.some.L = &c.queue.Mutex
	c.held.rng = rand.New(rand.NewPCG(o.Seed, 0))
	c.held.granules = map[int64]*granule{}
	go c.run()
	return c
}

// Geometry is the inner disk's, with a volatile cache.
func (c *Cache) Geometry() block.Geometry {
	g := c.inner.Geometry()
	g.VolatileCache = true
	return g
}

// Submit queues a request.
func (c *Cache) Submit(r *block.Request) {
	c.queue.Lock()
	closed := c.queue.closed
	if !closed {
		c.queue.requests = append(c.queue.requests, r)
	}
	c.queue.Unlock()
	if closed {
		r.Answer(fmt.Errorf("%s: %w", r, block.ErrClosed))
		return
	}
	c.queue.some.Signal()
}

// Drop forgets everything that was not flushed: the power cut. It returns how
// many bytes were lost.
func (c *Cache) Drop() int64 {
	c.held.Lock()
	defer c.held.Unlock()
	n := int64(len(c.held.order)) * Granule
	clear(c.held.granules)
	c.held.order = c.held.order[:0]
	return n
}

// Held is how many bytes would be lost now, counted in granules.
func (c *Cache) Held() int64 {
	c.held.Lock()
	defer c.held.Unlock()
	return int64(len(c.held.order)) * Granule
}

// Close waits for the requests in flight, loses what was not flushed, and closes
// the inner disk.
func (c *Cache) Close() error {
	c.queue.Lock()
	was := c.queue.closed
	c.queue.closed = true
	c.queue.Unlock()
	if was {
		return fmt.Errorf("close a volatile cache: %w", block.ErrClosed)
	}
	c.queue.some.Signal()
	<-c.done
	return c.inner.Close()
}

func (c *Cache) run() {
	defer close(c.done)
	for {
		c.queue.Lock()
		for len(c.queue.requests) == 0 && !c.queue.closed {
			c.queue.some.Wait()
		}
		batch := c.queue.requests
		c.queue.requests = nil
		c.queue.Unlock()
		if len(batch) == 0 {
			return
		}
		for _, r := range batch {
			r.Answer(c.carryOut(r))
		}
	}
}

func (c *Cache) carryOut(r *block.Request) error {
	if err := block.Check(r, c.inner.Geometry()); err != nil {
		return err
	}
	c.held.Lock()
	defer c.held.Unlock()
	switch r.Op {
	case block.Read:
		return c.read(r)
	case block.Write:
		if r.Flags&block.FUA != 0 {
			return c.through(r)
		}
		return c.write(r.Offset, r.Data)
	case block.Flush:
		return c.flush()
	case block.WriteZeroes:
		if r.Flags&block.FUA == 0 && r.Length <= block.MaxTransferBytes {
			return c.write(r.Offset, make([]byte, r.Length))
		}
	case block.Discard: // has no data to hold
	}
	return c.through(r)
}

// through carries a request out on the disk, where it replaces what is held.
func (c *Cache) through(r *block.Request) error {
	if err := c.do(&block.Request{Op: r.Op, Flags: r.Flags, Offset: r.Offset, Length: r.Length, Data: r.Data}); err != nil {
		return err
	}
	c.forget(r.Offset, r.End())
	return nil
}

// do carries out a request of our own on the inner disk.
func (c *Cache) do(r *block.Request) error {
	done := make(chan error, 1)
	r.Done = func(_ *block.Request, err error) { done <- err }
	c.inner.Submit(r)
	return <-done
}

// read reads from the disk and lays over it what is held.
func (c *Cache) read(r *block.Request) error {
	if err := c.do(&block.Request{Op: block.Read, Offset: r.Offset, Length: r.Length, Data: r.Data}); err != nil {
		return err
	}
	eachSector(r.Offset, r.End(), func(n int64, sector int, at int64) {
		if g := c.held.granules[n]; g != nil && g.valid&(1<<sector) != 0 {
			copy(r.Data[at-r.Offset:][:block.SectorBytes], g.sector(sector))
		}
	})
	return nil
}

// write holds data, and writes a random part of it through.
func (c *Cache) write(off int64, data []byte) error {
	eachSector(off, off+int64(len(data)), func(n int64, sector int, at int64) {
		g := c.held.granules[n]
		if g == nil {
			g = &granule{at: len(c.held.order)}
			c.held.granules[n] = g
			c.held.order = append(c.held.order, n)
		}
		g.valid |= 1 << sector
		copy(g.sector(sector), data[at-off:])
	})
	var errs []error
	for n := off / Granule; n*Granule < off+int64(len(data)); n++ {
		if c.held.rng.Float64() < c.early {
			errs = append(errs, c.writeBack(n))
		}
	}
	for len(c.held.order) > c.limit && errors.Join(errs...) == nil {
		errs = append(errs, c.writeBack(c.held.order[c.held.rng.IntN(len(c.held.order))]))
	}
	return errors.Join(errs...)
}

// flush writes everything through, in random order, and flushes the disk.
func (c *Cache) flush() error {
	for len(c.held.order) > 0 {
		if err := c.writeBack(c.held.order[c.held.rng.IntN(len(c.held.order))]); err != nil {
			return err
		}
	}
	return c.do(&block.Request{Op: block.Flush})
}

// writeBack writes one granule to the disk, run of sectors by run, and drops it.
func (c *Cache) writeBack(n int64) error {
	g := c.held.granules[n]
	for sector := 0; sector < Granule/block.SectorBytes; sector++ {
		end := sector
		for end < Granule/block.SectorBytes && g.valid&(1<<end) != 0 {
			end++
		}
		if end == sector {
			continue
		}
		length := (end - sector) * block.SectorBytes
		err := c.do(&block.Request{
			Op: block.Write, Offset: n*Granule + int64(sector)*block.SectorBytes,
			Length: int64(length), Data: g.data[sector*block.SectorBytes:][:length],
		})
		if err != nil {
			return err
		}
		sector = end
	}
	c.remove(n, g)
	return nil
}

// forget drops what is held of [off, end).
func (c *Cache) forget(off, end int64) {
	if (end-off)/Granule > int64(len(c.held.order)) { // a large discard
		for _, n := range append([]int64(nil), c.held.order...) {
			from, to := max(off, n*Granule), min(end, (n+1)*Granule)
			if from < to {
				c.forgetSectors(from, to)
			}
		}
		return
	}
	c.forgetSectors(off, end)
}

func (c *Cache) forgetSectors(off, end int64) {
	eachSector(off, end, func(n int64, sector int, _ int64) {
		if g := c.held.granules[n]; g != nil {
			if g.valid &^= 1 << sector; g.valid == 0 {
				c.remove(n, g)
			}
		}
	})
}

func (c *Cache) remove(n int64, g *granule) {
	last := c.held.order[len(c.held.order)-1]
	c.held.order[g.at] = last
	c.held.granules[last].at = g.at
	c.held.order = c.held.order[:len(c.held.order)-1]
	delete(c.held.granules, n)
}

func (g *granule) sector(i int) []byte {
	return g.data[i*block.SectorBytes:][:block.SectorBytes]
}

// eachSector calls fn for every sector of [off, end): its granule, its place
// there, and its offset.
func eachSector(off, end int64, fn func(n int64, sector int, at int64)) {
	for at := off; at < end; at += block.SectorBytes {
		fn(at/Granule, int(at%Granule/block.SectorBytes), at)
	}
}
