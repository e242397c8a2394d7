package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"hapair/kernel/mounts"
)

func (m *mount) Stop(ctx context.Context) error {
	if err := m.stop(ctx, m.unmount); err != nil {
		return fmt.Errorf("unmount %s: %w", m.cfg.Path, err)
	}
	return nil
}

// StopForced kills what uses the filesystem and detaches it from the tree.
// What the kernel still has to write goes to the device: make the device fail
// its I/O first if it must not be written any more.
func (m *mount) StopForced(ctx context.Context) error {
	if err := m.stop(ctx, m.force); err != nil {
		return fmt.Errorf("unmount %s by force: %w", m.cfg.Path, err)
	}
	return nil
}

// stop finds what is mounted, lets off take it away, and makes sure that
// nobody has it in another namespace.
func (m *mount) stop(ctx context.Context, off func(context.Context, mounts.Mount) error) error {
	s, err := m.look(ctx)
	if err != nil {
		return err
	}
	at, err := mountAt(s.point)
	if err != nil {
		return err
	}
	if at != nil {
		ours, err := ours(*at, s)
		if err != nil {
			return err
		}
		if ours {
			if err := off(ctx, *at); err != nil {
				return err
			}
			m.log.Info("unmounted", zap.String("device", at.Source))
		}
	}
	if s.unknown != nil {
		return nil
	}
	return m.released(ctx, s)
}

// ours tells this service's mount from another. Without a device to compare
// with, any block device at the mount point is ours.
func ours(at mounts.Mount, s sight) (bool, error) {
	if s.unknown == nil && isOf(at, s.rdev) {
		return true, nil
	}
	other := &OtherMountError{Path: at.Point, Source: at.Source, Type: at.Type, Want: "this service's device"}
	if s.unknown != nil {
		if unix.Major(at.Dev) != 0 || at.Type == "btrfs" {
			return true, nil
		}
		return false, other
	}
	all, err := mounts.Read(mounts.Own)
	if err != nil {
		return false, err
	}
	if len(mountsOf(all, s.rdev)) > 0 {
		return false, other // ours lies beneath it
	}
	return false, nil
}

func (m *mount) unmount(ctx context.Context, at mounts.Mount) error {
	deadline := time.Now().Add(m.cfg.BusyWait)
	for {
		err := m.detach(ctx, at.Point, 0)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if time.Now().After(deadline) || !pause(ctx, busyRetry) {
			return m.busy(ctx, at)
		}
	}
}

func (m *mount) detach(ctx context.Context, path string, flags int) error {
	err := m.calls.slowly(ctx, "unmount", path, func() error {
		return unix.Unmount(path, flags|unix.UMOUNT_NOFOLLOW)
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // no longer a mount point
	}
	return err
}

// pause waits and reports whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (m *mount) busy(ctx context.Context, at mounts.Mount) error {
	found, err := below(at.Point)
	b := &BusyError{Path: at.Point, Device: at.Source, Holders: holdersOf(m.fileDev(ctx, at), at.Point), Mounts: found}
	return errors.Join(b, err)
}

// fileDev is the device number that files of the mount carry. It has a time of
// its own: who holds a filesystem is to be told when ctx has ended, too.
func (m *mount) fileDev(ctx context.Context, at mounts.Mount) uint64 {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settle)
	defer cancel()
	dev, err := slowly(ctx, &m.calls, "look at", at.Point, func() (uint64, error) { return fileNumber(at.Point) })
	if err != nil {
		return at.Dev // the same, but for btrfs
	}
	return dev
}

// force tries the polite way once, then kills the holders, then detaches.
func (m *mount) force(ctx context.Context, at mounts.Mount) error {
	dev := m.fileDev(ctx, at)
	for range 3 {
		err := m.detach(ctx, at.Point, 0)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		m.kill(holdersOf(dev, at.Point))
		if !pause(ctx, busyRetry) {
			break
		}
	}
	if err := m.detach(ctx, at.Point, unix.MNT_DETACH); err != nil {
		return err
	}
	return m.gone(ctx, at, dev)
}

// gone waits until no killed process has a file of the detached filesystem.
func (m *mount) gone(ctx context.Context, at mounts.Mount, dev uint64) error {
	deadline := time.Now().Add(max(m.cfg.BusyWait, settle))
	for {
		left := holdersOf(dev, at.Point)
		if len(left) == 0 {
			return nil
		}
		m.kill(left)
		if time.Now().After(deadline) || !pause(ctx, busyRetry) {
			return &BusyError{Path: at.Point, Device: at.Source, Holders: left}
		}
	}
}

func (m *mount) kill(all []Holder) {
	for _, h := range all {
		if h.PID <= 1 || h.PID == os.Getpid() {
			continue
		}
		err := unix.Kill(h.PID, unix.SIGKILL)
		m.log.Warn("killed a process that uses the filesystem", zap.Stringer("holder", h), zap.Error(err))
	}
}

// released waits until the kernel has let go of the device, and names who has
// it mounted elsewhere if it does not.
func (m *mount) released(ctx context.Context, s sight) error {
	deadline := time.Now().Add(m.cfg.BusyWait)
	for {
		err := m.claim(ctx, s.device)
		var stuck *StuckError
		if errors.As(err, &stuck) {
			return err
		}
		if !errors.Is(err, unix.EBUSY) {
			return nil // free; or gone, or cut off: no filesystem can reach it through us
		}
		if time.Now().After(deadline) || !pause(ctx, busyRetry) {
			break
		}
	}
	if holders := namespaceHolders(s.rdev); len(holders) > 0 {
		return &BusyError{Path: s.device, Device: s.device, Holders: holders}
	}
	m.log.Warn("device is still claimed, though mounted nowhere", zap.String("device", s.device))
	return nil
}
