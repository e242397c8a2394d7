package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"hapair/mirror/aside"
	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/front"
	"hapair/mirror/genid"
	"hapair/mirror/state"
)

// AsideConfig says where what a victim of a split brain gives up is kept.
type AsideConfig struct {
	Dir   string // of the images of this resource
	Off   bool   // nothing is kept
	Bytes int64  // that the image of a volume may take; 0: what is free
	Free  int64  // bytes that stay free on the file system of Dir
	// View makes a front end that offers what is kept of a volume, read-only.
	View func(volume uint16) (front.Frontend, error)
}

// Kept is what is kept of one volume.
type Kept struct {
	Volume     uint16
	Phase      aside.Phase
	Why        string
	Taken      time.Time
	Peer       string // whose data took its place
	Since      int64  // as engine.Super
	Generation uint64
	SizeBytes  int64
	Blocks     int64
	UsedBytes  int64
	Device     string // where it is offered, "" when it is not
}

// ErrKept: an image is in the way, or not what is needed.
var ErrKept = errors.New("what is kept does not allow it")

// Kept lists what is kept, by volume.
func (r *Resource) Kept() (out []Kept) {
	for _, v := range r.vols {
		m := v.image()
		if m == nil {
			continue
		}
		s := m.State()
		k := Kept{Volume: v.cfg.Number, Phase: s.Phase, Why: s.Why, Taken: m.Header.Taken, Peer: m.Header.Peer, Since: m.Header.Since,
			Generation: m.Header.Generations[0], SizeBytes: m.Header.SizeBytes, Blocks: m.Blocks(), UsedBytes: m.Used()}
		if path := v.shown.Load(); path != nil {
			k.Device = *path
		}
		out = append(out, k)
	}
	return out
}

func (v *volume) image() *aside.Image {
	if d := v.on.Load().data; d != nil {
		return d.Image()
	}
	return nil
}

// limits bound the image of a volume, and tell when it is lost.
func (v *volume) limits() aside.Limits {
	a := &v.r.cfg.Aside
	return aside.Limits{Bytes: a.Bytes, Free: a.Free, Lost: func(err error) {
		v.r.cfg.Observer.Trouble(v.r.cfg.Resource, fmt.Sprintf("volume %d: the image of what was given up is incomplete from now on, and cannot be put back: %v", v.cfg.Number, err))
	}}
}

// rearm goes on keeping what an earlier life began to keep. One that is damaged, or is
// of another disk, is told, and does not keep the volume from its work. One that cannot
// be read now does: it may be whole, and would be found whole by a later life although
// what is overwritten in this one is not in it.
func (v *volume) rearm(b *backing) error {
	dir := v.r.cfg.Aside.Dir
	if dir == "" {
		return nil
	}
	m, err := aside.Open(dir, v.cfg.Number)
	switch {
	case errors.Is(err, aside.ErrNone):
		return nil
	case errors.Is(err, aside.ErrDamaged):
		v.r.log.Error("what was given up in a split brain cannot be put back", zap.Uint16("volume", v.cfg.Number), zap.Error(err))
		if err = aside.Discredit(dir, v.cfg.Number); err == nil {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("what was given up in a split brain is kept, and cannot be read; without it nothing may be overwritten: %w", err)
	}
	if m.Header.Device != b.fixed.Device.String() && m.State().Phase != aside.Incomplete {
		if err := m.SetState(aside.State{Phase: aside.Incomplete, Why: "the disk was exchanged"}); err != nil {
			v.r.log.Error("what was given up in a split brain", zap.Uint16("volume", v.cfg.Number), zap.Error(err))
		}
	}
	b.data.Keep(m, v.limits())
	return nil
}

// keepAside begins to keep what all volumes hold now. The caller has seen to it that
// nothing is at the disks. After an error nothing new is kept.
func (r *Resource) keepAside() error {
	r.mu.Lock()
	view, copies := r.mu.eng.View(), r.mu.eng.Copies()
	r.mu.Unlock()
	var needs []int64
	for i := range r.vols {
		needs = append(needs, needed(&view, i))
	}
	if err := r.roomAside(needs); err != nil {
		return err
	}
	for i, v := range r.vols {
		m, err := aside.Create(r.cfg.Aside.Dir, v.header(&copies[i]))
		if err != nil {
			return errors.Join(err, r.dropAside())
		}
		v.on.Load().data.Keep(m, v.limits())
	}
	return nil
}

// roomAside reports whether the images have room for so many bytes, by volume. All of
// them lie on one file system; who comes later has what is left.
func (r *Resource) roomAside(needs []int64) error {
	all := aside.Limits{Free: r.cfg.Aside.Free}
	free, err := all.Room(r.cfg.Aside.Dir, 0)
	if err != nil {
		return err
	}
	for i, v := range r.vols {
		room := free
		if each := r.cfg.Aside.Bytes; each > 0 {
			room = min(room, each)
		}
		if needs[i] > room {
			return fmt.Errorf("volume %d: up to %d bytes would be overwritten, and the image may take %d: %w", v.cfg.Number, needs[i], room, aside.ErrNoRoom)
		}
		free -= needs[i]
	}
	return nil
}

// needed is how much of a volume a resync is known to overwrite: what either has
// marked. Where all is compared it may be more; of that only what differs is written.
func needed(view *engine.View, i int) int64 {
	n := view.Volumes[i].DirtyBytes
	if r := view.Rival; r != nil && i < len(r.Volumes) {
		n += r.Volumes[i].DirtyBytes
	}
	return min(n, view.Volumes[i].SizeBytes)
}

func (v *volume) header(s *engine.Super) aside.Header {
	return aside.Header{Resource: v.r.cfg.Resource, Volume: v.cfg.Number, Node: v.r.cfg.Self, Peer: v.r.cfg.Peer, Device: v.on.Load().fixed.Device.String(),
		SizeBytes: v.geo.Load().SizeBytes, Taken: time.Now().UTC(), Disk: uint8(s.Disk), LastPrimary: s.LastPrimary, FullSync: s.FullSync, Since: s.Since, Elder: s.Elder,
		Generations: s.Gen.Words()}
}

func superOf(h *aside.Header) engine.Super {
	return engine.Super{Gen: genid.FromWords(h.Generations), Disk: state.Disk(h.Disk), LastPrimary: h.LastPrimary, FullSync: h.FullSync, Since: h.Since, Elder: h.Elder}
}

// dropAside frees what is kept, of every volume; what cannot be read as well. The files
// go first, durably: what is overwritten from then on is saved for nobody, and a power
// cut must not leave an image that lacks it.
func (r *Resource) dropAside() error {
	var errs []error
	for _, v := range r.vols {
		err := aside.Remove(r.cfg.Aside.Dir, v.cfg.Number)
		if d := v.on.Load().data; d != nil && err == nil {
			err = d.Release()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// anyKept reports whether there is something to drop, readable or not.
func (r *Resource) anyKept() bool {
	return len(r.Kept()) > 0 || slices.ContainsFunc(r.vols, func(v *volume) bool { return aside.Exists(r.cfg.Aside.Dir, v.cfg.Number) })
}

// DropKept frees what is kept. Policies decide again.
func (r *Resource) DropKept(ctx context.Context) error {
	r.admin.Lock()
	defer r.admin.Unlock()
	if r.undoing.Load() {
		return fmt.Errorf("drop what %s gave up: it is being put back: %w", r.cfg.Resource, ErrKept)
	}
	if !r.anyKept() {
		return aside.ErrNone
	}
	if err := r.hideKept(ctx); err != nil {
		return err
	}
	if err := r.dropAside(); err != nil {
		return fmt.Errorf("drop what %s gave up: %w", r.cfg.Resource, err)
	}
	r.configure()
	return nil
}

// ShowKept offers what is kept as read-only devices, and returns their paths by volume.
func (r *Resource) ShowKept(ctx context.Context) error {
	r.admin.Lock()
	defer r.admin.Unlock()
	for _, v := range r.vols {
		m := v.image()
		if m == nil {
			return fmt.Errorf("volume %d: %w", v.cfg.Number, aside.ErrNone)
		}
		if s := m.State(); s.Phase == aside.Incomplete {
			return fmt.Errorf("volume %d: the image is incomplete, and shows a mixture (%s): %w", v.cfg.Number, s.Why, ErrKept)
		}
		if v.shown.Load() != nil {
			continue
		}
		f, err := r.cfg.Aside.View(v.cfg.Number)
		if err != nil {
			return fmt.Errorf("volume %d: %w", v.cfg.Number, err)
		}
		g := *v.geo.Load()
		g.SizeBytes, g.ReadOnly = m.Header.SizeBytes, true
		path, err := f.Start(ctx, keptView{v}, g)
		if err != nil {
			return fmt.Errorf("volume %d: %w", v.cfg.Number, err)
		}
		v.view = f
		v.shown.Store(&path)
	}
	return nil
}

// keptView shows what is kept, whatever disk the volume has by now.
type keptView struct{ v *volume }

// Submit answers reads.
func (k keptView) Submit(req *block.Request) {
	d := k.v.on.Load().data
	if d == nil {
		req.Answer(fmt.Errorf("%s: the disk was let go of: %w", req, block.ErrClosed))
		return
	}
	d.View().Submit(req)
}

// HideKept withdraws them; *front.BusyError says who uses one.
func (r *Resource) HideKept(ctx context.Context) error {
	r.admin.Lock()
	defer r.admin.Unlock()
	if !slices.ContainsFunc(r.vols, func(v *volume) bool { return v.shown.Load() != nil }) {
		return fmt.Errorf("nothing of %s is offered: %w", r.cfg.Resource, ErrKept)
	}
	return r.hideKept(ctx)
}

func (r *Resource) hideKept(ctx context.Context) error {
	for _, v := range r.vols {
		if v.shown.Load() == nil {
			continue
		}
		if err := v.view.Stop(ctx); err != nil {
			return fmt.Errorf("volume %d: %w", v.cfg.Number, err)
		}
		v.shown.Store(nil)
	}
	return nil
}

// abortKept withdraws them at the end, whoever uses one.
func (r *Resource) abortKept(ctx context.Context) (err error) {
	for _, v := range r.vols {
		if v.shown.Swap(nil) != nil {
			err = errors.Join(err, v.view.Abort(ctx))
		}
	}
	return err
}

// undone reports whether what was given up was put back, and is kept yet.
func (r *Resource) undone() bool {
	return slices.ContainsFunc(r.Kept(), func(k Kept) bool { return k.Phase == aside.Undone })
}
