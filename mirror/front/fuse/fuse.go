package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"hapair/mirror/block"
	"hapair/mirror/front/holder"
)

// Config names a device.
type Config struct {
	// Mountpoint is the path of the FUSE file. It must be this volume's own;
	// beside it stands a lock, <Mountpoint>.lock, while the device is up.
	Mountpoint string
	// Link is a symbolic link made to the device; "" for none.
	Link string
	Log  *zap.Logger // nil: no log
}

// Fuse offers one volume. Its methods may be called concurrently; but for the
// beginning of Abort they run one at a time.
type Fuse struct {
	config Config
	log    *zap.Logger
	turn   chan struct{} // holds a token while nobody has the turn
	device *device       // nil: not started; of whoever has the turn

	// connected is the device that has a connection, also while it is being
	// built or withdrawn: Abort cuts it without waiting for a turn.
	connected atomic.Pointer[device]
	aborts    atomic.Int32 // under way: what is connected meanwhile is cut at once
}

// device is what a start has built so far, so that a failed start, a stop and
// an abort take it down alike.
type device struct {
	point   string
	guard   *guard
	touched bool
	order   order
	fd      int // /dev/fuse; -1: none
	mounted bool
	server  *server
	loop    *loop
	link    string
	settled chan struct{} // closed when nothing is at the Handler and fd is closed
}

func newDevice() *device {
	return &device{fd: -1, order: order{home: -1, share: -1}, settled: make(chan struct{})}
}

// New makes a front end that offers nothing yet.
func New(c Config) *Fuse {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	f := &Fuse{config: c, log: c.Log, turn: make(chan struct{}, 1)}
	f.release()
	return f
}

func (f *Fuse) acquire() { <-f.turn }
func (f *Fuse) release() { f.turn <- struct{}{} }

// Kind is "fuse".
func (*Fuse) Kind() string { return "fuse" }

// Usable reports why this machine cannot have such a device; nil if it can.
func Usable() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	for _, need := range []struct {
		path string
		dev  uint64
	}{{fuseDevice, unix.Mkdev(10, 229)}, {loopControl, unix.Mkdev(10, 237)}} {
		fd, _, err := node(need.path, unix.S_IFCHR, need.dev, unix.O_RDWR)
		if err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("close %s: %w", need.path, err)
		}
	}
	return nil
}

// Start offers the volume as a block device and returns its path. What a
// killed predecessor left at the mount point is removed; a living one is an
// error.
func (f *Fuse) Start(ctx context.Context, h block.Handler, g block.Geometry) (string, error) {
	f.acquire()
	defer f.release()
	if err := f.dropCut(ctx); err != nil {
		return "", err
	}
	if f.device != nil {
		return "", fmt.Errorf("fuse %s: already started", f.config.Mountpoint)
	}
	if g.SizeBytes <= 0 || g.SizeBytes%block.SectorBytes != 0 || g.LogicalBlockBytes < block.SectorBytes || g.LogicalBlockBytes > 4096 {
		return "", fmt.Errorf("fuse %s: geometry of %d bytes in blocks of %d: %w", f.config.Mountpoint, g.SizeBytes, g.LogicalBlockBytes, block.ErrRange)
	}
	d := newDevice()
	if err := f.build(ctx, d, h, g); err != nil {
		err = errors.Join(fmt.Errorf("fuse %s: %w", f.config.Mountpoint, err), d.demolish())
		f.connected.Store(nil)
		return "", err
	}
	f.device = d
	f.log.Info("device offered", zap.String("device", d.loop.path()), zap.String("link", d.link), zap.Int64("bytes", g.SizeBytes))
	return d.path(), nil
}

// Clean takes away what a killed predecessor left: a dead mount, and a link to
// a loop device that somebody else may get. It does nothing once started.
func (f *Fuse) Clean() error {
	f.acquire()
	defer f.release()
	if f.device != nil {
		return nil
	}
	d := newDevice()
	err := d.prepare(f.config.Mountpoint)
	if st, lerr := os.Lstat(f.config.Link); err == nil && f.config.Link != "" && lerr == nil && st.Mode()&os.ModeSymlink != 0 {
		err = os.Remove(f.config.Link)
	}
	if err = errors.Join(err, d.demolish()); err != nil {
		return fmt.Errorf("fuse %s: clean up: %w", f.config.Mountpoint, err)
	}
	return nil
}

// path is what an operator opens.
func (d *device) path() string {
	if d.link != "" {
		return d.link
	}
	return d.loop.path()
}

// build goes through the steps of a start.
func (f *Fuse) build(ctx context.Context, d *device, h block.Handler, g block.Geometry) error {
	if err := d.prepare(f.config.Mountpoint); err != nil {
		return err
	}
	if err := d.connect(h, g, f.log); err != nil {
		return err
	}
	f.connected.Store(d)
	if f.aborts.Load() > 0 {
		d.cut()
	}
	// To attach the device is to flush it, which takes as long as the Handler
	// likes.
	finished := context.AfterFunc(ctx, func() { d.cut() })
	err := d.finish(ctx, g, f.config.Link)
	if !finished() {
		err = errors.Join(err, context.Cause(ctx))
	}
	if d.server.aborted.Load() { // the kernel attaches what it could not flush
		err = errors.Join(err, errAborted)
	}
	return err
}

// errAborted: the device was cut off while it was being started.
var errAborted = errors.New("aborted")

// connect mounts the file and starts to serve it.
func (d *device) connect(h block.Handler, g block.Geometry, log *zap.Logger) error {
	var err error
	if d.order, err = newOrder(); err != nil {
		return err
	}
	fd, _, err := node(fuseDevice, unix.S_IFCHR, unix.Mkdev(10, 229), unix.O_RDWR)
	if err != nil {
		return err
	}
	if fd, err = d.order.above(fd); err != nil {
		return err
	}
	d.fd = fd
	if err := mount(fd, d.point, "hapair"); err != nil {
		return err
	}
	d.mounted = true
	if d.server, err = newServer(fd, h, g, log); err != nil {
		return err
	}
	d.server.run()
	return nil
}

// finish makes a block device of what is served.
func (d *device) finish(ctx context.Context, g block.Geometry, link string) error {
	select {
	case err := <-d.server.ready:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errNotGreeted, ctx.Err())
	case <-time.After(5 * time.Second):
		return errNotGreeted
	}
	if err := d.attach(ctx, g.LogicalBlockBytes, g.ReadOnly); err != nil {
		return err
	}
	return d.makeLink(link)
}

// cut ends the connection: whoever waits for the device, in the kernel or here,
// sees his request fail. What was built is still to be taken down.
func (d *device) cut() {
	d.server.aborted.Store(true)
	if err := unmount(d.point); err != nil {
		d.server.log.Error("connection not cut", zap.Error(err))
	}
}

// prepare takes the mount point.
func (d *device) prepare(path string) error {
	point, err := makeMountpoint(path)
	if err != nil {
		return err
	}
	if d.guard, err = lockMountpoint(point + ".lock"); err != nil {
		return err
	}
	d.point = point
	if err := clearStale(point); err != nil {
		return err
	}
	d.touched = true
	return touch(point)
}

// makeLink points the link to the device, replacing an older one at once.
func (d *device) makeLink(link string) error {
	if link == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return fmt.Errorf("make the link's directory: %w", err)
	}
	if st, err := os.Lstat(link); err == nil && st.Mode()&os.ModeSymlink == 0 {
		return fmt.Errorf("%s is there and is no symbolic link: it is left alone", link)
	}
	fresh := link + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove an unfinished link: %w", err)
	}
	if err := os.Symlink(d.loop.path(), fresh); err != nil {
		return fmt.Errorf("make the link: %w", err)
	}
	if err := os.Rename(fresh, link); err != nil {
		return errors.Join(fmt.Errorf("make the link: %w", err), os.Remove(fresh))
	}
	d.link = link
	return nil
}

// Holders lists who has the device open, mounted, or below another device.
func (f *Fuse) Holders() ([]holder.Holder, error) {
	f.acquire()
	defer f.release()
	if f.device == nil || f.device.loop == nil {
		return nil, nil
	}
	return f.device.holders()
}

func (d *device) holders() ([]holder.Holder, error) {
	return holder.OfBlockDevice(d.loop.dev(), holder.Own{FD: d.loop.fd})
}
