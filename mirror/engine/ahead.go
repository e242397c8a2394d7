package engine

import (
	"fmt"

	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// A Primary in protocol A whose window is full either lets answers wait, or pulls
// ahead: it ends the session, and what was under way with it. From then on it is
// as with any peer that was lost: the ledger takes it out of the in-sync set (R5),
// what it lacks is marked, and a resync follows; not at once, and after a longer
// rest each time that it happens again, for each costs the application a wait.

// pullAhead goes on without a peer that does not take writes as fast as they are
// answered; not during a resync, which would never end: there answers wait. It
// reports whether it does.
func (e *Engine) pullAhead() bool {
	if !e.set.PullAhead || e.protocol() != state.ProtocolA || e.role != state.Primary || e.forward.on || e.anyFailed() || e.control.busy() ||
		!e.hasLease() || e.session.phase != agreed || e.session.repl != state.Established || e.session.closing {
		return false
	}
	rest := e.ahead.next(e.now, aheadRestMin, aheadRestMax)
	e.pulled = true
	e.problem(fmt.Sprintf("%s does not take writes as fast as they are answered: %d bytes are behind, at most %d may be; this node pulls ahead, and looks for it again in %v",
		e.peer, e.early.bytes, e.set.CongestionFill, rest))
	e.restSession(&RefusedError{Status: wire.Congested, Text: fmt.Sprintf("%s pulls ahead of %s, and looks for it again in %v", e.self, e.peer, rest)}, rest)
	return true
}

// replication is what runs between the copies, also while nothing does because
// one of them has pulled ahead.
func (e *Engine) replication() state.Replication {
	switch s := &e.session; {
	case s.phase == preparing || s.phase == agreed || !e.pulled:
		return s.repl
	case e.role == state.Primary:
		return state.Ahead
	default:
		return state.Behind
	}
}
