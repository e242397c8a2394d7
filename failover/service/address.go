package service

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"hapair/failover/vip"
)

// address is a service address.
type address struct {
	name  string
	cfg   vip.Config
	vip   *vip.Address
	guard Guard // nil: none
	log   *zap.Logger
}

func newAddress(cfg vip.Config, deps Deps) (Movable, error) {
	if cfg.Logger == nil {
		cfg.Logger = deps.Logger
	}
	a, err := vip.New(cfg)
	if err != nil {
		return nil, err
	}
	return &address{name: "address:" + cfg.Prefix.String(), cfg: cfg, vip: a, guard: deps.Guard, log: deps.Logger}, nil
}

func (a *address) Name() string { return a.name }

// Start takes the address once it is guarded. One that cannot be guarded is taken
// all the same: clients are better served by it than by none. Where the lease has lapsed
// meanwhile it waits for that, until ctx ends, as the services below it do whose device
// is frozen: to take them down again would be worse.
func (a *address) Start(ctx context.Context) error {
	if a.guard != nil {
		a.warn("an address is not guarded: it stays when this agent dies", a.guard.Hold(a.cfg.Site))
	}
	for {
		err := a.vip.Start(ctx)
		if !errors.Is(err, vip.ErrMayNotHold) {
			return err
		}
		select {
		case <-time.After(leaseLook):
		case <-ctx.Done():
			return err
		}
	}
}

// leaseLook is how often an address that waits for the lease is tried.
const leaseLook = 20 * time.Millisecond

// Stop gives the address up; the guard knows it until it is gone.
func (a *address) Stop(context.Context) error {
	if err := a.vip.Remove(); err != nil {
		return err
	}
	if a.guard != nil {
		a.warn("an address that was given up is still guarded", a.guard.Release(a.cfg.Site))
	}
	return nil
}

func (a *address) warn(what string, err error) {
	if err != nil {
		a.log.Warn(what, zap.Stringer("address", a.cfg.Prefix), zap.String("dev", a.cfg.Dev), zap.Error(err))
	}
}

func (a *address) StopForced(ctx context.Context) error { return a.Stop(ctx) }

func (a *address) Monitor(context.Context) (bool, error) { return a.vip.Present() }

// Close leaves the address in place for an agent that is restarted.
func (a *address) Close() { a.vip.Close() }
