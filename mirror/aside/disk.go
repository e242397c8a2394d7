// Package aside keeps what a victim of a split brain gives up: a layer between the
// engine and a disk that saves every block in an image before it is overwritten, so
// that image and disk together are what the disk held when the image was made. The
// image may be read as a disk (View), and put back (Image.Each).
//
// A request that changes a block waits until the block is durable in the image: a
// power cut finds the old block on the disk or in the image. What cannot be saved
// does not hold the request up: the image is marked incomplete, durably, and the
// request goes on. Without an image a request costs one pointer test.
package aside

import (
	"errors"
	"sync"
	"sync/atomic"

	"hapair/mirror/block"
)

// Disk is the layer around one disk. It is safe for concurrent use, and an
// Unplugger if the disk is one.
type Disk struct {
	inner  block.Disk
	plug   block.Unplugger
	keeper atomic.Pointer[keeper]
}

// New puts the layer around a disk. Close closes that as well.
func New(inner block.Disk) *Disk {
	d := &Disk{inner: inner}
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

// Submit passes a request on, after what it overwrites is saved.
func (d *Disk) Submit(r *block.Request) {
	k := d.keeper.Load()
	if k == nil || !r.Op.Changes() || !k.put(r) {
		d.inner.Submit(r)
	}
}

// Inner is the disk below, for who puts an image back.
func (d *Disk) Inner() block.Disk { return d.inner }

// Image is what is kept, nil when nothing is.
func (d *Disk) Image() *Image {
	if k := d.keeper.Load(); k != nil {
		return k.image
	}
	return nil
}

// Keep saves in an image from now on. Nothing that was submitted before may be at
// the disk yet.
func (d *Disk) Keep(m *Image, l Limits) {
	k := &keeper{disk: d, image: m, limits: l, ended: make(chan struct{})}
	k.mu.wake.L = &k.mu.Mutex
	k.lost.Store(m.State().Phase == Incomplete)
	go k.run()
	d.keeper.Store(k)
}

// Release ends that, and closes the image. What waits is saved first.
func (d *Disk) Release() error {
	k := d.keeper.Swap(nil)
	if k == nil {
		return nil
	}
	k.stop()
	return k.image.close()
}

// Close releases image and disk.
func (d *Disk) Close() error { return errors.Join(d.Release(), d.inner.Close()) }

// keeper saves, on a goroutine of its own.
type keeper struct {
	disk   *Disk
	image  *Image
	limits Limits
	lost   atomic.Bool // nothing is saved any more
	ended  chan struct{}

	mu struct {
		sync.Mutex
		wake   sync.Cond
		queue  []*block.Request
		closed bool
	}
}

// put takes a request that has to wait; false when it has not.
func (k *keeper) put(r *block.Request) bool {
	if k.lost.Load() || k.image.covers(r.Offset, max(r.Length, 1)) {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.closed {
		return false
	}
	k.mu.queue = append(k.mu.queue, r)
	k.mu.wake.Signal()
	return true
}

func (k *keeper) stop() {
	k.mu.Lock()
	k.mu.closed = true
	k.mu.wake.Signal()
	k.mu.Unlock()
	<-k.ended
}

func (k *keeper) run() {
	defer close(k.ended)
	for {
		k.mu.Lock()
		for len(k.mu.queue) == 0 && !k.mu.closed {
			k.mu.wake.Wait()
		}
		queue := k.mu.queue
		k.mu.queue = nil
		k.mu.Unlock()
		if len(queue) == 0 {
			return
		}
		k.serve(queue)
	}
}

// serve saves what a series of requests overwrites, and lets each go.
func (k *keeper) serve(queue []*block.Request) {
	for len(queue) > 0 {
		batch, n := k.gather(queue)
		if len(batch) > 0 && !k.lost.Load() {
			if err := k.saveOld(batch); err != nil {
				k.lose(err)
			}
		}
		for _, r := range queue[:n] {
			r.Plugged = false
			k.disk.inner.Submit(r)
		}
		queue = queue[n:]
	}
}

// gather collects the blocks that are not saved yet, sorted, as many as go into one
// batch, and says how many of the requests they are all of. A request that needs more
// is saved in several rounds, of which none but the last lets it go.
func (k *keeper) gather(queue []*block.Request) (blocks []int64, n int) {
	seen := map[int64]bool{}
	for _, r := range queue {
		for b := r.Offset / BlockBytes; b <= k.image.last(r.End()); b++ {
			if k.lost.Load() || seen[b] || k.image.Saved(b) {
				continue
			}
			if len(blocks) == batchMax {
				return blocks, n
			}
			seen[b] = true
			blocks = append(blocks, b)
		}
		n++
	}
	return blocks, n
}
