package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/failover"
	"hapair/failover/lease"
	"hapair/failover/ledger"
	"hapair/failover/plan"
	"hapair/failover/service"
	"hapair/failover/vip"
	"hapair/failover/vip/deadman"
	"hapair/mirror"
)

// resource is one replicated resource on this node: its mirror, its services
// and the controller that moves them.
type resource struct {
	a       *agent
	name    string
	peer    string
	conf    *config.Resource
	mirror  *mirror.Resource
	group   *service.Group // nil without services
	moving  atomic.Int32   // starts and stops of the group under way
	control *failover.Controller
	rates   rates
	chosen  []string // per volume: why this front end
	roles   roles
	leased  atomic.Bool // the last word about the lease was that it is held
	set     atomic.Pointer[settings]
	setting sync.Mutex // one change of set at a time
	open    *openBy
	verify  *verifier
	giving  atomic.Bool   // it gives up what only it has, by a policy
	look    chan struct{} // capacity 1: the mirror may have changed

	mu struct {
		sync.Mutex
		ready bool      // control is set
		down  time.Time // since when there is no session with the peer; zero while there is one
	}
}

// broken is a resource that could not be attached when the agent started.
type broken struct {
	name string
	err  error
}

// wake tells the controller that something changed. It may be called before
// there is one.
func (r *resource) wake(cause string) {
	r.mu.Lock()
	ready := r.mu.ready
	r.mu.Unlock()
	if ready {
		r.control.Wake(cause)
	}
}

// resources is for what may be asked while the agent starts: none before all
// have been opened.
func (a *agent) resources() []*resource {
	if !a.opened.Load() {
		return nil
	}
	return a.order
}

func (a *agent) wakeAll(cause string) {
	for _, r := range a.resources() {
		r.wake(cause)
	}
}

// startResources attaches every resource, then lets what the ledger and the
// peer say reach them, then starts the controllers.
func (a *agent) startResources(ctx context.Context) error {
	if a.witness() {
		return nil
	}
	a.sweepVirtualMACs()
	if err := a.startDeadman(); err != nil {
		return err
	}
	a.startArbitration()
	a.awaitDisks(ctx)
	a.openResources(ctx)
	a.opened.Store(true)
	a.ledger.OnRecord(a.onRecord)
	a.ledger.OnLease(a.onLease)
	a.net.Handle("mirror", a.acceptMirror)
	a.net.Handle(hintPurpose, a.acceptHint)
	a.net.Handle(invalidatePurpose, a.acceptInvalidate)
	a.net.Handle(resizePurpose, a.acceptResize)
	a.net.Handle(provenPurpose, a.acceptProven)
	a.net.Handle(reconnectPurpose, a.acceptReconnect)
	a.net.Handle(leftPurpose, a.acceptLeft)
	a.net.Handle(drillPurpose, a.acceptDrill)
	a.onStopWithin("controllers", a.leavesWithin, a.leaveAll)
	for _, r := range a.order {
		r.start()
	}
	return nil
}

// sweepVirtualMACs takes away what an earlier life left, and its deadman too: this one
// has no lease yet, and may know nothing of those addresses any more.
func (a *agent) sweepVirtualMACs() {
	swept, err := vip.Sweep(a.cfg.Cluster + "/")
	if err != nil {
		a.log.Error("a virtual MAC of an earlier life may be left on this node", zap.Error(err))
	}
	if len(swept) > 0 {
		a.log.Warn("devices of virtual MACs that an earlier life left are deleted", zap.Strings("devices", swept))
	}
}

// startDeadman starts the process that takes the service addresses away when
// this one cannot.
func (a *agent) startDeadman() (err error) {
	var names []string
	for i := range a.cfg.Resources {
		r := &a.cfg.Resources[i]
		if slices.ContainsFunc(r.Services, func(s config.Service) bool { return s.Address != nil }) {
			names = append(names, r.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	a.deadman, err = deadman.Start(deadman.Config{Program: "/proc/self/exe", Lock: filepath.Join(a.cfg.RunDir, "deadman.lock"), Resources: names, Log: a.log})
	if err != nil {
		return err
	}
	a.onStop("deadman", a.deadman.Close)
	return nil
}

func (a *agent) onRecord(name string, rec ledger.Record) {
	if r := a.res[name]; r != nil {
		r.mirror.SetRecord(toWire(rec))
		if rec.Token == 0 { // this node's ledger was discarded
			r.control.Discarded()
		}
		r.wake("record")
	}
}

func (a *agent) onLease(l lease.Lease) {
	r := a.res[l.Resource]
	if r == nil {
		return
	}
	if a.deadman != nil {
		a.deadman.Renew(l.Resource, l.Until)
	}
	r.mirror.SetLease(uint64(l.Tenure), l.Until)
	held := l.Until != 0
	switch was := r.leased.Swap(held); {
	case !held:
		if was {
			a.event(apiv1.EventQuorum, r.name, fmt.Sprintf("the lease of tenure %d is held no more", l.Tenure))
		}
		r.wake("lease lost")
	case !was:
		a.event(apiv1.EventQuorum, r.name, fmt.Sprintf("the lease of tenure %d is held", l.Tenure))
		r.wake("lease held")
	}
}

func (r *resource) newController() error {
	s := plan.Defaults()
	s.Run, s.HasServices, s.Preferred, s.Failures = r.conf.AutoPromote, r.group != nil, r.conf.PreferredNode, r.conf.Failures.Policy()
	if r.conf.AutoFailback {
		s.FailbackAfter = r.conf.FailbackAfter
	}
	switch r.a.cfg.Arbitration {
	case config.ArbitrateWitness:
		s.Arbitration = plan.Witness
	case config.ArbitrateManual:
		s.Arbitration = plan.Manual
	case config.ArbitrateFencing:
		s.Arbitration, s.FenceDelay = plan.Fencing, r.a.cfg.FenceDelay(r.peer)
	}
	hands := ledgerHands{r.a.ledger}
	needs := failover.Needs{Ledger: hands, Leases: hands, Group: hands, Marks: hands, Mirror: mirrorHands{r}, Heartbeat: heartHands{r.a}, Peers: hints{r.a}}
	if r.group != nil {
		needs.Services = services{r.group, &r.moving}
	}
	if r.a.fences != nil {
		needs.Fencer = r.a.fences
	}
	c, err := failover.New(failover.Config{Resource: r.name, Self: r.a.self, Peer: r.peer, Settings: s, Arbitration: r.a.arbitration, Policies: r.policies(), Needs: needs,
		Clock: r.a.clock, Log: r.a.log, Events: r.entry})
	if err != nil {
		return err
	}
	r.control = c
	r.mu.Lock()
	r.mu.ready = true
	r.mu.Unlock()
	return nil
}

// start lets the mirror connect and the controller decide.
func (r *resource) start() {
	if r.group != nil {
		r.clearUp()
	}
	r.mirror.Start()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.control.Run(ctx) }()
	var monitoring sync.WaitGroup
	monitoring.Go(func() { r.returned(ctx) })
	monitoring.Go(func() { r.watch(ctx) })
	monitoring.Go(func() { r.verify.run(ctx) })
	if r.group != nil {
		monitoring.Go(func() { r.monitor(ctx) })
	}
	r.a.leaves = append(r.a.leaves, leave{name: r.name, within: r.leavesWithin(), empty: func(stopCtx context.Context) error {
		err := r.leave(stopCtx)
		cancel()
		monitoring.Wait()
		return errors.Join(err, ignoreCancelled(<-ended))
	}})
}

// returned takes the note of this node's last orderly stop out of the ledger,
// once that can be read and changed.
func (r *resource) returned(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		if s := r.a.ledger.Status(); s.Promising && s.Quorum {
			err := r.control.Returned(ctx)
			if err == nil {
				return
			}
			r.a.log.Info("the note of the last stop stays for now", zap.String("resource", r.name), zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func ignoreCancelled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// close lets go of the services and the disks.
func (r *resource) close(ctx context.Context) error {
	var err error
	if r.mirror.View().Tenure != 0 {
		err = r.takeDown(ctx)
	}
	if r.group != nil {
		err = errors.Join(err, r.group.Close(ctx))
	}
	return errors.Join(err, r.mirror.Close(ctx))
}
