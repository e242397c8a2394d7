package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/meta"
)

// AttachOptions say what to do with the disks that take the place of failed
// ones.
type AttachOptions struct {
	// Create writes new metadata: the disk is another one.
	Create bool
	// Force overwrites metadata, or cuts a filesystem, that is there.
	Force bool
}

// openWithin is how long the disks may take to be opened and their metadata to be
// read: nobody watches a disk before the engine has it.
const openWithin = 30 * time.Second

// Attach takes the disks of this node into use again that have failed: what is
// found now under their names. The copy is filled from the peer's; as Primary
// the resource goes on meanwhile. An error leaves the disks that could not be
// used as failed ones; one because of ctx leaves the attach to go on by itself. A disk
// that hangs while it is opened keeps no other command waiting: it is let go of when
// it answers, and no other Attach begins before.
func (r *Resource) Attach(ctx context.Context, o AttachOptions) error {
	if !r.opening.CompareAndSwap(false, true) {
		return fmt.Errorf("attach %s: disks are being opened for an attach before this one: %w", r.cfg.Resource, engine.ErrBadState)
	}
	done := make(chan error, 1)
	go func() {
		err := r.attach(o)
		r.opening.Store(false)
		done <- err
	}()
	limit := time.NewTimer(openWithin)
	defer limit.Stop()
	var err error
	select {
	case err = <-done:
	case <-limit.C:
		err = fmt.Errorf("a disk could not be taken into use within %v: %w", openWithin, block.ErrNoAnswer)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("attach %s: %w", r.cfg.Resource, err)
	}
	return nil
}

// FailDisks has all disks of this node answer everything from now on with an error,
// as disks do that have broken, until Attach opens them again; nil lets those be well
// that were not given up meanwhile. Nothing on them is touched. It is for rehearsals.
func (r *Resource) FailDisks(why error) {
	for _, v := range r.vols {
		for _, d := range v.on.Load().disks {
			d.Fail(why)
		}
	}
}

// attach opens the disks, which nobody may wait for, and has the engine take them.
func (r *Resource) attach(o AttachOptions) error {
	if err := r.mayAttach(); err != nil {
		return err
	}
	began := time.Now()
	found, err := r.openAll(o)
	if err != nil {
		return err
	}
	r.admin.Lock()
	defer r.admin.Unlock()
	r.running.Add(1)
	defer r.running.Done()
	if took := time.Since(began); took >= openWithin || r.ctx.Err() != nil {
		err := errors.Join(fmt.Errorf("nobody waits for the disks any more: they were opened in %v: %w", took.Round(time.Second), block.ErrClosed), closeAll(found))
		r.log.Info("disks were let go of", zap.Error(err))
		return err
	}
	disks := make([]*engine.VolumeConfig, len(r.vols))
	for i := range found {
		f := &found[i]
		r.vols[f.volume].on.Store(f.on)
		disks[f.volume] = &f.config
	}
	err = r.command(r.ctx, &engine.Event{Kind: engine.Attach, Disks: disks})
	switch {
	case errors.Is(err, engine.ErrNotTaken):
		return errors.Join(err, r.letGo(disks))
	case err != nil:
		return errors.Join(err, r.takeGeometries(found)) // the engine uses the disks, or has them fail
	}
	r.Connect()
	return r.takeGeometries(found)
}

// takeGeometries takes note of the sizes that disks have come to be laid out for after
// they had been given up, and of whether holes free anything on them.
func (r *Resource) takeGeometries(found []reopened) error {
	var errs []error
	for _, f := range found {
		v, g := r.vols[f.volume], f.config.Geometry
		was := v.geo.Load()
		if was.SizeBytes == g.SizeBytes && was.Discard == g.Discard {
			continue
		}
		v.shaped(f.on, g.SizeBytes, g.Discard)
		errs = append(errs, v.show(r.ctx))
	}
	return errors.Join(errs...)
}

func (r *Resource) mayAttach() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.eng.MayAttach()
}

// reopened is a disk that was opened in the place of a failed one.
type reopened struct {
	volume int
	on     *backing
	config engine.VolumeConfig
}

// openAll opens what is there now under the names of the disks that have failed.
func (r *Resource) openAll(o AttachOptions) (found []reopened, err error) {
	for i, x := range r.View().Volumes {
		if x.Disk.HasData() {
			continue
		}
		v := r.vols[i]
		on, vc, err := v.reopen(o)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("volume %d: %w", v.cfg.Number, err), closeAll(found))
		}
		found = append(found, reopened{i, on, vc})
	}
	return found, nil
}

func closeAll(found []reopened) error {
	var errs []error
	for _, f := range found {
		errs = append(errs, f.on.close())
	}
	return errors.Join(errs...)
}

// letGo closes disks that the engine did not take.
func (r *Resource) letGo(disks []*engine.VolumeConfig) error {
	var errs []error
	for i, vc := range disks {
		if vc != nil {
			errs = append(errs, r.vols[i].on.Swap(&backing{}).close())
		}
	}
	return errors.Join(errs...)
}

// reopen lets go of the disks of a volume, to which nobody speaks any more, and
// opens what is there now. One that hangs stays known until it answers: before that it
// cannot be opened again, nor be taken back.
func (v *volume) reopen(o AttachOptions) (*backing, engine.VolumeConfig, error) {
	old := v.on.Load()
	v.on.Store(&backing{left: old.hanging()})
	closed := old.close()
	if closed != nil {
		v.r.log.Info("the disk that failed: " + closed.Error())
	}
	if o.Create {
		if err := v.create(o.Force); err != nil {
			return nil, engine.VolumeConfig{}, errors.Join(err, closed)
		}
	}
	b, vc, err := v.open()
	if err != nil { // if it is the same disk, then perhaps because of that
		return nil, vc, errors.Join(err, closed)
	}
	return b, vc, nil
}

// create writes metadata for a volume as large as it has been.
func (v *volume) create(force bool) (err error) {
	b := &backing{}
	defer func() { err = errors.Join(err, b.close()) }()
	md, place, err := v.openDisks(b)
	if err != nil {
		return err
	}
	c := &v.r.cfg
	if size := b.data.Geometry().SizeBytes; size < v.geo.Load().SizeBytes {
		return fmt.Errorf("%s has %d bytes, the volume %d: %w", v.cfg.Disk, size, v.geo.Load().SizeBytes, engine.ErrBadGeometry)
	}
	_, err = meta.Create(md, meta.CreateParams{Placement: place, DataBytes: v.geo.Load().SizeBytes, Cluster: c.Cluster, Resource: c.Resource,
		Volume: v.cfg.Number, Node: c.Self, Peer: c.Peer, Force: force || place == meta.External})
	return err
}
