package plan

import (
	"fmt"
	"time"

	"hapair/mirror/state"
)

// takeover decides for a node whose peer is the Primary of the record.
func takeover(v View) Decision {
	if d, done := wishBehindPrimary(v); done {
		return d
	}
	if v.byFencing() {
		return fenceToTakeOver(v)
	}
	if !v.Lease.PeerLapsed {
		return wait(checkHolder(v), v.lookAgain())
	}
	asked := v.Wish.Kind == Promote || v.takes()
	if !asked {
		if r, no := failing(v, soft); no {
			return wait(r, 0)
		}
		if r, no := manualWaits(v); no {
			return wait(r, 0)
		}
	}
	return takeLapsed(v, asked)
}

// takeLapsed goes on when this node's own promise to the Primary has run out:
// it makes sure of itself, then of a majority, then of the peer.
func takeLapsed(v View, asked bool) Decision {
	own := []check{checkSplitBrain, checkRecord, checkArbitration, checkQuorum, checkInSync, checkDisk, checkResync, checkSuspect}
	if r, no := failing(v, own); no {
		if asked && v.Wish.Kind == Promote && !r.Passing {
			return refuse(r)
		}
		return wait(r, v.coldStartEnds())
	}
	if at := v.coldStartEnds(); at != 0 && !asked {
		return waitf(CodeColdStart, at, "this agent just began: it waits for %s, in sync and last Primary, for another %s", v.Peer.Name, ago(at-v.Now))
	}
	if !v.Lease.MajorityLapsed {
		return askLapsed(v)
	}
	if at := max(v.Lease.LapsedSince, v.Mirror.Since, v.Peer.Since) + v.Settings.TakeoverDelay; v.mayResume() && v.Now < at && v.Wish.Kind != Promote { // after a hand-over, the record follows the hint
		return waitf(CodePeerFirst, at, "%s is alive and may resume within %s", v.Peer.Name, ago(at-v.Now))
	}
	if r := checkPeerPrimary(v); !r.OK {
		return steps(r.Text+", but its lease has run out: the session is ended", Disconnect, LedgerPromote).then(v, bringUp...)
	}
	return promote(v, fmt.Sprintf("%s was Primary, its lease has run out (heartbeat: %s)", v.Peer.Name, v.Peer.Verdict))
}

// wishBehindPrimary answers what an operator asked of the node that is not
// the Primary.
func wishBehindPrimary(v View) (Decision, bool) {
	w := v.Wish
	// Its services may take their time; it says so when it does not hand over.
	until := max(w.Since, v.Peer.PrimaryAt) + 2*v.Settings.HandOverGrace
	if w.Kind == Switchover && w.Target == v.Self.Name && !v.Hinted && !v.Lease.PeerLapsed {
		if r, no := failing(v, []check{checkRecord, checkQuorum, checkInSync, checkDisk, checkResync, checkStandby, checkConnected}); no {
			return refuse(r), true // the Primary would not hand over to this copy
		}
	}
	switch {
	case w.Kind == Switchover && w.Target == v.Self.Name && !v.Hinted && !v.Lease.PeerLapsed:
		return steps("switchover asked for by the operator").then(v, AskPeer), true
	case w.Kind == Switchover && v.Now >= until:
		return refuse(bad(CodeHandedOver, "hactl explain "+v.Resource, "%s did not hand over within %s", v.Peer.Name, ago(v.Now-w.Since))), true
	case w.Kind == Switchover && !v.Lease.PeerLapsed:
		return waitf(CodeHandedOver, until, "%s was asked to hand over", v.Peer.Name), true
	case w.Kind == Promote && !v.Lease.PeerLapsed && v.Peer.Verdict == Alive:
		return refuse(checkHolder(v)), true
	}
	return Decision{}, false
}

// manualWaits is the manual row of the arbitration table: a Secondary never
// takes over from a Primary that is gone. With the peer connected, Secondary
// and a quorum of both there is nothing to arbitrate. By fencing it is the same
// as long as there is a quorum: a voter that answers is not fenced.
func manualWaits(v View) (Reason, bool) {
	switch {
	case v.Settings.Arbitration == Witness, v.connected() && v.Peer.Role == state.Secondary && v.Ledger.Quorum:
		return Reason{}, false
	case v.Settings.Arbitration == Fencing && v.byFencing():
		return Reason{}, false
	case v.Settings.Arbitration == Fencing:
		return bad(CodeFence, forceHint(v), "%s was Primary and still votes, so it is not fenced: this node waits for it, or for the operator", v.Peer.Name), true
	}
	return bad(CodeManual, forceHint(v), "%s was Primary and arbitration is manual: this node waits for the operator", v.Peer.Name), true
}

// askLapsed asks a majority, not more often than the lease is looked at here.
func askLapsed(v View) Decision {
	if at := v.Lease.LookedAt + v.lookAgain() - v.Now; v.Lease.LookedAt != 0 && v.Now < at {
		return wait(checkHolder(v), at)
	}
	return steps(fmt.Sprintf("the lease of %s has run out here", v.Peer.Name), AskLapsed)
}

// takes reports whether the peer announced that this node is to take over.
func (v View) takes() bool { return v.Hint.Take && v.Now < v.Hint.Until }

// mayResume reports whether the former Primary lives and may take up its own
// work again. One whose lease has run out and whose mirror link is gone as well
// is not waited for, however the members judge it. A suspect one does not
// resume while this node is healthy (rule R8).
func (v View) mayResume() bool {
	return v.connected() && (v.Self.Suspect || !v.Peer.Suspect)
}

// lookAgain is when to look at the Primary's lease again: often for a while
// after the Primary stopped looking well, then it seems to keep its lease.
func (v View) lookAgain() time.Duration {
	well := v.Peer.Verdict == Alive && v.connected() && v.Peer.Role == state.Primary
	if well || v.Now > max(v.Peer.Since, v.Mirror.Since)+100*v.Settings.LapsePoll {
		return v.Now + v.Settings.LapseLook
	}
	return v.Now + v.Settings.LapsePoll
}

// coldStartEnds is when an agent that began after its peer was last seen stops
// waiting for it; 0 when there is nothing to wait for. It only ever delays: to
// be promoted a node needs the ledger's word afterwards as well.
func (v View) coldStartEnds() time.Duration {
	at := v.Started + v.Settings.ColdGrace
	if v.Peer.Verdict != Unheard || v.connected() || !v.peerInSync() || v.Now >= at {
		return 0
	}
	return at
}

// resume decides for a node the record names Primary by a grant of a former
// life of this agent. It takes up its work under a new tenure, unless rule R8
// lets the peer go first.
func resume(v View) Decision {
	switch {
	case v.Wish.Kind == Switchover && v.Wish.Target == v.Peer.Name && !peerCanTake(v).OK:
		return refuse(peerCanTake(v))
	case v.Wish.Kind == Demote || v.Wish.Kind == Switchover && v.Wish.Target == v.Peer.Name:
		return descend(v, v.Wish.by())
	case v.Self.Standby && v.peerReachable() && v.Services.State == Stopped:
		return wait(checkStandby(v), 0)
	case !v.Settings.Run && v.Wish.Kind == NoWish && !v.takes() && !v.active() && len(v.Mirror.Held) == 0:
		return wait(checkRun(v), 0)
	}
	if r, no := failing(v, hard); no {
		if v.Wish.Kind == Promote && !r.Passing {
			return refuse(r)
		}
		return wait(r, v.coldStartEnds())
	}
	if at := v.coldStartEnds(); at != 0 && v.Self.Suspect && v.Wish.Kind != Promote {
		return waitf(CodeColdStart, at, "this node crashed: it waits for %s, in sync, for another %s", v.Peer.Name, ago(at-v.Now))
	}
	return promote(v, "the ledger still names this node Primary: it takes up its work under a new tenure")
}
