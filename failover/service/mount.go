package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Mount is a filesystem on a volume of the resource.
type Mount struct {
	Path    string // absolute; created when missing
	Type    string // "" or "auto": read from the device
	Options string // as in fstab
	Device  string // "": the device of Volume
	Volume  int
	NoFsck  bool // mount ext filesystems without e2fsck -p
	// BusyWait is how long Stop retries while the filesystem is in use.
	// 0: DefaultBusyWait; below 0: one attempt.
	BusyWait time.Duration
}

// DefaultBusyWait bridges the moment in which a process that just ended still
// has its files.
const DefaultBusyWait = 2 * time.Second

const busyRetry = 50 * time.Millisecond

// BusyError is returned when a filesystem cannot be unmounted because it is in
// use.
type BusyError struct {
	Path    string
	Device  string // "" when unknown
	Holders []Holder
	Mounts  []string // mounted below Path
}

// Error names everything that holds the filesystem.
func (e *BusyError) Error() string {
	var who []string
	for _, h := range e.Holders {
		who = append(who, h.String())
	}
	for _, m := range e.Mounts {
		who = append(who, "mounted below it: "+m)
	}
	if len(who) == 0 {
		who = []string{"nobody that /proc shows; a kernel service such as nfsd?"}
	}
	return fmt.Sprintf("%s is in use by %s", e.Path, strings.Join(who, ", "))
}

// OtherMountError is returned when the mount point carries a mount that is not
// this service's, or the device is mounted somewhere else.
type OtherMountError struct {
	Path         string // where
	Source, Type string // what is mounted there
	Want         string // the device or path that was expected
}

// Error says what is in the way.
func (e *OtherMountError) Error() string {
	return fmt.Sprintf("%s carries %s (%s), not %s", e.Path, e.Source, e.Type, e.Want)
}

// ReadOnlyError is returned by Monitor, together with running, when the
// filesystem has gone read-only by itself after an error.
type ReadOnlyError struct{ Path string }

// Error says where to look.
func (e *ReadOnlyError) Error() string {
	return e.Path + " has gone read-only after a filesystem error; the kernel log says which"
}

// StuckError is returned when a system call did not return before the context
// ended. The call goes on; the service's next operation waits for it.
type StuckError struct {
	What, Path string
	Cause      error
}

// Error says what still goes on.
func (e *StuckError) Error() string {
	return fmt.Sprintf("%s %s: still under way when time ran out: %v", e.What, e.Path, e.Cause)
}

// Unwrap returns why it was not waited for any longer.
func (e *StuckError) Unwrap() error { return e.Cause }

type mount struct {
	cfg   Mount
	flags uintptr
	data  string
	deps  Deps
	log   *zap.Logger
	stuck chan struct{} // closed when the call that was left alone returns; nil: none
}

func newMount(cfg Mount, deps Deps) (Movable, error) {
	bad := func(format string, args ...any) (Movable, error) {
		return nil, fmt.Errorf("mount %q: %w", cfg.Path, fmt.Errorf(format, args...))
	}
	switch {
	case !filepath.IsAbs(cfg.Path) || filepath.Clean(cfg.Path) == "/":
		return bad("the path must be absolute and not /")
	case cfg.Device != "" && !filepath.IsAbs(cfg.Device):
		return bad("device %q: must be an absolute path", cfg.Device)
	case cfg.Device == "" && deps.Device == nil:
		return bad("no device")
	case cfg.Volume < 0:
		return bad("volume %d: must not be negative", cfg.Volume)
	}
	flags, data, err := parseOptions(cfg.Options)
	if err != nil {
		return bad("%w", err)
	}
	cfg.Path = filepath.Clean(cfg.Path)
	if cfg.Type == "auto" {
		cfg.Type = ""
	}
	if cfg.BusyWait == 0 {
		cfg.BusyWait = DefaultBusyWait
	}
	log := deps.Logger.With(zap.String("mount", cfg.Path), zap.Int("volume", cfg.Volume))
	return &mount{cfg: cfg, flags: flags, data: data, deps: deps, log: log}, nil
}

func (m *mount) Name() string { return "mount:" + m.cfg.Path }

// device returns the path and number of the block device.
func (m *mount) device() (path string, rdev uint64, err error) {
	path = m.cfg.Device
	if path == "" {
		if path, err = m.deps.device(m.cfg.Volume); err != nil {
			return "", 0, err
		}
	}
	if path == "" {
		return "", 0, fmt.Errorf("volume %d has no device on this node", m.cfg.Volume)
	}
	rdev, err = blockNumber(path)
	return path, rdev, err
}

// point returns the mount point as the kernel spells it.
func (m *mount) point() (string, error) {
	real, err := filepath.EvalSymlinks(m.cfg.Path)
	if errors.Is(err, os.ErrNotExist) {
		return m.cfg.Path, nil
	}
	if err != nil {
		return "", fmt.Errorf("resolve mount point %s: %w", m.cfg.Path, err)
	}
	return real, nil
}

func (m *mount) Start(ctx context.Context) error {
	if err := m.start(ctx); err != nil {
		return fmt.Errorf("mount %s: %w", m.cfg.Path, err)
	}
	return nil
}

func (m *mount) start(ctx context.Context) error {
	if err := m.await(ctx); err != nil {
		return err
	}
	device, rdev, err := m.device()
	if err != nil {
		return err
	}
	if done, err := m.vacant(device, rdev); done || err != nil {
		return err
	}
	kind := m.cfg.Type
	if kind == "" {
		if kind, err = detectDevice(device); err != nil {
			return permanent{err}
		}
	}
	if !m.cfg.NoFsck {
		if err := fsck(ctx, device, kind, m.log); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(m.cfg.Path, 0o755); err != nil {
		return fmt.Errorf("create mount point: %w", err)
	}
	return m.mount(ctx, device, kind)
}

// vacant reports whether the device is mounted as wanted already, and fails
// when anything is in the way of mounting it.
func (m *mount) vacant(device string, rdev uint64) (done bool, err error) {
	point, err := m.point()
	if err != nil {
		return false, err
	}
	at, err := mountAt(point)
	if err != nil {
		return false, err
	}
	if at != nil && at.isOf(rdev) {
		return true, nil
	}
	if at != nil {
		return false, &OtherMountError{Path: point, Source: at.Source, Type: at.Type, Want: device}
	}
	all, err := readMounts(ownMounts)
	if err != nil {
		return false, err
	}
	for _, x := range mountsOf(all, rdev) {
		return false, &OtherMountError{Path: x.Path, Source: x.Source, Type: x.Type, Want: "to be mounted there but at " + point}
	}
	err = claimable(device)
	if errors.Is(err, unix.EBUSY) {
		return false, fmt.Errorf("%w: %w", err, &BusyError{Path: device, Device: device, Holders: namespaceHolders(rdev)})
	}
	return false, err
}

func (m *mount) mount(ctx context.Context, device, kind string) error {
	err := m.slowly(ctx, "mount", func() error {
		return unix.Mount(device, m.cfg.Path, kind, m.flags, m.data)
	})
	op := fmt.Errorf("mount %s as %s with options %q: %w", device, kind, m.cfg.Options, err)
	switch {
	case err == nil:
		m.log.Info("mounted", zap.String("device", device), zap.String("type", kind))
		return nil
	case errors.Is(err, unix.ENODEV):
		return permanent{fmt.Errorf("%w: this kernel does not know %s", op, kind)}
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: wrong type, options or superblock; the kernel log says which", op)
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: the device refuses writes; is this node Primary?", op)
	default:
		return op
	}
}

// slowly runs a system call that no signal interrupts, but waits no longer
// than ctx.
func (m *mount) slowly(ctx context.Context, what string, call func() error) error {
	var err error
	done := make(chan struct{})
	go func() {
		err = call()
		close(done)
	}()
	select {
	case <-done:
		return err
	case <-ctx.Done():
		m.stuck = done
		return &StuckError{What: what, Path: m.cfg.Path, Cause: context.Cause(ctx)}
	}
}

// await waits for a call that was left alone. Its result is moot: what is
// mounted is read anew.
func (m *mount) await(ctx context.Context) error {
	if m.stuck == nil {
		return nil
	}
	select {
	case <-m.stuck:
		m.stuck = nil
		return nil
	case <-ctx.Done():
		return &StuckError{What: "earlier call on", Path: m.cfg.Path, Cause: context.Cause(ctx)}
	}
}

func (m *mount) Monitor(context.Context) (bool, error) {
	point, err := m.point()
	if err != nil {
		return false, err
	}
	at, err := mountAt(point)
	if err != nil || at == nil {
		return false, err
	}
	if device, rdev, err := m.device(); err == nil && !at.isOf(rdev) {
		return false, &OtherMountError{Path: point, Source: at.Source, Type: at.Type, Want: device}
	}
	if at.ReadOnly && m.flags&unix.MS_RDONLY == 0 {
		return true, &ReadOnlyError{Path: point}
	}
	return true, nil
}
