package service

import (
	"context"

	"hapair/failover/vip"
)

// address is a service address.
type address struct {
	name string
	vip  *vip.Address
}

func newAddress(cfg vip.Config, deps Deps) (Movable, error) {
	if cfg.Logger == nil {
		cfg.Logger = deps.Logger
	}
	a, err := vip.New(cfg)
	if err != nil {
		return nil, err
	}
	return &address{name: "address:" + cfg.Prefix.String(), vip: a}, nil
}

func (a *address) Name() string { return a.name }

func (a *address) Start(ctx context.Context) error { return a.vip.Start(ctx) }

func (a *address) Stop(context.Context) error { return a.vip.Remove() }

func (a *address) StopForced(context.Context) error { return a.vip.Remove() }

func (a *address) Monitor(context.Context) (bool, error) { return a.vip.Present() }

// Close leaves the address in place for an agent that is restarted.
func (a *address) Close() { a.vip.Close() }
