package bubble

import (
	"context"
	"errors"
	"time"

	"hapair/failover"
	"hapair/failover/ledger"
)

// gun is what nodes fence each other with: it cuts the power of a box.
type gun struct {
	takes time.Duration
	how   aim
	late  bool // it strikes at the end of what it takes, or when nobody waits any more, not at once
}

// aim is what a gun does, and says.
type aim uint8

const (
	honest   aim = iota
	refusing     // it does nothing
	mute         // it strikes, and nobody hears of it
	broken       // it does nothing, and nobody hears of that
)

// gunTakes is longer than any gun takes.
const gunTakes = 20 * time.Second

// arm has every later fence be of a kind.
func (w *World) arm(g gun) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gun = g
}

// guns are the fence devices of a node.
type guns struct{ b *boot }

func (g guns) Ready(string) error { return nil }

func (g guns) Fence(ctx context.Context, node, why string) failover.FenceReport {
	w := g.b.w
	if g.b.port.isDead() {
		return failover.FenceReport{Device: "gun", Began: time.Now(), Reason: errDead.Error()}
	}
	w.mu.Lock()
	x := w.gun
	w.mu.Unlock()
	w.notef("%s fences %s: %s", g.b.node, node, why)
	r := failover.FenceReport{Device: "gun", Began: time.Now()}
	strikes := x.how == honest || x.how == mute
	if strikes && !x.late {
		w.crash(node, true)
	}
	select {
	case <-time.After(x.takes):
	case <-ctx.Done():
		r.Reason = "broken off"
	}
	if strikes && x.late { // also when it was broken off: it was on its way
		w.crash(node, true)
	}
	r.Took = time.Since(r.Began)
	if r.Reason == "" {
		r.Confirmed, r.Refused = x.how == honest, x.how == refusing
	}
	return r
}

// ballot is what fences need of the ledger.
type ballot struct{ *ledger.Ledger }

func (b ballot) Fence() failover.BallotFence { return failover.BallotFence(b.Ledger.Fence()) }

func (b ballot) RecordFence(ctx context.Context, node, outcome, reason string) error {
	err := b.Ledger.RecordFence(ctx, node, outcome, reason)
	if errors.Is(err, ledger.ErrClosed) {
		return nil // nobody is left to keep it
	}
	return err
}
