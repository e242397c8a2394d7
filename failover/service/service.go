// Package service starts and stops what moves with a resource: mounts, systemd
// units, commands, OCF resource agents and addresses. Each is a Movable; a Group starts them in
// order on the Primary and stops them in reverse.
//
// What OCF calls a resource is a service here. See DESIGN.md.
package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/godbus/dbus/v5"
	"go.uber.org/zap"

	"hapair/failover/vip"
	"hapair/kernel/program"
)

// Movable is one service. Start of a started one and Stop of a stopped one
// succeed. Its methods are called one at a time and give up when ctx ends; what
// a started system call still does then is awaited by the next call.
type Movable interface {
	// Name identifies the service in its group, such as "mount:/srv/pg".
	Name() string
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
	// Monitor reports whether the service runs. An error means it cannot be
	// told, or, when it is broken, that the service is there and does not work.
	Monitor(ctx context.Context) (running bool, err error)
}

// Forcible is a Movable that can be stopped without regard for what uses it,
// as when the authority to write is lost. It kills and cuts off; it returns
// only when nothing can reach the data through the service any more, or with
// an error.
type Forcible interface {
	StopForced(ctx context.Context) error
}

// Spec says what a service is. Exactly one of its pointers is set.
type Spec struct {
	Mount   *Mount
	Systemd *Systemd
	Exec    *Exec
	OCF     *OCF
	Address *vip.Config // its Logger and Event are filled in by New when nil
}

// Deps is what services are given by their resource. Only Resource has no
// default.
type Deps struct {
	Resource string
	Node     string
	// Device returns the path of the resource's device for a volume number,
	// such as /dev/hapair/pg/0. It is asked at every start. nil: unknown.
	Device func(volume int) (string, error)
	Logger *zap.Logger // nil: silent
	// Guard takes addresses away when the node may not serve any more, whatever
	// has become of this process. nil: nobody does.
	Guard Guard
	// Systemd opens a connection to a bus on which systemd answers. nil: the
	// system bus, or systemd's own socket.
	Systemd func(ctx context.Context) (*dbus.Conn, error)
}

// Guard is told of an address before it is taken and after it was given up. It
// is safe for concurrent use; its errors say that it does not guard.
type Guard interface {
	Hold(vip.Site) error
	Release(vip.Site) error
}

func (d Deps) device(volume int) (string, error) {
	if d.Device == nil {
		return "", nil
	}
	path, err := d.Device(volume)
	if err != nil {
		return "", fmt.Errorf("find the device of volume %d: %w", volume, err)
	}
	return path, nil
}

// New checks spec and makes the service. It touches nothing.
func New(spec Spec, deps Deps) (Movable, error) {
	if deps.Logger == nil {
		deps.Logger = zap.NewNop()
	}
	deps.Logger = deps.Logger.With(zap.String("resource", deps.Resource))
	if n := spec.count(); n != 1 {
		return nil, fmt.Errorf("a service is exactly one of mount, systemd, exec, ocf and address; this one names %d", n)
	}
	switch {
	case spec.Mount != nil:
		return newMount(*spec.Mount, deps)
	case spec.Systemd != nil:
		return newUnit(*spec.Systemd, deps)
	case spec.Exec != nil:
		return newExec(*spec.Exec, deps)
	case spec.OCF != nil:
		return newOCF(*spec.OCF, deps)
	default:
		return newAddress(*spec.Address, deps)
	}
}

func (s Spec) count() (n int) {
	for _, set := range []bool{s.Mount != nil, s.Systemd != nil, s.Exec != nil, s.OCF != nil, s.Address != nil} {
		if set {
			n++
		}
	}
	return n
}

// permanent marks an error that a further attempt cannot mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

func isPermanent(err error) bool {
	var p permanent
	return errors.As(err, &p)
}

// broken marks the error of a check that had an answer: the service does not work,
// though something of it may run.
type broken struct{ error }

func (b broken) Unwrap() error { return b.error }

func isBroken(err error) bool {
	var b broken
	return errors.As(err, &b)
}

// settle is how long a stopping process is given between the polite and the
// final signal.
const settle = program.Settle
