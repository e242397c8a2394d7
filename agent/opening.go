package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/agent/config"
	"hapair/mirror"
	"hapair/mirror/block"
	"hapair/mirror/front"
	"hapair/mirror/meta"
)

// opening is a resource whose disks are being opened.
type opening struct {
	r   *resource
	mc  mirror.Config
	err error
}

// openResources attaches the resources, their disks beside each other. One bad disk does
// not take the others down, and one that hangs does not keep them waiting for ever.
func (a *agent) openResources(ctx context.Context) {
	all := make([]opening, len(a.cfg.Resources))
	var disks sync.WaitGroup
	for i := range all {
		o, rc := &all[i], &a.cfg.Resources[i]
		a.stage("starting: front ends of "+rc.Name, stopPatience)
		if o.r, o.mc, o.err = a.prepare(rc); o.err == nil {
			disks.Go(func() { o.r.mirror, o.err = mirror.Open(ctx, o.mc) })
		}
	}
	a.stage("starting: disks", stopPatience)
	disks.Wait()
	for i := range all {
		o, rc := &all[i], &a.cfg.Resources[i]
		if o.err == nil {
			o.err = o.r.attached(ctx)
		}
		if o.err != nil {
			a.notAttached(rc, advised(o.err))
			continue
		}
		a.res[o.r.name] = o.r
		a.order = append(a.order, o.r)
		a.onStop("resource "+o.r.name, o.r.close)
	}
}

// advised says what becomes of a disk that hangs.
func advised(err error) error {
	if errors.Is(err, block.ErrNoAnswer) {
		return fmt.Errorf("%w; an event tells when it does, then systemctl restart hapair on this node attaches it", err)
	}
	return err
}

// prepare makes all of a resource but its mirror, and says of what that is to be made.
func (a *agent) prepare(rc *config.Resource) (*resource, mirror.Config, error) {
	r := &resource{a: a, name: rc.Name, conf: rc, peer: a.cfg.Peer(a.self).Name, look: make(chan struct{}, 1)}
	r.mu.down = time.Now()
	r.verify = newVerifier(r)
	mc := mirror.Config{Cluster: a.cfg.Cluster, Resource: rc.Name, Self: a.self, Peer: r.peer, Release: version, Ledger: mirrorLedger{a}, Dialer: dialer{a, r.peer},
		Clock: mirror.Clock(a.clock), Observer: observer{r}, Logger: a.log, Silence: a.cfg.Timing.Link, PassOn: rc.OnIOError == config.PassOnError,
		Spread:   rc.Paths == config.PathsAll,
		Settings: settingsOf(rc).mirror(), Aside: r.asideConfig(), OpenWithin: a.openWithin}
	r.set.Store(settingsOf(rc))
	for i := range rc.Volumes {
		f, why, err := r.frontend(i)
		if err != nil {
			return nil, mc, fmt.Errorf("resource %s, volume %d: %w", rc.Name, i, err)
		}
		r.chosen = append(r.chosen, why)
		a.log.Info("front end", zap.String("resource", rc.Name), zap.Int("volume", i), zap.String("frontend", f.Kind()), zap.String("because", why))
		mc.Volumes = append(mc.Volumes, mirror.VolumeConfig{Number: uint16(i), Disk: rc.Volumes[i].Disk.For(a.self),
			Metadata: rc.Volumes[i].Metadata.For(a.self), Ends: meta.EndFileOf(a.cfg.StateDir, rc.Name, i), Frontend: f, Wrap: wrapDisk})
	}
	if len(rc.Services) == 0 {
		return r, mc, nil
	}
	var err error
	r.group, err = r.newGroup(rc)
	return r, mc, err
}

// attached completes a resource whose mirror is there.
func (r *resource) attached(ctx context.Context) error {
	r.open = newOpenBy(r)
	if err := r.newController(); err != nil {
		return errors.Join(err, r.mirror.Close(ctx))
	}
	return nil
}

// frontend makes the front end of a volume; auto takes the first that works
// and says why. What an earlier life of this agent left of it is taken away.
func (r *resource) frontend(volume int) (front.Frontend, string, error) {
	f, why, err := front.Choose(string(r.conf.Frontend), front.Options{Resource: r.name, Volume: volume, DeviceDir: r.a.cfg.DeviceDir,
		FuseDir: filepath.Join(r.a.cfg.RunDir, "fuse"), SocketDir: filepath.Join(r.a.cfg.RunDir, "export"), Log: r.a.log})
	if err != nil {
		return nil, "", err
	}
	if c, ok := f.(interface{ Clean() error }); ok {
		if err := c.Clean(); err != nil {
			r.a.log.Warn("what an earlier life left of the device stays for now", zap.String("resource", r.name), zap.Error(err))
		}
	}
	return f, why, nil
}
