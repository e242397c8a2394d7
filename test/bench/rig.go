package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/mirror"
	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/front"
	"hapair/mirror/link"
	"hapair/mirror/meta"
	"hapair/mirror/state"
	"hapair/mirror/store"
	"hapair/mirror/wire"
)

// rig is a pair within this process: two resources, TCP on loopback between
// them, a ledger in memory. The first is Primary. It is for what must see both
// sides at once: profiles and the count of allocations.
type rig struct {
	nodes    [2]*mirror.Resource
	names    [2]string
	listener net.Listener
	accepted sync.WaitGroup
	changed  chan struct{}
	began    time.Time

	mu struct {
		sync.Mutex
		record wire.Record
		told   sync.WaitGroup // nodes that are being told of a record
	}
}

const (
	rigLease   = 24 * time.Hour
	rigTimeout = 30 * time.Second
)

// newRig makes the copies in dir and returns when writes go to both. The
// volume is offered through door.
func newRig(ctx context.Context, dir string, size int64, door front.Frontend) (*rig, error) {
	r := &rig{names: [2]string{"alpha", "beta"}, changed: make(chan struct{}, 1), began: time.Now()}
	r.mu.record = wire.Record{Token: 1, InSync: r.names[:]}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	r.listener = l
	for i := range r.nodes {
		if err := r.open(ctx, i, filepath.Join(dir, r.names[i]), size, door); err != nil {
			return nil, errors.Join(fmt.Errorf("rig: %w", err), r.close())
		}
	}
	r.accepted.Go(r.accept)
	for _, n := range r.nodes {
		n.SetRecord(r.mu.record)
		n.Start()
	}
	if err := r.promote(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("rig: %w", err), r.close())
	}
	return r, nil
}

func (r *rig) clock() time.Duration { return time.Since(r.began) + time.Second }

func (r *rig) open(ctx context.Context, i int, dir string, size int64, door front.Frontend) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	disk, md := filepath.Join(dir, "disk"), filepath.Join(dir, "metadata")
	if err := errors.Join(fillImage(disk, size), fillImage(md, meta.Needed(size))); err != nil {
		return err
	}
	d, err := store.Open(md, store.Options{})
	if err != nil {
		return err
	}
	_, err = meta.Create(d, meta.CreateParams{Placement: meta.External, DataBytes: size, Cluster: "rig", Resource: resourceName,
		Node: r.names[i], Peer: r.names[1-i], Flags: meta.AssumeClean, Force: true})
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	if i != 0 {
		door = &hatch{}
	}
	r.nodes[i], err = mirror.Open(ctx, mirror.Config{Cluster: "rig", Resource: resourceName, Self: r.names[i], Peer: r.names[1-i], Record: r.mu.record,
		Volumes: []mirror.VolumeConfig{{Disk: disk, Metadata: md, Frontend: door}},
		Ledger:  r, Dialer: r, Clock: r.clock, Observer: r, Logger: zap.NewNop()})
	return err
}

// promote waits for the two to meet and makes the first Primary.
func (r *rig) promote(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rigTimeout)
	defer cancel()
	if err := r.await(ctx); err != nil {
		return err
	}
	rec, err := r.change(r.nodes[0].View().Record.Token, func(w *wire.Record) { w.Tenure, w.Primary = w.Token, r.names[0] })
	if err != nil {
		return err
	}
	r.nodes[0].SetRecord(rec)
	if _, err := r.nodes[0].Promote(ctx, rec.Tenure, false); err != nil {
		return err
	}
	r.nodes[0].SetLease(rec.Tenure, r.clock()+rigLease)
	return nil
}

func (r *rig) await(ctx context.Context) error {
	tick := time.NewTicker(pollInterval) // changed may have been taken for the other node
	defer tick.Stop()
	for r.nodes[0].View().Replication != state.Established || r.nodes[1].View().Replication != state.Established {
		select {
		case <-r.changed:
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the pair did not connect: %w", ctx.Err())
		}
	}
	return nil
}

// close takes everything down.
func (r *rig) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), rigTimeout)
	defer cancel()
	errs := []error{r.listener.Close()}
	r.accepted.Wait()
	for _, n := range r.nodes {
		if n != nil && n.View().Role == state.Primary {
			errs = append(errs, n.Abort(ctx, errors.New("the rig ends")))
		}
	}
	for _, n := range r.nodes {
		if n != nil {
			errs = append(errs, n.Close(ctx))
		}
	}
	r.mu.told.Wait()
	return errors.Join(errs...)
}

// change is the ledger.
func (r *rig) change(token uint64, fn func(*wire.Record)) (wire.Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if token != r.mu.record.Token {
		return r.mu.record, mirror.ErrStale
	}
	rec := r.mu.record
	rec.InSync = slices.Clone(rec.InSync)
	rec.Token++
	fn(&rec)
	if rec.Primary == r.mu.record.Primary && rec.Tenure == r.mu.record.Tenure && slices.Equal(rec.InSync, r.mu.record.InSync) {
		return r.mu.record, nil // nothing has changed
	}
	r.mu.record = rec
	for _, n := range r.nodes {
		r.mu.told.Go(func() { n.SetRecord(rec) })
	}
	return rec, nil
}

// Exclude takes a node out of the in-sync set.
func (r *rig) Exclude(_ context.Context, _, node string, token uint64) (wire.Record, error) {
	return r.change(token, func(w *wire.Record) {
		w.InSync = slices.DeleteFunc(w.InSync, func(n string) bool { return n == node })
	})
}

// GiveUp is Exclude: nobody asks who does.
func (r *rig) GiveUp(ctx context.Context, resource, node string, token uint64) (wire.Record, error) {
	return r.Exclude(ctx, resource, node, token)
}

// Include puts a node into the in-sync set.
func (r *rig) Include(_ context.Context, _, node string, token uint64) (wire.Record, error) {
	return r.change(token, func(w *wire.Record) { w.InSync = append(w.InSync, node) })
}

// Changed wakes await.
func (r *rig) Changed(string) {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// Linked is like Changed.
func (r *rig) Linked(string, string, bool) { r.Changed("") }

// Happened is of no interest.
func (r *rig) Happened(string, engine.Topic, string) {}

// Trouble is of no interest: a request that fails ends the run.
func (r *rig) Trouble(string, string) {}

// Proven cannot be: nothing is verified.
func (r *rig) Proven(string, uint16, int64, int64) {}

// Moved cannot be: there is one path, and nothing breaks it.
func (r *rig) Moved(_, _, _ string, _ error) {}

// Deposed cannot be: nobody else asks for the record.
func (r *rig) Deposed(string, error) {}

// SplitVictim cannot be: there is no policy.
func (r *rig) SplitVictim(string, string) {}

// Dial opens a stream to the other half; the purpose goes first, one byte of
// length before it.
func (r *rig) Dial(ctx context.Context, _, purpose string) (net.Conn, string, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.listener.Addr().String())
	if err != nil {
		return nil, "", err
	}
	if _, err := c.Write(append([]byte{byte(len(purpose))}, purpose...)); err != nil {
		return nil, "", errors.Join(err, c.Close())
	}
	return c, "loopback", nil
}

// accept hands streams to the second node until the listener is closed.
func (r *rig) accept() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		purpose, err := readPurpose(c)
		if _, ok := link.ResourceOf(purpose); err != nil || !ok {
			c.Close() //nolint:errcheck // not one of ours
			continue
		}
		r.nodes[1].Accept(c, purpose)
	}
}

func readPurpose(c net.Conn) (string, error) {
	var n [1]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return "", err
	}
	purpose := make([]byte, n[0])
	_, err := io.ReadFull(c, purpose)
	return string(purpose), err
}

// hatch is a front end without a device: requests are handed to its handler
// directly.
type hatch struct{ handler block.Handler }

// Start keeps the handler.
func (h *hatch) Start(_ context.Context, handler block.Handler, _ block.Geometry) (string, error) {
	h.handler = handler
	return "hatch", nil
}

// Stop has nothing to stop.
func (*hatch) Stop(context.Context) error { return nil }

// Abort has nothing to stop.
func (*hatch) Abort(context.Context) error { return nil }

// Resize has nothing to tell.
func (*hatch) Resize(context.Context, block.Geometry) error { return nil }

// Kind is "hatch".
func (*hatch) Kind() string { return "hatch" }

// Holders are none.
func (*hatch) Holders() ([]front.Holder, error) { return nil, nil }
