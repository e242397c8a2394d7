package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/failover"
	"hapair/failover/ledger"
	"hapair/fencing"
)

// fenceSlack is what a fence may take beyond its time-outs.
const fenceSlack = 10 * time.Second

// startArbitration makes what fences the other node when that is lost, one for
// all resources. Only arbitration by fencing has it.
func (a *agent) startArbitration() {
	if a.fence == nil {
		return
	}
	a.fences = failover.NewFences(failover.FencesConfig{Self: a.self, Peer: a.cfg.Peer(a.self).Name, Ballot: ballot{a.ledger}, Devices: fenceDevices{a.fence},
		Clock: a.clock, Log: a.log, Wake: a.wakeAll, Events: func(text string, problem bool) {
			a.event(apiv1.EventFence, "", text)
			if problem {
				a.event(apiv1.EventProblem, "", text)
			}
		}})
	a.onStop("arbitration", a.stopArbitration)
}

// stopArbitration breaks off what is under way, whoever waits for it: only when the
// devices have ended is a fence decided, and an operator may wait for ever.
func (a *agent) stopArbitration(context.Context) error {
	a.fence.Close()
	a.fences.Close()
	return nil
}

// fenceCounts has a fence that an operator asked for, or his word, count for the
// arbitration, if the two have lost each other.
func (a *agent) fenceCounts(why string) {
	if a.fences == nil || a.fences.View().May != "" {
		return
	}
	if err := a.fences.Fence(why); err != nil {
		a.log.Info("a fence by hand does not count", zap.String("why", why), zap.Error(err))
	}
}

// fenceDevices is what failover needs of the fencing room.
type fenceDevices struct{ room *fencing.Room }

func (d fenceDevices) Ready(node string) error { return d.room.Ready(node) }

func (d fenceDevices) Fence(ctx context.Context, node, why string) failover.FenceReport {
	r := d.room.FenceToEnd(ctx, node, why)
	return failover.FenceReport{Confirmed: r.Outcome == fencing.Confirmed, Refused: r.Outcome == fencing.Refused,
		Device: r.Device, Reason: r.Reason, Began: r.Began, Took: r.Took}
}

// ballot is what failover's fences need of the ledger.
type ballot struct{ *ledger.Ledger }

func (b ballot) Fence() failover.BallotFence { return failover.BallotFence(b.Ledger.Fence()) }
