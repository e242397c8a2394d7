package main

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/failover/service"
	"hapair/mirror/meta"
)

// notAttached notes that this life of the agent goes without a resource, and ends what
// an earlier one has left of it.
func (a *agent) notAttached(rc *config.Resource, err error) {
	a.broken = append(a.broken, broken{rc.Name, err})
	a.log.Error("resource is not attached", zap.String("resource", rc.Name), zap.Error(err))
	a.event(apiv1.EventProblem, rc.Name, "not attached: "+err.Error())
	if len(rc.Services) > 0 && a.everRan(rc.Name, err) {
		a.clearUpDetached(rc)
	}
}

// everRan reports whether an earlier life may have run the services of a resource that
// is not attached because of err. A new pair may be built below services that still
// use the bare disk.
func (a *agent) everRan(name string, err error) bool {
	rec, _ := ledgerHands{a.ledger}.Record(name)
	return rec.Token != 0 || !errors.Is(err, meta.ErrNone)
}

// clearUpDetached is clearUp for a resource without its mirror: nobody else would ever
// stop what runs here, and the peer may have it already.
func (a *agent) clearUpDetached(rc *config.Resource) {
	r := &resource{a: a, name: rc.Name, conf: rc}
	var err error
	if r.group, err = r.newGroup(rc); err == nil {
		r.clearUp()
		ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
		defer cancel()
		err = r.group.Close(ctx)
	}
	if err != nil {
		a.log.Error("services of an earlier life", zap.String("resource", rc.Name), zap.Error(err))
		a.event(apiv1.EventProblem, rc.Name, "services of an earlier life: "+err.Error())
	}
}

// clearUp ends what an earlier life of this agent left running: it is not
// Primary now, the device of those services is dead, and the other node may
// have them already.
func (r *resource) clearUp() {
	r.a.stage("starting: services of an earlier life of "+r.name, stopPatience)
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	found, err := r.group.Check(ctx)
	left := err != nil
	for _, s := range found {
		left = left || s.State == service.Running || s.State == service.Unknown
	}
	if !left {
		return
	}
	r.a.log.Warn("services of an earlier life are stopped", zap.String("resource", r.name), zap.Error(err))
	if err := r.group.StopForced(ctx); err != nil {
		r.a.log.Error("not everything of an earlier life could be stopped", zap.String("resource", r.name), zap.Error(err))
		r.a.event(apiv1.EventProblem, r.name, "services of an earlier life: "+err.Error())
	}
}
