package mirror

import (
	"context"
	"sync"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/meta"
)

// flushingDoor writes to the volume before it stops, as a device does whose page cache
// is dirty.
type flushingDoor struct {
	*door
	stops chan struct{} // closed when it has begun
	ended chan error    // of that write
}

func (d *flushingDoor) Stop(ctx context.Context) error {
	done := make(chan error, 1)
	d.h.Submit(&block.Request{Op: block.Write, Offset: 8 << 20, Length: 4096, Data: fill(1, 4096), Done: func(_ *block.Request, err error) { done <- err }})
	close(d.stops)
	select {
	case err := <-done:
		d.ended <- err
	case <-time.After(10 * time.Second):
		d.ended <- context.DeadlineExceeded
	}
	return d.door.Stop(ctx)
}

// A device is withdrawn while its volume grows: what it writes last waits until the
// metadata are laid out anew, and that may not wait for the device.
func TestDemoteWhileAVolumeGrows(t *testing.T) {
	var moves sync.Once
	grows, goOn := make(chan struct{}), make(chan struct{})
	p := internalPair(t)
	a := p.nodes[0]
	d := &flushingDoor{door: a.door, stops: make(chan struct{}), ended: make(chan error, 1)}
	a.vols[0].cfg.Frontend = d
	p.promote(0)
	for _, n := range p.nodes {
		enlarge(t, n, growTo)
	}
	before := func(r *block.Request) { // the first write of metadata at their new place
		if r.Op == block.Write && r.Offset > meta.DataBytesFor(growTo, 6433) {
			moves.Do(func() { close(grows); <-goOn })
		}
	}
	a.disk.before.Store(&before)
	resized := make(chan error, 1)
	go func() {
		_, err := a.Resize(t.Context(), ResizeOptions{})
		resized <- err
	}()
	<-grows
	demoted := make(chan error, 1)
	go func() { demoted <- a.Demote(t.Context()) }()
	<-d.stops
	close(goOn)
	if err := <-d.ended; err != nil {
		t.Errorf("what the device wrote last: %v", err)
	}
	must(t, <-demoted)
	if err := <-resized; err != nil {
		t.Logf("the resize was interrupted: %v", err)
	}
	if got := a.View().Volumes[0].SizeBytes; got != meta.DataBytesFor(growTo, 6433) {
		t.Fatalf("the volume has %d bytes", got)
	}
}
