// Package aside keeps what a victim of a split brain gives up: a layer between the
// engine and a disk that saves every block in an image before it is overwritten, so
// that image and disk together are what the disk held when the image was made. The
// image may be read as a disk (View), and put back (Image.Each).
//
// A request that changes a block waits until the block is durable in the image: a
// power cut finds the old block on the disk or in the image. What cannot be saved
// does not hold the request up: the image is marked incomplete, durably, and the
// request goes on. Where that cannot be written down either, the request fails. Without an image a request costs one pointer test.
package aside

import (
	"errors"
	"fmt"
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

// Image is what is kept, nil when nothing is.
func (d *Disk) Image() *Image {
	if k := d.keeper.Load(); k != nil && !k.left.Load() {
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

// Release ends that, and closes the image. What waits is saved first; what follows is
// not, so nobody may find the image again: it was removed.
func (d *Disk) Release() error {
	k := d.keeper.Load()
	if k == nil {
		return nil
	}
	err := k.leave(nil)
	d.keeper.CompareAndSwap(k, nil)
	return err
}

// Leave closes the image and leaves it as it is, for a disk that is let go of. What
// waits is saved first; what would have to be saved after that fails.
func (d *Disk) Leave() error {
	if k := d.keeper.Load(); k != nil {
		return k.leave(block.ErrClosed)
	}
	return nil
}

// Close leaves the image and closes the disk.
func (d *Disk) Close() error { return errors.Join(d.Leave(), d.inner.Close()) }

// Tick is the clock of Waiting, as that of stall.Disk.
func (d *Disk) Tick() {
	if k := d.keeper.Load(); k != nil {
		k.mu.Lock()
		k.mu.ticks++
		k.mu.Unlock()
	}
}

// Waiting is for how many ticks nothing was saved although a request waits for it: the
// disk below, or the file system of the image, does not answer.
func (d *Disk) Waiting() int {
	k := d.keeper.Load()
	if k == nil {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.mu.held) == 0 {
		return 0
	}
	return int(k.mu.ticks - k.mu.since)
}

// Abandon fails what waits to be saved, and what would have to be from now on, with an
// error that wraps why and block.ErrNoAnswer. The image stays as it is.
func (d *Disk) Abandon(why error) {
	if k := d.keeper.Load(); k != nil {
		k.abandon(fmt.Errorf("what it overwrites is not saved: %w: %w", why, block.ErrNoAnswer))
	}
}
