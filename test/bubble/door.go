package bubble

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"hapair/mirror/block"
	"hapair/mirror/front"
)

var (
	errGone   = errors.New("the device is gone")
	errUsed   = errors.New("the applications do not end")
	errKilled = errors.New("the process that serves the device died")
)

// door is a front end without a device: applications begin when it starts and
// end when it stops.
type door struct {
	w    *World
	node string

	mu      sync.Mutex
	tenure  uint64 // the mirror was last promoted under
	frozen  bool   // the process stands still: nothing is fetched
	thaw    chan struct{}
	session *session // nil while it is closed
	dead    bool
}

func newDoor(w *World, node string) *door { return &door{w: w, node: node, thaw: make(chan struct{})} }

// Start implements front.Frontend.
func (d *door) Start(_ context.Context, h block.Handler, _ block.Geometry) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return "", errKilled
	}
	if d.session == nil {
		d.w.opens(d.node)
		d.session = newSession(d, h, d.tenure)
	}
	return "door:" + d.node, nil
}

// Stop implements front.Frontend.
func (d *door) Stop(ctx context.Context) error {
	d.mu.Lock()
	s := d.session
	d.mu.Unlock()
	if s == nil {
		return nil
	}
	s.stop()
	select {
	case <-s.ended:
	case <-ctx.Done():
		d.mu.Lock()
		defer d.mu.Unlock()
		s.abort(errUsed)
		if d.session == s && !d.dead { // the device stays up, others open it
			d.session = newSession(d, s.handler, s.tenure)
		}
		return fmt.Errorf("%w: %w", errUsed, ctx.Err())
	}
	d.close(s, errGone)
	return nil
}

// Abort implements front.Frontend.
func (d *door) Abort(context.Context) error {
	d.mu.Lock()
	s := d.session
	d.mu.Unlock()
	d.close(s, errGone)
	return nil
}

func (d *door) close(s *session, why error) {
	d.mu.Lock()
	if d.session == s {
		d.session = nil
	}
	d.mu.Unlock()
	if s != nil {
		s.abort(why)
	}
}

// kill is the death of the process, or of the machine.
func (d *door) kill() {
	d.mu.Lock()
	d.dead = true
	s := d.session
	d.mu.Unlock()
	d.close(s, errKilled)
}

// freeze begins or ends a standstill of the process.
func (d *door) freeze(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.frozen && !on {
		close(d.thaw)
		d.thaw = make(chan struct{})
	}
	d.frozen = on
}

// standing returns what to wait for while the process stands still, nil when
// it does not.
func (d *door) standing() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.frozen {
		return d.thaw
	}
	return nil
}

func (d *door) current() *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.session
}

func (d *door) promoted(tenure uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tenure = tenure
}

// Kind implements front.Frontend.
func (d *door) Kind() string { return "door" }

// Resize implements front.Frontend.
func (d *door) Resize(context.Context, block.Geometry) error { return nil }

// Holders implements front.Frontend.
func (d *door) Holders() ([]front.Holder, error) { return nil, nil }
