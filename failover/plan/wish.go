package plan

import (
	"fmt"
	"strings"

	"hapair/mirror/state"
)

// leave is an orderly demotion the operator asked for. Before anything is
// stopped it is known that the peer can take it; a peer that is lost on the
// way down ends the switchover, and this node takes its work up again.
func leave(v View) Decision {
	onTheWay := v.Self.Role != state.Primary && diskGone(v) && peerMayTake(v) // and so without a session
	if r := peerCanTake(v); v.Wish.Kind == Switchover && !r.OK && !onTheWay {
		return refuse(r)
	}
	if v.Self.Role == state.Primary && v.Services.State == Stopped && len(v.Mirror.Held) > 0 && !v.Wish.Force {
		return refuse(bad(CodeHeld, fmt.Sprintf("close it, or hactl demote %s --force", v.Resource),
			"the device is open by %s", strings.Join(v.Mirror.Held, ", ")))
	}
	return descend(v, v.Wish.by())
}

// descend is the way from Primary to nobody, from wherever the node stands:
// services in reverse order, devices closed, both copies flushed, then the
// ledger, then the lease.
func descend(v View, because string) Decision {
	forced := v.Wish.Force
	d := Decision{Code: CodeGo, Because: because}
	if v.Services.State != Stopped {
		d.Steps = append(d.Steps, Step{Kind: StopServices, Force: forced || v.Services.StopFailed && v.Wish.Kind == NoWish})
	}
	if v.Self.Role == state.Primary {
		d.Steps = append(d.Steps, Step{Kind: MirrorDemote, Force: forced})
	}
	if v.Wish.Kind == Demote {
		return d.then(v, LedgerDemote, ReleaseLease)
	}
	return d.then(v, LedgerDemote, ReleaseLease, HandOver)
}

// giveBack is descend for a grant that could not be used.
func giveBack(v View, because string) Decision {
	return descend(v, because+": the grant is given back")
}

// standby empties a Primary on standby as soon as the peer can take over.
func standby(v View) Decision {
	if r := peerCanTake(v); !r.OK {
		return waitf(CodeStandby, 0, "%s is on standby but goes on: %s", v.Self.Name, r.Text)
	}
	return descend(v, v.Self.Name+" is on standby")
}

// force is hactl promote --force: the operator answers for what may be lost.
// Not even that makes two Primaries beside each other.
func force(v View) Decision {
	r := v.Ledger.Record
	peer := r.Primary == v.Peer.Name
	switch {
	case !v.Self.Disk.HasData():
		return refuse(bad(CodeDisk, diskHint(v), "the local disk is %s: there is nothing to promote", v.Self.Disk))
	case peer && v.connected() && v.Peer.Role == state.Primary && !v.Lease.PeerLapsed:
		return refuse(checkHolder(v))
	case !v.Ledger.Known && v.connected() && v.Peer.Role == state.Primary:
		return refuse(checkPeerPrimary(v))
	case !v.Ledger.Quorum:
		return alone(v)
	case peer && !v.Lease.PeerLapsed:
		return wait(checkHolder(v), v.Now+v.Settings.LapsePoll)
	case peer && !v.Lease.MajorityLapsed:
		return askLapsed(v)
	case v.connected() && v.Peer.Role == state.Primary:
		return steps(checkPeerPrimary(v).Text+": the session is ended", Disconnect)
	}
	if _, no := failing(v, hard); !no {
		return promote(v, forcedBy(v))
	}
	if r.Has(v.Self.Name) && len(r.InSync) == 1 && !peer { // forced already: the record is as the operator wants it
		return steps(forcedBy(v), LedgerPromote).then(v, bringUp...)
	}
	return steps(forcedBy(v), LedgerForce, LedgerPromote).then(v, bringUp...)
}

// alone leaves behind the voters without which there is no majority. For a
// while they are waited for: a majority that answers will choose a leader, and a
// lease that this node itself promised runs out.
func alone(v View) Decision {
	at := v.Wish.Since + v.Settings.HandOverGrace
	promised := v.Ledger.Known && v.Ledger.Record.Primary == v.Peer.Name && !v.Lease.PeerLapsed
	switch {
	case v.Now < at && v.Ledger.Answers:
		return wait(checkQuorum(v), at)
	case v.Now < at && promised:
		return wait(checkHolder(v), min(at, v.Now+v.Settings.LapsePoll))
	case promised || v.mine():
		return steps(forcedBy(v), ForceAlone)
	}
	return steps(forcedBy(v), ForceAlone, LedgerForce, LedgerPromote).then(v, bringUp...)
}

func forcedBy(v View) string {
	if v.Wish.Reason == "" {
		return "forced by the operator"
	}
	return "forced by the operator: " + v.Wish.Reason
}
