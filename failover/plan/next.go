package plan

import (
	"time"

	"hapair/mirror/state"
)

// Next decides what to do in view v. It never returns a step whose conditions
// do not hold in v, and it holds back a step that just failed until the retry
// delay has passed.
func Next(v View) Decision { return throttle(v, undecided(v, situation(v))) }

func situation(v View) Decision {
	switch {
	case !v.Ledger.Known:
		return unread(v)
	case Lost(v):
		return takeDown(v)
	}
	return authorised(v)
}

// takeDown is a node on which something runs without authority. One that could not stop
// a service, and is no Primary, takes over all the same, or is told by force: else a
// script that ends with 1 would keep the only node left from serving. With the other
// services that one is started as well, which stops it first.
func takeDown(v View) Decision {
	if v.Services.StopFailed && v.Self.Role != state.Primary {
		if d := authorised(v); len(d.Steps) > 0 || d.Refused != nil {
			return d
		}
	}
	d := steps(lost(v), AbortLost)
	d.Code = CodeLost
	return d
}

// authorised is what comes next where nothing runs that should not.
func authorised(v View) Decision {
	r := v.Ledger.Record
	switch {
	case v.byFencing() && v.Fence.State == FenceConfirmed:
		return fenced(v)
	case v.mine():
		return holder(v)
	case v.Lease.Asked:
		return steps("this node is no longer Primary: its lease is handed back", ReleaseLease)
	case v.Wish.Kind == Promote && v.Wish.Force:
		return force(v)
	case r.Token == 0:
		return undeclared(v)
	case r.Primary == v.Peer.Name:
		return takeover(v)
	case r.Primary == v.Self.Name:
		return resume(v)
	case r.Primary != "":
		return waitf(CodeHolder, 0, "the ledger names %s as Primary, which is no node of this pair", r.Primary)
	}
	return vacant(v)
}

// unread is a node that has not heard yet what was committed before it began.
// Without the others it never does: then an operator decides.
func unread(v View) Decision {
	r, w := checkRecord(v), v.Wish
	at := w.Since + v.Settings.HandOverGrace
	switch {
	case w.Kind == Promote && w.Force && !v.Ledger.Quorum:
		return force(v)
	case w.Kind != NoWish && v.Now < at:
		return wait(r, at)
	case w.Kind != NoWish && !r.Passing:
		return refuse(r)
	}
	return wait(r, 0)
}

// lost says why this node has no authority for what runs here, "" if it has.
// A record that names us under a tenure we were not granted is a former life
// of this agent: resume decides, nothing is torn down.
func lost(v View) string {
	r := v.Ledger.Record
	switch {
	case r.Token == 0 && v.Self.Role != state.Primary:
		return "" // a new pair may be built below services that still use the bare disk
	case r.Primary == v.Self.Name:
		if v.Self.Role == state.Primary && v.Tenure != 0 && r.Tenure > v.Tenure {
			return "the ledger granted a higher tenure: what runs here has lost its authority"
		}
		return ""
	case r.Primary == "" && v.Self.Role != state.Primary && v.Maintenance:
		return "" // an administrator at work may run the services by hand
	case r.Primary == "":
		return "the ledger says that nobody is Primary: what runs here has no authority"
	}
	return "the ledger says that " + r.Primary + " is Primary: what runs here has lost its authority"
}

// Lost reports whether something runs here without authority: it is being taken
// down.
func Lost(v View) bool { return v.Ledger.Known && v.active() && lost(v) != "" }

// undeclared is a pair that never had a record.
func undeclared(v View) Decision {
	r := checkRecord(v)
	switch {
	case v.Wish.Kind == Promote || v.Wish.Kind == Switchover:
		return refuse(r)
	case !v.Ledger.Quorum:
		return wait(checkQuorum(v), 0)
	case v.connected() && v.Self.AssumeClean && v.Peer.AssumeClean && v.Self.Name < v.Peer.Name:
		return steps("a new pair, both copies declared identical by the operator", Declare)
	case v.connected() && v.Self.AssumeClean && v.Peer.AssumeClean:
		return waitf(CodeUndeclared, 0, "%s declares the new pair", v.Peer.Name)
	}
	return wait(r, 0)
}

// throttle holds back a step that just failed. Lost authority is retried as
// well, only not in a tight loop.
func throttle(v View, d Decision) Decision {
	t := v.Trouble
	if t.Count == 0 || t.Step != d.First().Kind || d.First().Kind == Nothing {
		return d
	}
	again := t.At + v.retryDelay()
	if v.Now >= again {
		return d
	}
	return waitf(CodeRetry, again, "%s failed (%s), next attempt in %s", t.Step, t.Text, ago(again-v.Now))
}

// retryDelay grows with the failures in a row. The ledger is asked again soon,
// because an election may be under way; everything else up to ten times the
// setting later.
func (v View) retryDelay() time.Duration {
	n := min(max(v.Trouble.Count, 1), 10)
	switch v.Trouble.Step {
	case Declare, AskLapsed, LedgerPromote, LedgerDemote, LedgerForce, HoldLease, ReleaseLease, FencePeer:
		return min(v.Settings.LapsePoll<<(n-1), v.Settings.RetryDelay)
	default: // no election mends it
		return time.Duration(n) * v.Settings.RetryDelay
	}
}
