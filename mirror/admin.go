package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hapair/mirror/engine"
)

// command brings an event that is answered by a Reply.
func (r *Resource) command(ctx context.Context, ev *engine.Event) error {
	ch := make(chan error, 1)
	r.mu.Lock()
	r.mu.replies[ev.Kind] = ch
	r.mu.Unlock()
	r.step(ev)
	select {
	case err := <-ch:
		return err
	case <-ctx.Done():
		return fmt.Errorf("resource %s: %w", r.cfg.Resource, context.Cause(ctx))
	}
}

// Promote makes this node Primary under a tenure that the ledger granted, and
// offers the devices. I/O waits until the lease of that tenure is held. It
// returns the devices' paths in the order of the volumes, and at once when
// already promoted so. Where they cannot all be offered none is, but for those
// that somebody holds open already, and the node is Primary all the same: Promote
// is to be called again.
func (r *Resource) Promote(ctx context.Context, tenure uint64, force bool) ([]string, error) {
	r.admin.Lock()
	defer r.admin.Unlock()
	if r.View().Tenure != tenure {
		if err := r.command(ctx, &engine.Event{Kind: engine.Promote, Tenure: tenure, Force: force}); err != nil {
			return nil, fmt.Errorf("promote %s: %w", r.cfg.Resource, err)
		}
	}
	var paths []string
	for _, v := range r.vols {
		path, err := v.offer(ctx)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("promote %s: %w", r.cfg.Resource, err), r.withdrawAll(ctx))
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// withdrawWithin is how long devices may take to go that were offered in vain.
const withdrawWithin = 10 * time.Second

// withdrawAll takes the devices away after a promotion that failed, perhaps because
// its ctx has ended.
func (r *Resource) withdrawAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawWithin)
	defer cancel()
	var errs []error
	for _, v := range slices.Backward(r.vols) {
		errs = append(errs, v.withdraw(ctx))
	}
	return errors.Join(errs...)
}

// Demote withdraws the devices, flushes both copies and becomes Secondary. It
// returns *front.BusyError, and changes nothing, while a device is held open.
func (r *Resource) Demote(ctx context.Context) error {
	r.admin.Lock()
	defer r.admin.Unlock()
	for i := len(r.vols) - 1; i >= 0; i-- {
		if err := r.vols[i].withdraw(ctx); err != nil {
			for _, v := range r.vols[i+1:] {
				if _, again := v.offer(ctx); again != nil {
					err = errors.Join(err, again)
				}
			}
			return fmt.Errorf("demote %s: %w", r.cfg.Resource, err)
		}
	}
	if err := r.command(ctx, &engine.Event{Kind: engine.Demote}); err != nil {
		return fmt.Errorf("demote %s: %w", r.cfg.Resource, err)
	}
	return nil
}

// Abort becomes Secondary without waiting for anybody: requests fail, devices
// go away. For a node that has lost its authority.
func (r *Resource) Abort(ctx context.Context, why error) error {
	r.abortMu.Lock()
	defer r.abortMu.Unlock()
	// The devices go first: the engine's answers then find nobody to retry.
	var err error
	for _, v := range r.vols {
		err = errors.Join(err, v.abort(ctx))
	}
	return errors.Join(err, r.command(ctx, &engine.Event{Kind: engine.Abort, Err: why}))
}

// AllVolumes stands for every volume of a resource.
const AllVolumes = -1

// Invalidate declares the local copy of a volume, given by its number, or of
// AllVolumes worthless; the peer's is fetched as a whole.
func (r *Resource) Invalidate(ctx context.Context, volume int) error {
	ev := &engine.Event{Kind: engine.Invalidate}
	if volume != AllVolumes {
		ev.Only = true
		if ev.Volume = r.indexOf(volume); ev.Volume < 0 {
			return fmt.Errorf("invalidate %s: there is no volume %d: %w", r.cfg.Resource, volume, engine.ErrBadState)
		}
	}
	r.admin.Lock()
	defer r.admin.Unlock()
	if err := r.command(ctx, ev); err != nil {
		return fmt.Errorf("invalidate %s: %w", r.cfg.Resource, err)
	}
	r.Connect()
	return nil
}

// DiscardOptions say how a side of a split brain gives up.
type DiscardOptions struct {
	WithoutImage bool // what it holds is not kept
	Whole        bool // the copy is worth nothing: the peer's release knows no better
}

// DiscardData has what only this copy has overwritten where the next handshake
// finds a split brain, and keeps it aside. Connect follows.
func (r *Resource) DiscardData(ctx context.Context, o DiscardOptions) error {
	r.admin.Lock()
	defer r.admin.Unlock()
	keep := !o.WithoutImage && !r.cfg.Aside.Off && r.cfg.Aside.Dir != ""
	if keep && r.anyKept() {
		return fmt.Errorf("discard the data of %s: what this node gave up in an earlier split brain is kept yet: %w", r.cfg.Resource, ErrKept)
	}
	r.mu.Lock()
	err := r.mu.eng.MayDiscardData()
	before := r.mu.eng.Copies()
	r.mu.Unlock()
	if err == nil && keep {
		if err = r.keepAside(); err != nil {
			return fmt.Errorf("keep what %s gives up: %w", r.cfg.Resource, err)
		}
	}
	if err == nil {
		err = r.giveUp(ctx, o.Whole)
		if err != nil && keep && !r.mayBeGivenUp(ctx, before) {
			err = errors.Join(err, r.dropAside())
		}
	}
	if err != nil {
		return fmt.Errorf("discard the data of %s: %w", r.cfg.Resource, err)
	}
	return nil
}

// giveUp has the engine do it. It answers at once, unless the ledger is asked first.
func (r *Resource) giveUp(ctx context.Context, whole bool) error {
	if whole {
		return r.command(ctx, &engine.Event{Kind: engine.Invalidate})
	}
	return r.command(context.WithoutCancel(ctx), &engine.Event{Kind: engine.DiscardData})
}

// mayBeGivenUp reports whether a command that ended with an error may have given up
// something all the same: nobody waited for its end, or a disk failed on the way.
func (r *Resource) mayBeGivenUp(ctx context.Context, before []engine.Super) bool {
	return ctx.Err() != nil || !slices.EqualFunc(before, r.copies(), func(a, b engine.Super) bool { return a.Gen == b.Gen })
}

// PauseSync and ResumeSync hold back the resync this node is the source of.
func (r *Resource) PauseSync(ctx context.Context, pause bool) error {
	kind := engine.Resume
	if pause {
		kind = engine.Pause
	}
	return r.command(ctx, &engine.Event{Kind: kind})
}
