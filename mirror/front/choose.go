package front

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"hapair/mirror/front/export"
	"hapair/mirror/front/fuse"
)

// Options say for which volume a front end is wanted, and where its traces in
// the file system go. Empty directories mean the defaults.
type Options struct {
	Resource string
	Volume   int

	DeviceDir string // links <DeviceDir>/<resource>/<volume>; default /dev/hapair
	FuseDir   string // mount points; default /run/hapair/fuse
	SocketDir string // export's sockets; default /run/hapair/nbd

	Log *zap.Logger // nil: no log
}

// Where front ends put things when Options do not say.
const (
	DefaultDeviceDir = "/dev/hapair"
	DefaultFuseDir   = "/run/hapair/fuse"
	DefaultSocketDir = "/run/hapair/nbd"
)

// ErrNotImplemented: a front end that this build knows by name only.
var ErrNotImplemented = errors.New("not implemented yet")

// ErrUnknownKind: no front end has this name.
var ErrUnknownKind = errors.New("unknown front end")

// maker is one front end as Choose sees it.
type maker struct {
	kind   string
	usable func() error // nil error: it works on this machine
	build  func(Options) Frontend
}

func notImplemented() error { return ErrNotImplemented }

// makers are the front ends in the order auto tries them: what is fastest and
// survives a restart of the agent first, what every machine has last.
var makers = []maker{
	{kind: "ublk", usable: notImplemented},
	{kind: "nbd", usable: notImplemented},
	{kind: "fuse", usable: fuse.Usable, build: func(o Options) Frontend {
		return fuse.New(fuse.Config{
			Mountpoint: filepath.Join(o.FuseDir, o.name()),
			Link:       filepath.Join(o.DeviceDir, o.Resource, strconv.Itoa(o.Volume)),
			Log:        o.Log,
		})
	}},
	{kind: "export", usable: func() error { return nil }, build: func(o Options) Frontend {
		return export.New(export.Config{
			Socket: filepath.Join(o.SocketDir, o.name()+".sock"),
			Name:   o.Resource + "/" + strconv.Itoa(o.Volume),
			Log:    o.Log,
		})
	}},
}

// name is the volume's name as a file name.
func (o Options) name() string { return o.Resource + "-" + strconv.Itoa(o.Volume) }

// Choose makes the front end of a kind: "fuse", "export", or "auto" (also "")
// for the first that works on this machine. why is a sentence for the log and
// the status: what was taken, and what was passed over because of what. A kind
// that does not work here is an error, never replaced by another.
func Choose(kind string, opts Options) (f Frontend, why string, err error) {
	if err := opts.complete(); err != nil {
		return nil, "", err
	}
	if kind == "" || kind == "auto" {
		return choose(makers, opts)
	}
	for _, m := range makers {
		if m.kind != kind {
			continue
		}
		if err := m.usable(); err != nil {
			return nil, "", fmt.Errorf("front end %s: %w", kind, err)
		}
		return m.build(opts), kind + ": as configured", nil
	}
	return nil, "", fmt.Errorf("front end %q, known are auto, ublk, nbd, fuse, export: %w", kind, ErrUnknownKind)
}

// choose takes the first that works.
func choose(from []maker, opts Options) (Frontend, string, error) {
	var passed []string
	for _, m := range from {
		err := m.usable()
		if err == nil {
			why := m.kind + ": the first that works here"
			if len(passed) > 0 {
				why += " (" + strings.Join(passed, "; ") + ")"
			}
			return m.build(opts), why, nil
		}
		passed = append(passed, m.kind+": "+err.Error())
	}
	return nil, "", fmt.Errorf("no front end works on this machine (%s)", strings.Join(passed, "; "))
}

// complete fills in defaults and refuses names that are no file names.
func (o *Options) complete() error {
	if o.Resource == "" || o.Resource == "." || o.Resource == ".." || strings.ContainsAny(o.Resource, "/\x00") {
		return fmt.Errorf("front end: resource name %q cannot be a file name", o.Resource)
	}
	if o.Volume < 0 {
		return fmt.Errorf("front end of %s: volume %d, the least is 0", o.Resource, o.Volume)
	}
	for dir, standard := range map[*string]string{
		&o.DeviceDir: DefaultDeviceDir, &o.FuseDir: DefaultFuseDir, &o.SocketDir: DefaultSocketDir,
	} {
		if *dir == "" {
			*dir = standard
		}
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	o.Log = o.Log.With(zap.String("resource", o.Resource), zap.Int("volume", o.Volume))
	return nil
}
