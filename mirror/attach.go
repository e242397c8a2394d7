package mirror

import (
	"context"
	"errors"
	"fmt"

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

// Attach takes the disks of this node into use again that have failed: what is
// found now under their names. The copy is filled from the peer's; as Primary
// the resource goes on meanwhile. An error leaves the disks that could not be
// used as failed ones.
func (r *Resource) Attach(ctx context.Context, o AttachOptions) error {
	r.admin.Lock()
	defer r.admin.Unlock()
	r.mu.Lock()
	err := r.mu.eng.MayAttach()
	r.mu.Unlock()
	if err != nil {
		return fmt.Errorf("attach %s: %w", r.cfg.Resource, err)
	}
	disks := make([]*engine.VolumeConfig, len(r.vols))
	for i, x := range r.View().Volumes {
		if x.Disk.HasData() {
			continue
		}
		v := r.vols[i]
		vc, err := v.reopen(o)
		if err != nil {
			return fmt.Errorf("attach volume %d of %s: %w", v.cfg.Number, r.cfg.Resource, err)
		}
		disks[i] = vc
	}
	if err := r.command(ctx, &engine.Event{Kind: engine.Attach, Disks: disks}); err != nil {
		err = fmt.Errorf("attach %s: %w", r.cfg.Resource, err)
		if errors.Is(err, engine.ErrNotTaken) {
			err = errors.Join(err, r.letGo(disks))
		}
		return err // else the engine uses them, or has them fail
	}
	r.Connect()
	return nil
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
// opens what is there now.
func (v *volume) reopen(o AttachOptions) (*engine.VolumeConfig, error) {
	closed := v.on.Swap(&backing{}).close()
	if closed != nil {
		v.r.log.Info("the disk that failed: " + closed.Error())
	}
	if o.Create {
		if err := v.create(o.Force); err != nil {
			return nil, errors.Join(err, closed)
		}
	}
	b, vc, err := v.open()
	if err != nil { // if it is the same disk, then perhaps because of that
		return nil, errors.Join(err, closed)
	}
	v.on.Store(b)
	return &vc, nil
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
