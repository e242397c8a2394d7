package ledger

import (
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"
)

// A node that throws its log away, and begins anew with a group that goes on, is sent
// that group's past: a snapshot, or entries, of a time in which this node was a voter,
// maybe the only one. By that it would lead, alone, and take its peer's newer history
// from it. So it is unfit before its log has reached what the group had when it began
// (identity.Floor): it counts nobody as a voter, itself neither, and raft, which asks
// nobody before a lone voter leads, is run under a name that no voter has.

// nameless is who raft takes a node for that is unfit; no node is called so.
const nameless = raft.ServerID("-")

// unfit tells whether the log of this node has not reached its floor.
func (l *Ledger) unfit() bool {
	index, term := l.lastLog()
	return l.belowFloor(term, index)
}

// raftID is who raft takes this node for.
func (l *Ledger) raftID() raft.ServerID {
	if l.unfit() {
		return nameless
	}
	return raft.ServerID(l.cfg.Self)
}

// awaitFit runs raft under this node's name as soon as its log has reached the floor:
// before the group gives it a vote, where it had none.
func (l *Ledger) awaitFit(g *group) {
	for l.unfit() {
		select {
		case <-time.After(fitLook):
		case <-g.gone:
			return
		case <-l.ctx.Done():
			return
		}
	}
	l.admin.Lock()
	defer l.admin.Unlock()
	if l.group() != g {
		return
	}
	index, term := l.lastLog()
	l.log.Info("ledger knows what its group did", zap.Uint64("term", term), zap.Uint64("index", index))
	l.restartGroup(func() error { return nil })
}
