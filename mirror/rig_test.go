package mirror

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/front"
	"hapair/mirror/wire"
)

// ledger is the record in memory, the same for both nodes.
type ledger struct {
	mu    sync.Mutex
	rec   wire.Record
	nodes []*Resource
	down  bool              // no quorum
	told  func(wire.Record) // of every change, under mu; may be nil
}

func (l *ledger) change(token uint64, fn func(*wire.Record)) (wire.Record, error) {
	l.mu.Lock()
	if l.down {
		l.mu.Unlock()
		return wire.Record{}, errors.New("no quorum")
	}
	var err error
	if token != l.rec.Token {
		err = ErrStale
	} else {
		next := l.rec
		next.InSync = slices.Clone(l.rec.InSync)
		next.Token++
		fn(&next)
		if next.Primary != l.rec.Primary || next.Tenure != l.rec.Tenure || !slices.Equal(next.InSync, l.rec.InSync) {
			l.rec = next
			if l.told != nil {
				l.told(next)
			}
		} // what changes nothing is no change of the ledger, and has no token
	}
	rec, nodes := l.rec, slices.Clone(l.nodes)
	l.mu.Unlock()
	if err == nil {
		go func() {
			for _, n := range nodes {
				n.SetRecord(rec)
			}
		}()
	}
	return rec, err
}

func (l *ledger) Exclude(_ context.Context, _, node string, token uint64) (wire.Record, error) {
	return l.change(token, func(r *wire.Record) {
		r.InSync = slices.DeleteFunc(r.InSync, func(n string) bool { return n == node })
	})
}

func (l *ledger) GiveUp(ctx context.Context, resource, node string, token uint64) (wire.Record, error) {
	return l.Exclude(ctx, resource, node, token)
}

func (l *ledger) Include(_ context.Context, _, node string, token uint64) (wire.Record, error) {
	return l.change(token, func(r *wire.Record) {
		if !slices.Contains(r.InSync, node) {
			r.InSync = append(r.InSync, node)
		}
	})
}

// door is a front end without a device.
type door struct {
	h   block.Handler
	mu  sync.Mutex
	geo block.Geometry // as it is offered
}

func (d *door) Start(ctx context.Context, h block.Handler, g block.Geometry) (string, error) {
	d.h = h
	return "door", d.Resize(ctx, g)
}

func (d *door) Resize(_ context.Context, g block.Geometry) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.geo = g
	return nil
}

// geometry is that of the device.
func (d *door) geometry() block.Geometry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.geo
}

// shows is the size of the device.
func (d *door) shows() int64 { return d.geometry().SizeBytes }

func (d *door) Stop(context.Context) error       { return nil }
func (d *door) Abort(context.Context) error      { return nil }
func (d *door) Kind() string                     { return "door" }
func (d *door) Holders() ([]front.Holder, error) { return nil, nil }

// do is one request, waited for.
func (d *door) do(t *testing.T, r *block.Request) error {
	t.Helper()
	ch := make(chan error, 1)
	r.Done = func(_ *block.Request, err error) { ch <- err }
	d.h.Submit(r)
	select {
	case err := <-ch:
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("%s was not answered", r)
		return nil
	}
}

type observer struct {
	t    *testing.T
	node string
	ch   chan struct{}
	dep  chan error

	mu       sync.Mutex
	troubles []string
	linked   int // sessions that began
}

func (o *observer) Changed(string) {
	select {
	case o.ch <- struct{}{}:
	default:
	}
}
func (o *observer) Linked(_, _ string, up bool) {
	o.mu.Lock()
	if up {
		o.linked++
	}
	o.mu.Unlock()
	o.Changed("")
}

func (o *observer) Moved(_, _, _ string, _ error) { o.Changed("") }

func (o *observer) Trouble(_, text string) {
	o.mu.Lock()
	o.troubles = append(o.troubles, text)
	o.mu.Unlock()
	o.Changed("")
}

func (o *observer) Happened(string, engine.Topic, string) { o.Changed("") }

func (o *observer) Proven(string, uint16, int64, int64) { o.Changed("") }

// told is what an operator was told, and how many sessions began.
func (o *observer) told() ([]string, int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.troubles), o.linked
}
func (o *observer) SplitVictim(_, why string) { o.Trouble("", why) }

func (o *observer) Deposed(_ string, why error) {
	select {
	case o.dep <- why:
	default:
	}
}

// wireUp dials the peer's listener.
type wireUp struct {
	mu   sync.Mutex
	addr string
	cut  bool
}

func (w *wireUp) Dial(ctx context.Context, _, purpose string) (net.Conn, string, error) {
	w.mu.Lock()
	addr, cut := w.addr, w.cut
	w.mu.Unlock()
	if cut {
		return nil, "", errors.New("cable is cut")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, "", err
	}
	if _, err := c.Write([]byte{byte(len(purpose))}); err != nil {
		return nil, "", errors.Join(err, c.Close())
	}
	_, err = c.Write([]byte(purpose))
	return c, "loop", err
}
