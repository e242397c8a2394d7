package mirror

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/meta"
)

// Ends keeps where the internal metadata of a volume end, for the case that its
// disk is found larger than it was: they are looked for there then.
type Ends interface {
	// Last is what was kept last, 0: nothing.
	Last() int64
	// Keep keeps it, durably.
	Keep(end int64) error
}

// ResizeOptions is how large a volume is to be.
type ResizeOptions struct {
	Volume int   // number
	Size   int64 // bytes; 0: as much as the disks of both nodes offer
	// AssumeClean: the new range is equal on both disks already; it is not made
	// zero.
	AssumeClean bool
	// CutData: what lies behind a smaller Size is lost, whatever it is. Without it
	// that is refused unless the contents are known to end before.
	CutData bool
	// AssumePeerHasSpace goes on without a peer that is away and out of the in-sync
	// set.
	AssumePeerHasSpace bool
}

// Resize makes a volume larger while it is in use, on both nodes, and returns its
// size when both copies have it durably and the device shows it. It makes one
// smaller while no node is Primary. An error may leave one copy larger than the
// other: the smaller follows when they meet, and Resize may be asked again.
func (r *Resource) Resize(ctx context.Context, o ResizeOptions) (sizeBytes int64, err error) {
	i := r.indexOf(o.Volume)
	if i < 0 {
		return 0, fmt.Errorf("resize %s: there is no volume %d: %w", r.cfg.Resource, o.Volume, engine.ErrBadState)
	}
	r.resizeMu.Lock()
	defer r.resizeMu.Unlock()
	order := engine.ResizeOrder{Volume: i, Size: o.Size, Trusted: o.AssumeClean, Alone: o.AssumePeerHasSpace}
	if o.Size > 0 && o.Size < r.vols[i].geo.Load().SizeBytes {
		r.admin.Lock() // nobody is promoted here meanwhile
		defer r.admin.Unlock()
		order.Cut, order.Seen = true, r.View().Seen
		if err = r.mayCutNow(i); err == nil {
			err = r.mayCut(ctx, i, o)
		}
	}
	if err == nil {
		err = r.command(ctx, &engine.Event{Kind: engine.Resize, Resize: order})
	}
	if err == nil {
		err = r.vols[i].show(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("resize %s: %w", r.cfg.Resource, err)
	}
	return r.vols[i].geo.Load().SizeBytes, nil
}

// cutOffError is engine.ErrWouldCut in words that say more.
type cutOffError struct{ error }

func (e cutOffError) Unwrap() error        { return e.error }
func (e cutOffError) Is(target error) bool { return target == engine.ErrWouldCut }

func (r *Resource) mayCutNow(volume int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.eng.MayCut(volume)
}

// mayCut looks at the contents of a volume that is to become smaller.
func (r *Resource) mayCut(ctx context.Context, i int, o ResizeOptions) error {
	v := r.vols[i]
	if err := v.on.Load().cutsKept(); err != nil {
		return fmt.Errorf("volume %d: %w", v.cfg.Number, err)
	}
	if o.CutData {
		r.log.Warn("a volume is made smaller, whatever it holds", zap.Uint16("volume", v.cfg.Number), zap.Int64("bytes", o.Size))
		return nil
	}
	looked := make(chan error, 1)
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		b := v.on.Load()
		if b.data == nil {
			looked <- block.ErrClosed
			return
		}
		looked <- meta.MayCut(b.data, v.geo.Load().SizeBytes, o.Size)
	}()
	var err error
	select {
	case err = <-looked:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if errors.Is(err, meta.ErrCutOff) {
		err = cutOffError{err}
	}
	if err != nil {
		return fmt.Errorf("volume %d: %w", v.cfg.Number, err)
	}
	return nil
}

// measured looks how large the disks of a volume are now.
func (v *volume) measured() {
	defer v.r.running.Done()
	b := v.on.Load()
	ev := &engine.Event{Kind: engine.Measured, Volume: v.index}
	for _, f := range b.files {
		_, err := f.Measure()
		ev.Err = errors.Join(ev.Err, err)
	}
	if len(b.files) == 0 {
		ev.Err = fmt.Errorf("volume %d: %w", v.cfg.Number, block.ErrClosed)
	} else {
		ev.Floor, ev.Room = b.allows()
		ev.Ceiling = b.meta.Ceiling()
	}
	v.r.step(ev)
}

// allows is which sizes the volume can be given on its disks. A file that holds
// the metadata is made larger when they need it.
func (b *backing) allows() (floor, room int64) {
	size := b.data.Geometry().SizeBytes
	room = size
	if b.fixed.Placement == meta.Internal || b.files[len(b.files)-1].IsBlockDevice() {
		room = b.meta.Room(size)
	}
	return b.meta.Floor(), room
}

// fit lays the metadata of a copy that holds nothing out anew for a volume of
// another size. The engine keeps everything else away from them until it hears of
// the end.
func (v *volume) fit(sizeBytes int64, s engine.Super) {
	defer v.r.running.Done()
	b := v.on.Load()
	err := b.meta.Resize(b.superblock(&s), sizeBytes)
	if err == nil {
		v.sized(b, sizeBytes)
	}
	v.r.step(&engine.Event{Kind: engine.SizeFitted, Volume: v.index, Err: err})
}

// remake does so for a copy in use, and then has the device show the size: the
// other copy can hold it.
func (v *volume) remake(m meta.Remake, s engine.Super) {
	defer v.r.running.Done()
	b := v.on.Load()
	err := v.remakeOn(b, m, s)
	if errors.Is(err, meta.ErrOverlap) || errors.Is(err, meta.ErrTooSmall) {
		err = fmt.Errorf("%w: %w", engine.ErrNoRoom, err)
	}
	if err == nil {
		v.sized(b, m.DataBytes)
	}
	v.r.step(&engine.Event{Kind: engine.SizeFitted, Volume: v.index, Err: err})
	if err == nil {
		err = v.show(v.r.ctx)
	}
	if err != nil {
		v.r.cfg.Observer.Trouble(v.r.cfg.Resource, fmt.Sprintf("volume %d: resize: %v", v.cfg.Number, err))
	}
}

// cutsKept: what was given up in a split brain is kept of the disk, and metadata
// that move would overwrite what belongs to it, unseen.
func (b *backing) cutsKept() error {
	if b.data == nil || b.data.Image() == nil {
		return nil
	}
	return cutOffError{fmt.Errorf("what was given up in a split brain is kept of it, and would lose its end: %w", ErrKept)}
}

func (v *volume) remakeOn(b *backing, m meta.Remake, s engine.Super) error {
	if m.DataBytes < b.described().DataBytes {
		if err := b.cutsKept(); err != nil {
			return err
		}
	}
	m.Super = b.superblock(&s)
	if b.fixed.Placement == meta.External {
		if err := b.files[1].Extend(meta.NeededFor(m.DataBytes, b.fixed.ActivitySlots)); err != nil {
			return fmt.Errorf("%w: %w", engine.ErrNoRoom, err)
		}
	}
	done := make(chan error, 1) // what was made zero is durable first
	b.data.Submit(&block.Request{Op: block.Flush, Done: func(_ *block.Request, err error) { done <- err }})
	b.data.Unplug()
	if err := <-done; err != nil {
		return err
	}
	if err := b.meta.Remake(m); err != nil {
		return err
	}
	v.keepEnd(b.meta)
	return nil
}

// sized takes note of the size of the volume. Writes may wait for it, and whoever stops
// the front end for them.
func (v *volume) sized(b *backing, sizeBytes int64) { v.shaped(b, sizeBytes, v.geo.Load().Discard) }

// shaped is sized, and takes note of whether holes free anything on its disk.
func (v *volume) shaped(b *backing, sizeBytes int64, discard bool) {
	b.size.Lock()
	defer b.size.Unlock()
	g := *v.geo.Load() // the rest does not change
	b.fixed.DataBytes, g.SizeBytes, g.Discard = sizeBytes, sizeBytes, discard
	v.geo.Store(&g)
}

// show has the device show the size of the volume, where one is offered.
func (v *volume) show(ctx context.Context) error {
	v.admin.Lock()
	defer v.admin.Unlock()
	if v.offered.Load() == nil {
		return nil
	}
	if err := v.cfg.Frontend.Resize(ctx, *v.geo.Load()); err != nil {
		return fmt.Errorf("volume %d: %w", v.cfg.Number, err)
	}
	return nil
}

// lastEnd is where internal metadata ended, 0 when nobody knows.
func (v *volume) lastEnd() int64 {
	if v.cfg.Ends == nil {
		return 0
	}
	return v.cfg.Ends.Last()
}

// keepEnd keeps where internal metadata end. That it cannot is told: it matters
// only if the disk grows and the node starts again before a resize.
func (v *volume) keepEnd(m *meta.Store) {
	if v.cfg.Ends == nil || v.cfg.Metadata != MetadataInternal {
		return
	}
	if err := v.cfg.Ends.Keep(m.Layout().End); err != nil {
		v.r.log.Warn("where the metadata are is not kept", zap.Uint16("volume", v.cfg.Number), zap.Error(err))
	}
}
