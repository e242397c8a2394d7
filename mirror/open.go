package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"hapair/mirror/block"
	"hapair/mirror/engine"
)

// opened is what an open came to.
type opened struct {
	r   *Resource
	err error
}

// Open attaches the disks of a resource. Nothing flows before Start. Disks that hang are
// waited for no longer than Config.OpenWithin, with an error that wraps
// block.ErrNoAnswer, nor after ctx: they are let go of when they answer, nobody else can
// open them before, and the Observer is told then, unless ctx has ended.
func Open(ctx context.Context, cfg Config) (*Resource, error) {
	within, began := cmp.Or(cfg.OpenWithin, openWithin), time.Now()
	done, late := make(chan opened), make(chan struct{})
	var at atomic.Pointer[VolumeConfig]
	go func() {
		o := open(ctx, cfg, &at)
		select {
		case done <- o:
		case <-late:
			o.letGo(ctx, &cfg, time.Since(began))
		}
	}()
	limit := time.NewTimer(within)
	defer limit.Stop()
	var err error
	select {
	case o := <-done:
		return o.r, o.err
	case <-limit.C:
		err = fmt.Errorf("not within %v: %w", within, block.ErrNoAnswer)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	close(late)
	if v := at.Load(); v != nil {
		err = fmt.Errorf("volume %d on %s, metadata %s: %w", v.Number, v.Disk, v.Metadata, err)
	}
	return nil, fmt.Errorf("attach %s: %w", cfg.Resource, err)
}

// letGo closes what nobody waits for any more, and tells that the disks answer.
func (o opened) letGo(ctx context.Context, cfg *Config, took time.Duration) {
	err := o.err
	if o.r != nil {
		o.r.cancel()
		err = o.r.closeDisks()
	}
	if ctx.Err() != nil {
		return
	}
	took = took.Round(time.Second)
	if err != nil {
		cfg.Observer.Trouble(cfg.Resource, fmt.Sprintf("its disks, which hung, have answered after %v, and cannot be used: %v", took, err))
		return
	}
	cfg.Observer.Trouble(cfg.Resource, fmt.Sprintf("its disks, which hung, have answered after %v, and are free: the next start of the agent attaches them", took))
}

// open opens the disks, for however long that takes; at is the volume that it has come to.
func open(ctx context.Context, cfg Config, at *atomic.Pointer[VolumeConfig]) opened {
	r := &Resource{cfg: cfg, log: cfg.Logger.With(zap.String("resource", cfg.Resource))}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.done = r.diskDone
	r.settings.Store(&cfg.Settings)
	r.diskTimeout.Store(int64(cfg.Settings.DiskTimeout))
	r.mu.replies = map[engine.EventKind]chan error{}
	ec := engine.Config{Resource: cfg.Resource, Self: cfg.Self, Peer: cfg.Peer, Release: cfg.Release, Record: cfg.Record, NewID: newID, Wall: wall, PassOn: cfg.PassOn, Settings: cfg.Settings.Settings}
	for i := range cfg.Volumes {
		at.Store(&cfg.Volumes[i])
		v, vc, err := attach(r, i, &cfg.Volumes[i])
		if err != nil {
			r.cancel()
			return opened{err: errors.Join(fmt.Errorf("attach volume %d of %s: %w", cfg.Volumes[i].Number, cfg.Resource, err), r.closeDisks())}
		}
		r.vols = append(r.vols, v)
		ec.Volumes = append(ec.Volumes, vc)
	}
	ec.PutBack = r.undone()
	r.mu.eng = engine.New(ec)
	r.sink.r = r
	r.link = newLink(r)
	return opened{r: r}
}
