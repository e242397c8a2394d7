package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"hapair/mirror/aside"
	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/front"
	"hapair/mirror/meta"
	"hapair/mirror/stall"
	"hapair/mirror/store"
)

// openPatience is how long a disk that somebody else has is tried to be opened: udev, or
// who is about to let go of it. Who has it for longer keeps it.
const openPatience = 3 * time.Second

// MetadataInternal places the metadata at the end of the backing device.
const MetadataInternal = "internal"

// VolumeConfig is one volume of a resource.
type VolumeConfig struct {
	Number   uint16
	Disk     string         // backing device or file
	Metadata string         // MetadataInternal, or a device or file of its own
	Frontend front.Frontend // how a Primary offers it
	// Ends keeps where internal metadata end; nil: nobody knows.
	Ends Ends
	// Wrap, when set, is put around every backing disk as it is opened; the
	// lab's fault layer goes in here. path is the disk's.
	Wrap func(path string, d block.Disk) block.Disk
}

// volume is one attached volume. Submit makes it the Handler of its front end.
type volume struct {
	r     *Resource
	index int
	cfg   VolumeConfig

	on  atomic.Pointer[backing]        // exchanged by Attach
	geo atomic.Pointer[block.Geometry] // of the volume; its size changes

	// one start or stop of the front end at a time. A device writes what it has before it
	// stops, which may wait for metadata to be laid out anew: nothing there takes it.
	admin sync.Mutex

	offered atomic.Pointer[string] // where it is offered, nil when it is not
	view    front.Frontend         // of what is kept of a split brain, while shown is set
	shown   atomic.Pointer[string] // where that is offered
	aborts  atomic.Uint64          // so far
}

// backing is what a volume is kept on. It has no disks when they were let go of
// after they had failed: nothing is asked of them any more.
type backing struct {
	disks []*stall.Disk // the data's and, where that is another, the metadata's
	files []*store.File // below the disks, likewise
	data  *aside.Disk   // around one of disks
	meta  *meta.Store
	fixed meta.Super // of the superblock: what the engine does not change

	// left are disks that hung, and were let go of with requests that they have not
	// answered yet. They close by themselves.
	left []*stall.Disk

	size sync.Mutex // guards fixed.DataBytes, nothing else of fixed changes; never held across I/O
}

// described is fixed as it is now.
func (b *backing) described() meta.Super {
	b.size.Lock()
	defer b.size.Unlock()
	return b.fixed
}

// waiting is for how many ticks the disks have not answered their oldest request.
func (b *backing) waiting() (ticks int) {
	for _, d := range b.disks {
		d.Tick()
		ticks = max(ticks, d.Waiting())
	}
	if b.data != nil { // the files of an image may hang as well
		b.data.Tick()
		ticks = max(ticks, b.data.Waiting())
	}
	return ticks
}

// stalled says what has not gone on for so long.
func (v *volume) stalled(limit time.Duration) error {
	if d := v.on.Load().data; d != nil && time.Duration(d.Waiting())*tickEvery >= limit {
		return fmt.Errorf("what a write overwrites could not be saved for %v, from the disk or in %s", limit, v.r.cfg.Aside.Dir)
	}
	return fmt.Errorf("no answer for %v", limit)
}

// abandon fails whatever the disks have not answered.
func (b *backing) abandon(why error) {
	for _, d := range b.disks {
		d.Abandon(why)
	}
	if b.data != nil {
		b.data.Abandon(why)
	}
}

// hanging are the disks that have requests yet which were given up.
func (b *backing) hanging() (found []*stall.Disk) {
	for _, d := range slices.Concat(b.left, b.disks) {
		if d.Abandoned() > 0 {
			found = append(found, d)
		}
	}
	return found
}

// close lets go of the disks. The error says what they have not answered yet.
func (b *backing) close() error {
	var errs []error
	for _, d := range b.left {
		if n := d.Abandoned(); n > 0 {
			errs = append(errs, fmt.Errorf("%d requests are at a disk yet that was let go of before: %w", n, block.ErrNoAnswer))
		}
	}
	if b.data != nil {
		errs = append(errs, b.data.Leave())
	}
	for _, d := range b.disks {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// attach opens the disks of a volume and reads its metadata.
func attach(r *Resource, i int, c *VolumeConfig) (*volume, engine.VolumeConfig, error) {
	v := &volume{r: r, index: i, cfg: *c}
	v.on.Store(&backing{})
	b, vc, err := v.open()
	if err != nil {
		return nil, vc, err
	}
	v.on.Store(b)
	v.geo.Store(&vc.Geometry)
	return v, vc, nil
}

// openDisk opens one disk of b, which releases it.
func (v *volume) openDisk(b *backing, path string) (*stall.Disk, error) {
	s, err := store.Open(path, store.Options{Patience: openPatience})
	if err != nil {
		return nil, err
	}
	if direct, why := s.Direct(); !direct {
		v.r.log.Info("direct I/O is not possible here; writes go through the page cache", zap.String("disk", path), zap.String("because", why))
	}
	var d block.Disk = s
	if v.cfg.Wrap != nil {
		d = v.cfg.Wrap(path, d)
	}
	w := stall.New(d)
	b.disks, b.files = append(b.disks, w), append(b.files, s)
	return w, nil
}

// open opens the disks of a volume and reads its metadata. On an error it has
// released them.
func (v *volume) open() (*backing, engine.VolumeConfig, error) {
	b := &backing{}
	vc, err := v.openInto(b)
	if err != nil {
		return nil, vc, errors.Join(err, b.close())
	}
	return b, vc, nil
}

// openDisks opens the disk for the data and the one for the metadata, which may
// be the same.
func (v *volume) openDisks(b *backing) (md *stall.Disk, place meta.Placement, err error) {
	if md, err = v.openDisk(b, v.cfg.Disk); err != nil {
		return nil, meta.Internal, err
	}
	b.data = aside.New(md)
	if v.cfg.Metadata == MetadataInternal {
		return md, meta.Internal, nil
	}
	md, err = v.openDisk(b, v.cfg.Metadata)
	return md, meta.External, err
}

func (v *volume) openInto(b *backing) (engine.VolumeConfig, error) {
	var vc engine.VolumeConfig
	md, place, err := v.openDisks(b)
	if err != nil {
		return vc, err
	}
	c, disk := &v.r.cfg, b.data
	ms, snap, err := meta.Open(md, place, meta.Identity{Cluster: c.Cluster, Resource: c.Resource, Volume: v.cfg.Number, Node: c.Self, LastEnd: v.lastEnd()})
	if err != nil {
		return vc, err
	}
	for _, repair := range snap.Repairs {
		v.r.log.Warn("metadata was damaged and has been made good", zap.Uint16("volume", v.cfg.Number), zap.String("repair", repair))
	}
	if place == meta.External {
		if err := meta.Alone(disk, &snap.Super); err != nil {
			return vc, fmt.Errorf("%w: hactl move-metadata %s ends it", err, c.Resource)
		}
	}
	if size := disk.Geometry().SizeBytes; snap.Super.DataBytes > size {
		return vc, fmt.Errorf("the metadata describe %d bytes, %s has %d", snap.Super.DataBytes, v.cfg.Disk, size)
	}
	v.keepEnd(ms)
	b.meta, b.fixed = ms, snap.Super // the engine keeps every request within the data
	if err := v.rearm(b); err != nil {
		return vc, err
	}
	geo := disk.Geometry()
	geo.SizeBytes = snap.Super.DataBytes
	geo.MaxTransferBytes, geo.VolatileCache = block.MaxTransferBytes, true // holes free something where they do on this disk
	floor, room := b.allows()
	return engine.VolumeConfig{Number: v.cfg.Number, Geometry: geo, Super: fromMeta(&snap.Super), Bitmap: snap.Bitmap, Log: snap.Log, Floor: floor, Room: room}, nil
}

func fromMeta(s *meta.Super) engine.Super {
	return engine.Super{Gen: s.Generations, Disk: s.Disk, Clean: s.Flags&meta.Clean != 0, LastPrimary: s.Flags&meta.WasPrimary != 0,
		AssumeClean: s.Flags&meta.AssumeClean != 0, FullSync: s.Flags&meta.FullSync != 0, Tenure: s.Token, Since: s.Since, Elder: s.Elder}
}

// superblock is the on-disk form of what the engine wants recorded.
func (b *backing) superblock(s *engine.Super) meta.Super {
	m := b.described()
	m.Generations, m.Disk, m.Token, m.Flags, m.Since, m.Elder = s.Gen, s.Disk, s.Tenure, 0, s.Since, s.Elder
	for flag, on := range map[meta.Flags]bool{meta.Clean: s.Clean, meta.WasPrimary: s.LastPrimary, meta.AssumeClean: s.AssumeClean, meta.FullSync: s.FullSync} {
		if on {
			m.Flags |= flag
		}
	}
	return m
}

// Submit is the upper door; Unplug starts what was Plugged.
func (v *volume) Submit(req *block.Request) {
	if long(req) {
		if err := block.Check(req, *v.geo.Load()); err != nil {
			req.Answer(err)
			return
		}
		split(req, v.enter)
		return
	}
	v.enter(req)
}

func (v *volume) enter(req *block.Request) {
	plugged := req.Plugged // req is not ours any more when the step returns
	v.r.stepPlugged(&engine.Event{Kind: engine.Submitted, Volume: v.index, Request: req})
	if !plugged {
		v.r.Unplug()
	}
}

// Unplug starts what was submitted Plugged.
func (v *volume) Unplug() { v.r.Unplug() }

// frontend returns the front end while the volume is offered.
func (v *volume) frontend() front.Frontend {
	if v.offered.Load() == nil {
		return nil
	}
	return v.cfg.Frontend
}

// offer starts the front end, unless it runs.
func (v *volume) offer(ctx context.Context) (string, error) {
	v.admin.Lock()
	defer v.admin.Unlock()
	if path := v.offered.Load(); path != nil {
		return *path, nil
	}
	before := v.aborts.Load()
	path, err := v.cfg.Frontend.Start(ctx, v, *v.geo.Load())
	if err != nil {
		return "", fmt.Errorf("volume %d: start %s: %w", v.cfg.Number, v.cfg.Frontend.Kind(), err)
	}
	v.offered.Store(&path)
	if v.aborts.Load() != before { // it has taken the device away, or will
		v.offered.Store(nil)
		return "", fmt.Errorf("volume %d: start %s: aborted: %w", v.cfg.Number, v.cfg.Frontend.Kind(), block.ErrClosed)
	}
	return path, nil
}

// withdraw stops the front end; *front.BusyError passes through.
func (v *volume) withdraw(ctx context.Context) error {
	v.admin.Lock()
	defer v.admin.Unlock()
	if v.offered.Load() == nil {
		return nil
	}
	if err := v.cfg.Frontend.Stop(ctx); err != nil {
		return fmt.Errorf("volume %d: %w", v.cfg.Number, err)
	}
	v.offered.Store(nil)
	return nil
}

// abort takes the front end away whatever its state, even while it is being
// started or stopped.
func (v *volume) abort(ctx context.Context) error {
	v.aborts.Add(1)
	err := v.cfg.Frontend.Abort(ctx)
	v.offered.Store(nil)
	return err
}

// device is where the volume is offered, "" when it is not. It does not block.
func (v *volume) device() string {
	if path := v.offered.Load(); path != nil {
		return *path
	}
	return ""
}

func (v *volume) close() error { return v.on.Load().close() }
