package plan

import (
	"fmt"
	"strings"
	"time"

	"hapair/mirror/state"
)

// The conditions of a promotion. Each is one function with one sentence, used
// by Next, by refusals and by Explain alike. promote is the only place that
// issues LedgerPromote, and it asks all of the hard ones.

type check func(View) Reason

// hard are the conditions without which nobody is promoted unless forced, in
// the order they are told.
var hard = []check{checkRecord, checkArbitration, checkQuorum, checkHolder, checkInSync, checkDisk, checkResync, checkPeerPrimary, checkSuspect}

// soft are the conditions of a promotion that nobody asked for.
var soft = []check{checkRun, checkMaintenance, checkStandby, checkDown, checkSplitBrain}

// failing returns the first condition that does not hold.
func failing(v View, checks []check) (Reason, bool) {
	for _, c := range checks {
		if r := c(v); !r.OK {
			return r, true
		}
	}
	return Reason{}, false
}

func good(code Code, format string, args ...any) Reason {
	return Reason{Code: code, OK: true, Text: fmt.Sprintf(format, args...)}
}

func bad(code Code, hint, format string, args ...any) Reason {
	return Reason{Code: code, Hint: hint, Text: fmt.Sprintf(format, args...)}
}

func forceHint(v View) string {
	return fmt.Sprintf("hactl explain %s, then hactl promote %s --force", v.Resource, v.Resource)
}

func checkRecord(v View) Reason {
	r := v.Ledger.Record
	switch {
	case !v.Ledger.Known:
		x := bad(CodeNoRecord, "hactl status", "the ledger has not been read since this agent began")
		if x.Passing = v.Ledger.Quorum || v.Ledger.Answers; !x.Passing {
			x.Text, x.Hint = x.Text+", and cannot be: it has no quorum"+unfenced(v), forceHint(v)
		}
		return x
	case r.Token == 0:
		return bad(CodeUndeclared, fmt.Sprintf("hactl promote %s --force on the node whose data are good", v.Resource),
			"nobody has declared which copy of %s is good", v.Resource)
	}
	return good(CodeNoRecord, "the ledger says: token %d, Primary %s, in sync %s", r.Token, orNone(r.Primary), orNone(strings.Join(r.InSync, " ")))
}

func checkArbitration(v View) Reason {
	return good(CodeArbitration, "arbitration is by %s", v.Settings.Arbitration)
}

func checkQuorum(v View) Reason {
	switch {
	case v.Ledger.Quorum && v.Ledger.Alone:
		return good(CodeNoQuorum, "%s runs the ledger alone", v.Self.Name)
	case v.Ledger.Quorum:
		return good(CodeNoQuorum, "the ledger has a quorum")
	}
	if v.Ledger.Answers {
		x := bad(CodeNoQuorum, "", "a majority of the voters answers, but none of them leads the ledger yet")
		x.Passing = true
		return x
	}
	x := bad(CodeNoQuorum, forceHint(v), "the ledger has no quorum%s", unfenced(v))
	x.Passing = v.Settings.Arbitration == Witness
	return x
}

// unfenced says why no fence helps, where it could.
func unfenced(v View) string {
	switch {
	case v.Settings.Arbitration != Fencing:
		return ""
	case v.Fence.May != "":
		return fmt.Sprintf("; %s is not fenced: %s", v.Peer.Name, v.Fence.May)
	case v.Ledger.Record.Primary == "":
		return fmt.Sprintf("; nobody is Primary, so %s is not fenced", v.Peer.Name)
	}
	return ""
}

// checkHolder is rule R2: every earlier lease has certainly lapsed.
func checkHolder(v View) Reason {
	r := v.Ledger.Record
	switch {
	case r.Primary != v.Peer.Name:
		return good(CodeHolder, "no other node is Primary")
	case v.Lease.PeerLapsed && v.Lease.MajorityLapsed:
		return good(CodeHolder, "a majority says that the lease of %s has run out", r.Primary)
	case v.Lease.PeerLapsed:
		x := bad(CodeHolder, "", "the lease of %s has run out here; a majority has not said so yet", r.Primary)
		x.Passing = true
		return x
	}
	x := bad(CodeHolder, fmt.Sprintf("hactl switchover %s", v.Resource), "%s is Primary and may hold its lease (token %d)", r.Primary, r.Tenure)
	x.Passing = v.Peer.Verdict != Alive
	return x
}

func checkInSync(v View) Reason {
	r := v.Ledger.Record
	if r.Has(v.Self.Name) {
		return good(CodeNotInSync, "the ledger calls this copy current")
	}
	return bad(CodeNotInSync, fmt.Sprintf("bring %s back and let the resync finish, or %s", v.Peer.Name, forceHint(v)),
		"the ledger does not call this copy current: only %s is in sync", orNone(strings.Join(r.InSync, " ")))
}

func checkDisk(v View) Reason {
	if v.Self.Disk.CanServe() {
		return good(CodeDisk, "the local disk is %s", v.Self.Disk)
	}
	x := bad(CodeDisk, "hactl status "+v.Resource, "the local disk is %s", v.Self.Disk)
	x.Passing = v.Self.Disk == state.Attaching
	if v.Self.Disk == state.Diskless || v.Self.Disk == state.Failed {
		x.Hint = diskHint(v)
	}
	return x
}

func diskHint(v View) string {
	return "mend or replace the disk, then hactl attach " + v.Resource + " (--create-metadata for another disk)"
}

func checkResync(v View) Reason {
	if v.Mirror.Replication == state.SyncTarget || v.Mirror.Replication == state.PausedSyncT {
		x := bad(CodeResync, "hactl status --watch", "this copy is the target of a resync (%s)", v.Mirror.Replication)
		x.Passing = true
		return x
	}
	return good(CodeResync, "no resync runs to this copy")
}

// checkPeerPrimary keeps two Primaries off one mirror session. The session
// with a Primary whose lease has run out is ended first (see takeover.go).
func checkPeerPrimary(v View) Reason {
	if v.connected() && v.Peer.Role == state.Primary {
		x := bad(CodePeerPrimary, "hactl switchover "+v.Resource, "%s is connected and calls itself Primary", v.Peer.Name)
		x.Passing = true
		return x
	}
	return good(CodePeerPrimary, "no Primary is connected")
}

// checkSuspect is rule R8. A reachable peer of which nothing is known counts
// as healthy: unknown is not outdated.
func checkSuspect(v View) Reason {
	if !v.Self.Suspect {
		return good(CodeSuspect, "this node did not crash since its copy was last in line")
	}
	if !v.peerInSync() {
		return good(CodeSuspect, "this node crashed, but its copy is the only one in sync")
	}
	if v.Peer.Left {
		return bad(CodeSuspect, fmt.Sprintf("systemctl start hapair on %s, or hactl promote %s --force", v.Peer.Name, v.Resource),
			"this node crashed, and %s, in sync, was stopped in order with a better copy", v.Peer.Name)
	}
	unheard := v.Peer.Verdict == Unheard && v.Now < v.Started+v.Settings.ColdGrace // not yet, which says nothing
	if !v.peerReachable() && !unheard {
		return good(CodeSuspect, "this node crashed, but %s is not reachable (%s)", v.Peer.Name, v.Peer.Verdict)
	}
	if v.connected() && (v.Peer.Suspect || !v.Peer.Disk.CanServe()) {
		return good(CodeSuspect, "this node crashed, but %s is not healthy either", v.Peer.Name)
	}
	return bad(CodeSuspect, fmt.Sprintf("hactl promote %s on %s", v.Resource, v.Peer.Name),
		"this node crashed and %s, in sync, is reachable: it goes first", v.Peer.Name)
}

func checkRun(v View) Reason {
	if v.Settings.Run {
		return good(CodeNotAsked, "the resource runs by itself")
	}
	return bad(CodeNotAsked, "hactl promote "+v.Resource, "%s has no services and no auto-promote: it waits to be promoted", v.Resource)
}

func checkMaintenance(v View) Reason {
	if !v.Maintenance {
		return good(CodeMaintenance, "no maintenance")
	}
	return bad(CodeMaintenance, "hactl maintenance off", "maintenance is on: nothing is promoted by itself")
}

// checkConnected is for a hand-over: the Primary gives up nothing to a copy
// that does not follow it.
func checkConnected(v View) Reason {
	if v.connected() {
		return good(CodePeerCannot, "%s is connected", v.Peer.Name)
	}
	return bad(CodePeerCannot, "hactl connect "+v.Resource, "%s is not connected (%s): it would not hand over", v.Peer.Name, v.Mirror.Connection)
}

func checkStandby(v View) Reason {
	if !v.Self.Standby {
		return good(CodeStandby, "%s is not on standby", v.Self.Name)
	}
	return bad(CodeStandby, "hactl standby --off "+v.Self.Name, "%s is on standby", v.Self.Name)
}

func checkDown(v View) Reason {
	if !v.Down {
		return good(CodeDown, "the operator did not demote it")
	}
	return bad(CodeDown, "hactl promote "+v.Resource, "the operator demoted %s: it stays down until somebody promotes it", v.Resource)
}

func checkSplitBrain(v View) Reason {
	hint := fmt.Sprintf("hactl explain %s on both nodes; then, on the one to give up, hactl connect %s --discard-my-data", v.Resource, v.Resource)
	switch {
	case !v.diverged():
		return good(CodeSplitBrain, "the copies did not diverge")
	case v.Self.Role == state.Primary && v.Mirror.Rival == state.Primary:
		return bad(CodeSplitBrain, hint, "split brain: %s and %s are both Primary", v.Self.Name, v.Peer.Name)
	case v.Mirror.SplitBrain:
		return bad(CodeSplitBrain, hint, "split brain: both copies hold data the other lacks")
	}
	return bad(CodeSplitBrain, hint, "split brain: both nodes went on with a ledger of their own")
}

// peerCanTake reports whether the peer could be Primary at once. It is asked
// before this node gives anything up.
func peerCanTake(v View) Reason {
	p := v.Peer
	hint := "hactl status " + v.Resource
	switch {
	case !v.connected():
		return bad(CodePeerCannot, "hactl connect "+v.Resource, "%s is not connected (%s, heartbeat %s)", p.Name, v.Mirror.Connection, p.Verdict)
	case p.Verdict == Dead:
		return bad(CodePeerCannot, hint, "%s is dead to the heartbeat", p.Name)
	case !v.peerInSync():
		return bad(CodePeerCannot, "hactl status --watch", "%s is not in sync: %s", p.Name, v.Mirror.Replication)
	case !p.Disk.CanServe():
		return bad(CodePeerCannot, hint, "the disk of %s is %s", p.Name, p.Disk)
	case p.Suspect && !v.Self.Suspect:
		return bad(CodePeerCannot, hint, "%s crashed and is not yet brought in line", p.Name)
	case p.Standby:
		return bad(CodePeerCannot, "hactl standby --off "+p.Name, "%s is on standby", p.Name)
	case v.peerExhausted():
		return bad(CodePeerCannot, fmt.Sprintf("mend the service on %s, then hactl cleanup %s", p.Name, v.Resource),
			"it failed on %s %d times, last %s ago", p.Name, p.Failed.Count, ago(v.Now-p.Failed.At))
	}
	return good(CodePeerCannot, "%s can take it", p.Name)
}

// promote issues the promotion, or says which hard condition does not hold.
func promote(v View, because string) Decision {
	if r, no := failing(v, hard); no {
		return wait(r, 0)
	}
	return steps(because, LedgerPromote).then(v, bringUp...)
}

var bringUp = []Kind{HoldLease, MirrorPromote, StartServices}

// then appends the steps that follow, without those there is nothing to do for.
func (d Decision) then(v View, kinds ...Kind) Decision {
	for _, k := range kinds {
		if k == StartServices && !v.Settings.HasServices {
			continue
		}
		s := Step{Kind: k}
		if k == HandOver || k == AskPeer {
			s.Node = v.Peer.Name
		}
		d.Steps = append(d.Steps, s)
	}
	return d
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func ago(d time.Duration) string {
	if d < time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	text := d.Round(100 * time.Millisecond).String()
	for _, zero := range []string{"m0s", "h0m"} { // 10m0s reads worse than 10m
		if cut, ok := strings.CutSuffix(text, zero); ok {
			text = cut + zero[:1]
		}
	}
	return text
}
