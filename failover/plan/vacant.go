package plan

import (
	"fmt"

	"hapair/mirror/state"
)

// vacant decides when the record names no Primary.
func vacant(v View) Decision {
	w := v.Wish
	switch {
	case w.Kind == Promote, w.Kind == Switchover && w.Target == v.Self.Name, v.takes():
		return take(v)
	case w.Kind == Switchover:
		return handedOver(v)
	case w.Kind == Demote:
		return waitf(CodeDown, 0, "nobody is Primary, as the operator asked")
	case v.Self.Standby && !v.Hinted && v.Tenure != 0 && peerCanTake(v).OK:
		return handOver(v, v.Self.Name+" is on standby")
	case diskGone(v) && !v.Hinted && v.Tenure != 0 && peerMayTake(v):
		return handOver(v, fmt.Sprintf("the local disk is %s", v.Self.Disk))
	}
	if r, no := failing(v, soft); no {
		return wait(r, 0)
	}
	if v.exhausted() && !v.Hinted && v.Tenure != 0 && peerCanTake(v).OK {
		return handOver(v, failedText(v))
	}
	if r, no := failing(v, hard); no {
		return wait(r, 0)
	}
	return elect(v)
}

// take is a promotion somebody asked for: the operator or the peer.
func take(v View) Decision {
	if r, no := failing(v, append([]check{checkSplitBrain}, hard...)); no {
		if v.Wish.Kind != NoWish && !r.Passing {
			return refuse(r)
		}
		return wait(r, v.Now+v.Settings.LapseLook)
	}
	if v.Wish.Kind == NoWish {
		return promote(v, v.Hint.From+" handed over to this node")
	}
	return promote(v, v.Wish.by())
}

// handedOver waits for the target of a switchover, for a while.
func handedOver(v View) Decision {
	at := v.Ledger.Since + v.Settings.HandOverGrace
	switch {
	case v.Now >= at:
		return refuse(bad(CodeHandedOver, fmt.Sprintf("hactl explain %s on %s", v.Resource, v.Peer.Name),
			"%s did not become Primary within %s", v.Peer.Name, v.Settings.HandOverGrace))
	case !v.Hinted:
		return handOver(v, v.Wish.by())
	}
	return waitf(CodeHandedOver, at, "handed over: %s becomes Primary", v.Peer.Name)
}

func handOver(v View, because string) Decision { return steps(because).then(v, HandOver) }

// diskGone reports whether the local disk will not serve again by itself.
func diskGone(v View) bool { return v.Self.Disk == state.Failed || v.Self.Disk == state.Diskless }

// peerMayTake is peerCanTake for a node whose disk failed: it keeps no mirror
// session, so what the peer would say of itself is not known. The hint only
// asks; the peer judges by its own view.
func peerMayTake(v View) bool {
	return v.peerInSync() && v.peerReachable() && !v.Peer.Standby && !v.peerExhausted() && !v.Maintenance && !v.Down && !v.diverged()
}

// elect picks one of two nodes that both could. Both nodes pick the same from
// what both know; where they do not, the other one goes later, and the ledger
// lets only one of them win.
func elect(v View) Decision {
	switch {
	case !v.peerInSync():
		return promote(v, "nobody is Primary and this is the only copy in sync")
	case v.peerReachable() && !v.compared():
		return electUnknown(v)
	case !v.connected():
		if first, why := rank(v); first == v.Self.Name && !v.Self.Suspect && !v.exhausted() {
			return promote(v, fmt.Sprintf("nobody is Primary, the ledger calls this copy current, and %s; %s is %s", why, v.Peer.Name, v.Peer.Verdict))
		}
		if at := v.coldStartEnds(); at != 0 {
			return waitf(CodeColdStart, at, "this agent just began: it waits for %s, also in sync, for another %s", v.Peer.Name, ago(at-v.Now))
		}
		return promote(v, fmt.Sprintf("nobody is Primary, the ledger calls this copy current, and %s is %s", v.Peer.Name, v.Peer.Verdict))
	}
	return electKnown(v)
}

// electUnknown waits for a living peer to connect and to compare its copy with
// this one: it may be the better one. One that was Primary while this agent
// ran, and gave it up, says thereby that it is not.
func electUnknown(v View) Decision {
	if v.Ledger.Record.LastPrimary == v.Peer.Name {
		return promote(v, fmt.Sprintf("nobody is Primary, the ledger calls this copy current, and %s gave it up", v.Peer.Name))
	}
	at := max(v.Started, v.Ledger.Since, v.Peer.Since) + v.Settings.ColdGrace
	switch {
	case v.Now >= at:
		return promote(v, fmt.Sprintf("nobody is Primary, the ledger calls this copy current, and %s does not connect", v.Peer.Name))
	case v.connected():
		return waitf(CodeColdStart, at, "%s is connected, the copies are not compared yet: that is waited for, for another %s", v.Peer.Name, ago(at-v.Now))
	}
	return waitf(CodeColdStart, at, "%s is %s but not connected (%s): it is waited for, for another %s",
		v.Peer.Name, v.Peer.Verdict, v.Mirror.Connection, ago(at-v.Now))
}

func electKnown(v View) Decision {
	chosen, why := choose(v)
	if chosen == v.Self.Name {
		return promote(v, "nobody is Primary; "+why)
	}
	if v.exhausted() {
		again := v.Self.Failed.Until
		return waitf(CodePeerFirst, again, "%s; %s is to take it, here it is tried again in %s", why, v.Peer.Name, ago(again-v.Now))
	}
	at := max(v.Started, v.Ledger.Since, v.Mirror.Since) + v.Settings.PreferDelay
	if v.Now < at {
		return waitf(CodePeerFirst, at, "%s; otherwise this node goes on in %s", why, ago(at-v.Now))
	}
	return promote(v, fmt.Sprintf("nobody is Primary and %s did not take it within %s", chosen, v.Settings.PreferDelay))
}

// choose names the node that goes first, and why. It is the same on both
// nodes when they know the same.
func choose(v View) (name string, why string) {
	self, peer, last := v.Self.Name, v.Peer.Name, v.Ledger.Record.LastPrimary
	if r := peerAble(v); r != "" {
		return self, r
	}
	switch {
	case v.exhausted():
		return peer, failedText(v)
	case v.Self.Suspect && v.Peer.Suspect && (last == self || last == peer):
		return last, "both crashed and " + last + " was the last Primary"
	case v.Peer.Suspect != v.Self.Suspect && v.Peer.Suspect:
		return self, peer + " crashed, this node did not"
	}
	return rank(v)
}

// rank names the node that goes first when neither crashed or failed, and why.
// What is known of the peer does not matter here.
func rank(v View) (name string, why string) {
	self, peer, last := v.Self.Name, v.Peer.Name, v.Ledger.Record.LastPrimary
	switch {
	case v.Settings.Preferred == self || v.Settings.Preferred == peer:
		return v.Settings.Preferred, v.Settings.Preferred + " is preferred"
	case last == self || last == peer:
		return last, last + " was the last Primary"
	case self < peer:
		return self, self + " comes first by name"
	}
	return peer, peer + " comes first by name"
}

// peerAble says why the connected peer cannot be chosen, "" if it can.
func peerAble(v View) string {
	switch {
	case !v.Peer.Disk.CanServe():
		return fmt.Sprintf("the disk of %s is %s", v.Peer.Name, v.Peer.Disk)
	case v.Peer.Standby:
		return v.Peer.Name + " is on standby"
	case v.peerExhausted():
		return fmt.Sprintf("it failed on %s %d times", v.Peer.Name, v.Peer.Failed.Count)
	case v.Mirror.Replication == state.SyncSource || v.Mirror.Replication == state.PausedSyncS:
		return v.Peer.Name + " is the target of a resync"
	}
	return ""
}
