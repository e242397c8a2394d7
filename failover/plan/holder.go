package plan

import (
	"fmt"
	"time"

	"hapair/mirror/state"
)

// holder decides for the node the record names, under its own grant. A
// Primary that holds its lease and does its work is left alone.
func holder(v View) Decision {
	w := v.Wish
	leaving := w.Kind == Demote || w.Kind == Switchover && w.Target == v.Peer.Name
	switch {
	case w.Kind == Demote && w.Force && v.active() && !v.leaseValid():
		// whoever waits for frozen I/O cannot be stopped before it fails
		return steps("forced by the operator, and I/O is frozen: what waits for it fails", AbortLost).then(v, LedgerDemote, ReleaseLease)
	case v.Owed && !v.active() && w.Kind == NoWish:
		return tellDemotion(v)
	case w.Kind == Demote && w.Force: // a forced switchover still asks whether the peer can take it
		return descend(v, "forced by the operator")
	case !v.Lease.Asked:
		return steps("the ledger names this node Primary", HoldLease).then(v, bringUp[1:]...)
	case !v.leaseValid():
		return frozen(v)
	case leaving:
		return leave(v)
	case v.Self.Standby && !v.Maintenance:
		return standby(v)
	case v.Self.Role != state.Primary || v.Self.Tenure != v.Ledger.Record.Tenure:
		return openMirror(v)
	}
	return running(v)
}

// tellDemotion is a node that was demoted by force while nobody could be told.
func tellDemotion(v View) Decision {
	if !v.Ledger.Quorum {
		d := waitf(CodeDown, 0, "the operator demoted %s here by force; the ledger, which has no quorum, is told when it has one", v.Resource)
		d.Hint = "hactl promote " + v.Resource
		return d
	}
	return steps("the operator demoted it here by force while there was no quorum", LedgerDemote).then(v, ReleaseLease)
}

// frozen is a Primary without a valid lease: its I/O is frozen by the engine, or its
// devices are not open yet. It tears nothing down, because it may get the lease back;
// only the record can take its authority away. What this process was granted is what
// makes it the one that goes on without its peer, and a copy that can serve.
func frozen(v View) Decision {
	r := v.Ledger.Record
	goesOn := r.Has(v.Self.Name) && (v.Self.Role == state.Primary || v.Self.Disk.CanServe())
	gone := (v.Peer.Verdict == Dead || v.Peer.Verdict == Unheard) && v.Mirror.Connection != state.Connected
	switch {
	case v.Wish.Kind == Promote && v.Wish.Force && !v.Ledger.Quorum:
		return alone(v)
	case v.Wish.Kind != Promote && v.Wish.Kind != NoWish && v.Lease.Own.Tenure == r.Tenure:
		return refuse(bad(CodeFrozen, fmt.Sprintf("hactl demote %s --force", v.Resource),
			"I/O is frozen: the lease of token %d has run out and an orderly demotion needs it", r.Tenure))
	case v.Settings.Arbitration == Manual && !v.Ledger.Quorum && gone && goesOn:
		return steps(fmt.Sprintf("%s is %s and arbitration is manual: the Primary goes on alone, the Secondary never promotes itself",
			v.Peer.Name, v.Peer.Verdict), GoAlone)
	case v.byFencing() && goesOn:
		return frozenByFencing(v)
	case v.Lease.Own.Tenure != r.Tenure:
		d := waitf(CodeLease, v.Now+v.Settings.LapsePoll, "the lease of token %d was asked for", r.Tenure)
		if !v.Ledger.Quorum && !v.Ledger.Answers {
			d.Hint = forceHint(v)
		}
		return d
	case !v.Ledger.Quorum:
		return waitf(CodeFrozen, v.Now+v.Settings.LapseLook, "I/O is frozen: the lease has run out and the ledger has no quorum; still asking")
	}
	return waitf(CodeFrozen, v.Now+v.Settings.LapsePoll, "I/O is frozen: the lease has run out; still asking for it")
}

// openMirror goes on from the grant to a device that can be written.
func openMirror(v View) Decision {
	force := v.Wish.Kind == Promote && v.Wish.Force
	serve := v.Self.Disk.CanServe() || force && v.Self.Disk.HasData()
	switch {
	case !serve && v.Self.Disk != state.Attaching:
		return giveBack(v, fmt.Sprintf("the local disk is %s", v.Self.Disk))
	case !serve:
		return wait(checkDisk(v), 0)
	case v.exhausted() && peerCanTake(v).OK:
		return giveBack(v, failedText(v))
	case v.connected() && v.Peer.Role == state.Primary:
		// the session with the old Primary must not carry two of them
		return steps(checkPeerPrimary(v).Text+" by an older tenure: the session is ended", Disconnect)
	}
	if again := v.retryAt(); again != 0 {
		return retryLater(v, again)
	}
	d := steps("the lease is held", MirrorPromote)
	d.Steps[0].Force = force
	return d.then(v, bringUp[2:]...)
}

// reopen is a Primary with its lease whose devices could not all be offered. What
// runs on it waits for them; where they are not to be had, the peer takes it.
func reopen(v View) Decision {
	again := v.retryAt()
	switch {
	case v.exhausted():
		return tooOften(v, MirrorPromote)
	case again != 0:
		return retryLater(v, again)
	}
	d := steps("the lease is held, and not all devices are offered", MirrorPromote)
	if v.Services.State == Started {
		return d
	}
	return d.then(v, StartServices)
}

// running is a Primary with its lease and, but for a failure, its devices open.
func running(v View) Decision {
	forwarding := v.Mirror.Replication == state.Forwarding
	if d, waits := awaitKeeper(v); waits {
		return d
	}
	if !forwarding && !v.Self.Disk.CanServe() && !v.Maintenance && (peerCanTake(v).OK || diskGone(v) && peerMayTake(v)) {
		return forsake(v, fmt.Sprintf("the local disk is %s", v.Self.Disk))
	}
	switch {
	case v.Mirror.Unopened:
		return reopen(v)
	case !v.Settings.HasServices || v.Services.State == Started:
		text := fmt.Sprintf("%s is Primary and holds its lease", v.Self.Name)
		if v.Self.Standby {
			text += "; it is on standby, and hands over when maintenance ends"
		}
		if forwarding {
			return Decision{Code: CodeForward, Because: fmt.Sprintf("%s; %s; reads and writes go to %s", text, givenUp(v), v.Peer.Name),
				Hint: fmt.Sprintf("hactl switchover %s, then mend the disk", v.Resource)}
		}
		if !v.Self.Disk.CanServe() {
			what := "fails"
			if v.Mirror.Forwards {
				what = "waits for " + v.Peer.Name
			}
			text += fmt.Sprintf("; its disk is %s and its I/O %s: %s", v.Self.Disk, what, peerCanTake(v).Text)
		}
		return rest(v, text)
	case v.Maintenance && (v.Tried || v.exhausted()):
		return leftAlone(v)
	case v.Services.State == Broken:
		return mendBroken(v)
	case v.exhausted():
		return tooOften(v, StartServices)
	}
	if again := v.retryAt(); again != 0 {
		return retryLater(v, again)
	}
	return steps("the devices are open", StartServices)
}

// leftAlone is a Primary in maintenance whose services are as somebody, or a
// failure, has left them. Those that a promotion needs are started even then, once:
// whoever asked for it, or restarted an agent, does not want them down everywhere.
func leftAlone(v View) Decision {
	d := waitf(CodeMaintenance, 0, "%s is Primary; maintenance is on: its services (%s) are left alone", v.Self.Name, v.Services.State)
	d.Hint = "hactl maintenance off"
	return d
}

// rest is a Primary with nothing to do, but to go back where it is preferred.
func rest(v View, text string) Decision {
	d, due, why, at := failback(v)
	if due && v.Wish.Kind == NoWish {
		return d
	}
	if why != "" {
		text += "; " + why
	}
	return waitf(CodeSettled, at, "%s", text)
}

// awaitKeeper is a Primary that has given its copy up while its requests wait
// for the peer: the ledger and the peer are at it, or the session has just
// broken. One that does not come back gets the resource instead.
func awaitKeeper(v View) (Decision, bool) {
	if !v.Mirror.Forwards || v.Mirror.Replication == state.Forwarding || !v.peerInSync() {
		return Decision{}, false
	}
	at := v.Mirror.Since + v.Settings.ForwardGrace
	if v.connected() {
		at = 0
	} else if v.Now >= at {
		return Decision{}, false
	}
	return waitf(CodeForward, at, "%s; reads and writes wait for %s, which has the data", givenUp(v), v.Peer.Name), true
}

// givenUp says why a Primary does not use its own copy.
func givenUp(v View) string { return fmt.Sprintf("the local disk is %s", v.Self.Disk) }

// forsake hands the resource to the peer although nothing here can be stopped
// in order: the device answers with errors.
func forsake(v View, because string) Decision {
	d := steps(because)
	if v.Settings.HasServices && v.Services.State != Stopped {
		d.Steps = append(d.Steps, Step{Kind: StopServices, Force: true})
	}
	d.Steps = append(d.Steps, Step{Kind: MirrorDemote, Force: true})
	return d.then(v, LedgerDemote, ReleaseLease, HandOver)
}

// mendBroken restarts in place what failed and what depends on it, at once the
// first time, and hands over when that was in vain. A stop that failed, because
// somebody uses what was to be stopped, is only forced when the peer has to take
// over: a Primary in good order kills nobody, and starts again what had been
// stopped.
func mendBroken(v View) Decision {
	if v.exhausted() && peerCanTake(v).OK {
		d := steps(failedText(v), StopServices)
		d.Steps[0].Force = v.Services.StopFailed
		return d.then(v, MirrorDemote, LedgerDemote, ReleaseLease, HandOver)
	}
	again := v.retryAt()
	switch {
	case v.Services.StopFailed:
		return steps(failedText(v)+": what was stopped is started again", StartServices)
	case v.exhausted():
		return tooOften(v, RestartServices)
	case again != 0 && v.Self.Failed.Count > 1:
		return retryLater(v, again)
	}
	return steps(failedText(v)+": restarted in place", RestartServices)
}

// retryLater waits with what failed here.
func retryLater(v View, at time.Duration) Decision {
	return waitf(CodeRetry, at, "%s, next attempt in %s", failedText(v), ago(at-v.Now))
}

// tooOften hands a resource that does not come up here to the peer, unless
// the peer failed as well or is not there, or maintenance is on: then the operator is
// told, and it is tried again here by the step given, ever more seldom.
func tooOften(v View, again Kind) Decision {
	peer := peerCanTake(v)
	stays := peer.Text
	switch {
	case v.Maintenance:
		stays = "maintenance is on: it is not moved"
	case peer.OK:
		return descend(v, failedText(v))
	}
	f := v.Self.Failed
	at := min(f.At+v.Settings.RetryDelay<<min(f.Count, 20), f.Until)
	if v.Now >= at {
		return steps(failedText(v)+"; "+stays+": it is tried again here", again)
	}
	return Decision{
		Code: CodeFailures, Because: failedText(v) + "; " + stays,
		Hint: failuresHint(v), At: at,
	}
}

// failuresHint is what an operator does on a node that failed too often: the
// command there makes it forget.
func failuresHint(v View) string {
	if v.Ledger.Record.Primary == v.Peer.Name {
		return fmt.Sprintf("mend the service, then hactl switchover %s --to %s", v.Resource, v.Self.Name)
	}
	return "mend the service, then hactl cleanup " + v.Resource
}

func failedText(v View) string {
	f := v.Self.Failed
	what := f.What
	if v.Services.State == Broken && v.Services.Failed != "" {
		what = v.Services.Failed
	}
	times := fmt.Sprintf(" %d of %d times", f.Count, f.Limit)
	switch {
	case !f.Remembered(v.Now):
		times = ""
	case f.Count > f.Limit:
		times = fmt.Sprintf(" %d times", f.Count)
	}
	return fmt.Sprintf("failed on %s%s: %s", v.Self.Name, times, orNone(what))
}
