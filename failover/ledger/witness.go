package ledger

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"
)

// A witness does not lead, and what it would have to say for that its transport
// does not send. It leads for a moment when nobody else can: the last committed
// entry may be with it and a lost node only.

// quietWitness tells whether this node must not ask for votes nor lead now.
func (l *Ledger) quietWitness() bool {
	return l.isWitness(l.cfg.Self) && !l.rescue.Load()
}

// rescueLog runs on a witness. Once it has known no leader for Timing.Rescue it
// may run; as leader it stays until a data node has every entry, and then
// falls silent: its lead ends when it hears no answers for Timing.Heartbeat, and
// that node can win. Raft's own transfer of the leadership is not asked for, as
// it can wait for ever for a target that goes away.
func (l *Ledger) rescueLog() {
	t := time.NewTicker(l.cfg.Timing.Heartbeat / 4)
	defer t.Stop()
	led := time.Now()
	for {
		select {
		case <-t.C:
		case <-l.ctx.Done():
			return
		}
		g := l.group()
		if g == nil {
			continue
		}
		leading := g.raft.State() == raft.Leader
		if leading && l.rescue.Load() && !l.passedOn(g) {
			continue
		}
		if _, id := g.raft.LeaderWithID(); leading || id != "" {
			led = time.Now()
		}
		l.rescue.Store(time.Since(led) > l.cfg.Timing.Rescue)
	}
}

// passedOn waits until all entries are with a data node, for a while: a barrier
// is committed by a majority, and that is this witness and at least one of them.
func (l *Ledger) passedOn(g *group) bool {
	ctx, cancel := context.WithTimeout(l.ctx, 2*l.cfg.Timing.Heartbeat)
	defer cancel()
	r := g.barrier(ctx, 0)
	if r.Status != statusOK {
		l.log.Info("the witness leads; no data node has caught up yet", zap.String("because", r.Detail))
		return false
	}
	l.log.Info("the witness leads no more", zap.String("because", "a data node has all entries"))
	return true
}
