package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"hapair/mirror/front/holder"
)

// Stop withdraws the device if nobody holds it: what the page cache has for it
// is written out first. Otherwise it returns *holder.BusyError and the device
// stays up.
func (f *Fuse) Stop(ctx context.Context) error {
	f.acquire()
	defer f.release()
	d := f.device
	if d == nil {
		return nil
	}
	if d.loop != nil {
		if err := d.detach(ctx); err != nil {
			return fmt.Errorf("fuse %s: %w", f.config.Mountpoint, err)
		}
	}
	// Nobody can reach the device from here on.
	if err := d.demolish(); err != nil {
		return fmt.Errorf("fuse %s: %w", f.config.Mountpoint, err)
	}
	select {
	case <-d.settled:
	case <-ctx.Done():
		return fmt.Errorf("fuse %s: requests are still in flight: %w", f.config.Mountpoint, ctx.Err())
	}
	f.device = nil
	f.connected.Store(nil)
	f.log.Info("device withdrawn", zap.String("mountpoint", d.point))
	return nil
}

// detach lets go of the loop device if we are its last user. udev looks into
// every device that was just written to; it is waited for.
func (d *device) detach(ctx context.Context) error {
	limit := time.NewTimer(probeTimeMax)
	defer limit.Stop()
	for {
		err := d.tryDetach()
		var busy *holder.BusyError
		if !errors.As(err, &busy) || !passing(busy.Holders) {
			return err
		}
		select {
		case <-time.After(probePause):
		case <-limit.C:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// passing reports whether all holders are of the kind that leaves by itself:
// udev and its helpers, or somebody who was gone before we could look.
func passing(held []holder.Holder) bool {
	for _, h := range held {
		switch h.Command {
		case "(udev-worker)", "systemd-udevd", "udevd", "blkid", "probe-bcache":
		default:
			return false
		}
	}
	return true
}

// tryDetach leaves the last word to the kernel: whoever opens the device after
// the list of holders was made keeps it up.
func (d *device) tryDetach() error {
	held, err := d.holders()
	if err != nil {
		return err
	}
	if len(held) > 0 {
		return &holder.BusyError{Path: d.path(), Holders: held}
	}
	if err := d.loop.sync(); err != nil {
		return err
	}
	free, err := d.loop.clear()
	if err != nil {
		return err
	}
	if !free {
		held, err := d.holders()
		return errors.Join(&holder.BusyError{Path: d.path(), Holders: held}, err)
	}
	return nil
}

// Abort withdraws the device whatever its state: requests in flight and all
// that follow fail with EIO at its users, the mount goes, and the loop device
// detaches as soon as its last user lets go. A Start or Stop under way fails.
// It takes at most abortTimeMax.
func (f *Fuse) Abort(ctx context.Context) error {
	limit := time.NewTimer(abortTimeMax)
	defer limit.Stop()
	f.aborts.Add(1)
	defer f.aborts.Add(-1)
	if d := f.connected.Load(); d != nil {
		d.cut()
	}
	select {
	case <-f.turn:
	case <-limit.C:
		return f.unfinished(true, abortTimeMax.String())
	}
	defer f.release()
	if f.device == nil {
		return nil
	}
	return f.drop(ctx, limit)
}

// dropCut takes down a device that an Abort has cut off and had to leave, because it did
// not get its turn in time.
func (f *Fuse) dropCut(ctx context.Context) error {
	if f.device == nil || !f.device.server.aborted.Load() {
		return nil
	}
	limit := time.NewTimer(abortTimeMax)
	defer limit.Stop()
	return f.drop(ctx, limit)
}

// drop forgets the device and takes it down.
func (f *Fuse) drop(ctx context.Context, limit *time.Timer) error {
	d := f.device
	f.device = nil
	f.connected.Store(nil)
	f.log.Warn("device aborted", zap.String("mountpoint", d.point))
	return f.demolish(ctx, d, limit)
}

// demolish takes an aborted device down, and waits a little for what is in
// flight.
func (f *Fuse) demolish(ctx context.Context, d *device, limit *time.Timer) error {
	d.server.aborted.Store(true)
	done := make(chan error, 1)
	go func() { done <- d.demolish() }()
	for settled := d.settled; done != nil || settled != nil; {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("fuse %s: %w", f.config.Mountpoint, err)
			}
			done = nil
			limit.Reset(settleTime)
		case <-settled:
			settled = nil
		case <-limit.C:
			return f.unfinished(done != nil, abortTimeMax.String())
		case <-ctx.Done():
			return f.unfinished(done != nil, ctx.Err().Error())
		}
	}
	return nil
}

// unfinished judges an Abort that ran out of time. Requests that are still at
// the Handler end when they end, and nobody waits for them; a device that is
// still there is an error.
func (f *Fuse) unfinished(there bool, why string) error {
	if !there {
		return nil
	}
	return fmt.Errorf("fuse %s: the kernel has not let go of the device (%s); its I/O fails all the same", f.config.Mountpoint, why)
}

// demolish takes down what was built, in an order that cannot wait for our own
// service: the connection first, so that the rest finds its I/O failing. It
// may be called again after an error.
func (d *device) demolish() error {
	var err error
	if d.link != "" {
		err = errors.Join(err, d.removeLink())
	}
	if d.mounted {
		if uerr := unmount(d.point); uerr != nil {
			return errors.Join(err, uerr)
		}
		d.mounted = false
		if d.server != nil {
			go d.settle()
		}
	}
	if d.fd >= 0 && d.server == nil {
		err = errors.Join(err, unix.Close(d.fd))
		d.fd = -1
	}
	if d.loop != nil {
		err = errors.Join(err, d.dropLoop())
	}
	err = errors.Join(err, d.order.release())
	if d.touched {
		err = errors.Join(err, os.Remove(d.point))
		d.touched = false
	}
	if d.guard != nil {
		err = errors.Join(err, d.guard.release())
		d.guard = nil
	}
	return err
}

func (d *device) dropLoop() error {
	l := d.loop
	d.loop = nil
	_, cerr := l.clear()
	return errors.Join(cerr, l.close())
}

// removeLink removes the link unless it has become somebody else's.
func (d *device) removeLink() error {
	link := d.link
	d.link = ""
	to, err := os.Readlink(link)
	if errors.Is(err, os.ErrNotExist) || err == nil && d.loop != nil && to != d.loop.path() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the link: %w", err)
	}
	if err := os.Remove(link); err != nil {
		return fmt.Errorf("remove the link: %w", err)
	}
	return nil
}

// settle is a goroutine that waits for the end of all requests. Only then is
// the descriptor closed: a late completion must not write to whatever gets its
// number next.
func (d *device) settle() {
	d.server.wait()
	if err := d.server.file.Close(); err != nil {
		d.server.log.Warn("cannot close /dev/fuse", zap.Error(err))
	}
	close(d.settled)
}
