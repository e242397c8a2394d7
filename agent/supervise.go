package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/systemd"
	"hapair/heartbeat/detect"
)

const (
	// goesDownWithin is how long this process, once it is empty because the machine
	// was about to go down, waits for being ended.
	goesDownWithin = 2 * time.Minute
	// emptyWithin is longer than everything that may happen before.
	emptyWithin = 24 * time.Hour
)

// errStaysUp ends an agent that has handed over for nothing, so that it is started
// again.
var errStaysUp = errors.New("everything was stopped because the machine was about to go down, and it has not")

// serve runs until ctx ends or the machine is about to go down, and stops
// everything. Logind, where it is there, holds a shutdown up meanwhile: systemd
// has not begun to stop services, mounts and network then.
func (a *agent) serve(ctx context.Context) error {
	watching, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { a.boss.Watch(watching, systemd.Watch{Clock: a.clock, Loops: a.loops(), Status: a.summary}) })
	asked, unask := context.WithCancel(context.Background())
	down := make(chan *systemd.Shutdown, 1)
	var delay sync.WaitGroup
	delay.Go(func() { a.delayShutdown(asked, down) })
	var box *systemd.Shutdown
	select {
	case <-ctx.Done():
	case box = <-down:
	}
	cancel()
	watch.Wait()
	err := a.leaveMachine(ctx, box)
	unask()
	delay.Wait()
	return err
}

// leaveMachine stops everything, because this process is to end or, with box, the
// machine is.
func (a *agent) leaveMachine(ctx context.Context, box *systemd.Shutdown) error {
	const stops = "the agent stops in order"
	if box == nil {
		a.log.Info(stops)
		a.event(apiv1.EventAgent, "", stops)
		a.boss.Stopping(stops)
		return a.stop()
	}
	const why = "the machine is about to go down: " + stops
	a.log.Info(why)
	a.event(apiv1.EventAgent, "", why)
	a.boss.Emptying(why, emptyWithin)
	err := errors.Join(a.stop(), box.Release())
	a.log.Info("everything is stopped: the machine may go down", zap.Error(err))
	return errors.Join(err, a.awaitEnd(ctx, box))
}

// delayShutdown has logind hold a shutdown up, and passes one on that begins.
func (a *agent) delayShutdown(ctx context.Context, down chan<- *systemd.Shutdown) {
	if !a.boss.Present() || a.witness() { // a witness has nothing to hand over
		return
	}
	s, err := systemd.DelayShutdown(ctx)
	if err != nil {
		a.log.Info("a shutdown of the machine stops the agent beside its services, not before them", zap.Error(err))
		return
	}
	for {
		select {
		case <-ctx.Done():
			a.logIf("logind", s.Close())
			return
		case begins, ok := <-s.Begins:
			if begins {
				down <- s
				<-ctx.Done()
				a.logIf("logind", s.Close())
				return
			}
			if !ok {
				a.log.Warn("the bus is gone: a shutdown of the machine stops the agent beside its services, not before them")
				a.logIf("logind", s.Close())
				return
			}
		}
	}
}

func (a *agent) logIf(what string, err error) {
	if err != nil {
		a.log.Info(what, zap.Error(err))
	}
}

// awaitEnd waits for the end that the machine going down brings.
func (a *agent) awaitEnd(ctx context.Context, box *systemd.Shutdown) error {
	t := time.NewTimer(goesDownWithin)
	defer t.Stop()
	begins := box.Begins
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			return fmt.Errorf("%w, for %v", errStaysUp, goesDownWithin)
		case down, ok := <-begins:
			if !ok {
				begins = nil // the bus goes down as well
			} else if !down {
				return fmt.Errorf("%w: it was called off", errStaysUp)
			}
		}
	}
}

// loops are those that must turn round. Disks, which may hang, stop none of them.
func (a *agent) loops() []systemd.Loop {
	out := []systemd.Loop{{Name: "heartbeat", Turned: a.heart.Turned}, {Name: "ledger", Turned: a.ledger.Turned}}
	for _, r := range a.order {
		out = append(out,
			systemd.Loop{Name: "controller of " + r.name, Turned: func() time.Duration { return r.control.Status().View.Now }},
			systemd.Loop{Name: "mirror of " + r.name, Turned: r.mirror.Turned})
	}
	return out
}

// summary is the agent in one line.
func (a *agent) summary() string {
	var parts []string
	for _, b := range a.broken {
		parts = append(parts, b.name+": not attached")
	}
	for _, r := range a.order {
		v := r.mirror.View()
		parts = append(parts, fmt.Sprintf("%s: %s, %s", r.name, v.Role, v.State))
	}
	nodes := a.heart.Snapshot().Nodes
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		if s := nodes[name].State; s != detect.Alive {
			parts = append(parts, fmt.Sprintf("%s is %s", name, s))
		}
	}
	if len(parts) == 0 {
		return "all nodes are alive"
	}
	return strings.Join(parts, "; ")
}
