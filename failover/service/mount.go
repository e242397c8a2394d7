package service

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"hapair/kernel/mounts"
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

type mount struct {
	cfg   Mount
	flags uintptr
	data  string
	deps  Deps
	log   *zap.Logger
	calls calls
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

// sight is what a mount looks like from outside.
type sight struct {
	point   string // the mount point as the kernel spells it
	device  string
	rdev    uint64
	unknown error // why there is no device
}

// look finds the device and the mount point.
func (m *mount) look(ctx context.Context) (sight, error) {
	s := sight{device: m.cfg.Device}
	if s.device == "" {
		s.device, s.unknown = m.deps.device(m.cfg.Volume)
	}
	if s.device == "" && s.unknown == nil {
		s.unknown = fmt.Errorf("volume %d has no device on this node", m.cfg.Volume)
	}
	return slowly(ctx, &m.calls, "look at", m.cfg.Path, func() (sight, error) {
		s := s
		if s.unknown == nil {
			s.rdev, s.unknown = blockNumber(s.device)
		}
		var err error
		s.point, err = resolve(m.cfg.Path)
		return s, err
	})
}

func (m *mount) Start(ctx context.Context) error {
	if err := m.start(ctx); err != nil {
		return fmt.Errorf("mount %s: %w", m.cfg.Path, err)
	}
	return nil
}

func (m *mount) start(ctx context.Context) error {
	s, err := m.look(ctx)
	if err != nil {
		return err
	}
	if s.unknown != nil {
		return s.unknown
	}
	if done, err := m.vacant(ctx, s); done || err != nil {
		return err
	}
	kind := m.cfg.Type
	if kind == "" {
		kind, err = slowly(ctx, &m.calls, "read", s.device, func() (string, error) { return detectDevice(s.device) })
		var stuck *StuckError
		if err != nil && !errors.As(err, &stuck) {
			err = permanent{err}
		}
		if err != nil {
			return err
		}
	}
	if !m.cfg.NoFsck {
		if err := fsck(ctx, s.device, kind, m.log); err != nil {
			return err
		}
	}
	if err := m.calls.slowly(ctx, "make", m.cfg.Path, func() error { return makeDirectory(m.cfg.Path) }); err != nil {
		return fmt.Errorf("create mount point: %w", err)
	}
	return m.mount(ctx, s.device, kind)
}

// vacant reports whether the device is mounted as wanted already, and fails
// when anything is in the way of mounting it.
func (m *mount) vacant(ctx context.Context, s sight) (done bool, err error) {
	at, err := mountAt(s.point)
	if err != nil {
		return false, err
	}
	if at != nil && isOf(*at, s.rdev) {
		return true, nil
	}
	if at != nil {
		return false, &OtherMountError{Path: s.point, Source: at.Source, Type: at.Type, Want: s.device}
	}
	all, err := mounts.Read(mounts.Own)
	if err != nil {
		return false, err
	}
	for _, x := range mountsOf(all, s.rdev) {
		return false, &OtherMountError{Path: x.Point, Source: x.Source, Type: x.Type, Want: "to be mounted there but at " + s.point}
	}
	err = m.claim(ctx, s.device)
	if errors.Is(err, unix.EBUSY) {
		return false, fmt.Errorf("%w: %w", err, &BusyError{Path: s.device, Device: s.device, Holders: namespaceHolders(s.rdev)})
	}
	return false, err
}

// claim fails with unix.EBUSY while the block device is mounted or otherwise
// held exclusively, in any namespace.
func (m *mount) claim(ctx context.Context, device string) error {
	return m.calls.slowly(ctx, "claim", device, func() error {
		fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("claim %s: %w", device, err)
		}
		return unix.Close(fd)
	})
}

func (m *mount) mount(ctx context.Context, device, kind string) error {
	err := m.calls.slowly(ctx, "mount", m.cfg.Path, func() error {
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

func (m *mount) Monitor(ctx context.Context) (bool, error) {
	s, err := m.look(ctx)
	if err != nil {
		return false, err
	}
	at, err := mountAt(s.point)
	if err != nil || at == nil {
		return false, err
	}
	if s.unknown == nil && !isOf(*at, s.rdev) {
		return false, &OtherMountError{Path: s.point, Source: at.Source, Type: at.Type, Want: s.device}
	}
	if at.ReadOnly && m.flags&unix.MS_RDONLY == 0 {
		return true, &ReadOnlyError{Path: s.point}
	}
	return true, nil
}
