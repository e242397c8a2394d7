package plan

import (
	"time"

	"hapair/mirror/state"
)

// Failback is what is known of going back to the preferred node by itself.
type Failback struct {
	Fit   time.Duration // since when the preferred node has been fit to take it; 0: it is not
	Stay  bool          // an operator moved the resource away from it
	Tries int           // how often it went back lately, to no avail
	At    time.Duration // the last time
}

// failbackMax bounds how long a failback is put off.
const failbackMax = 24 * time.Hour

// checkFailback says whether the preferred node could have the resource back. It
// is asked of a Primary that rests; the node must be without any blemish, as there
// is no need to move.
func checkFailback(v View) Reason {
	r := fitness(v)
	r.Code = CodeFailback
	return r
}

func fitness(v View) Reason {
	p := v.Peer.Name
	switch {
	case v.Failback.Stay:
		return bad(CodeFailback, "hactl switchover "+v.Resource+" --to "+p, "%s is preferred, but an operator moved %s away from it", p, v.Resource)
	case v.Maintenance:
		return checkMaintenance(v)
	case !peerCanTake(v).OK:
		return peerCanTake(v)
	case v.Mirror.Replication != state.Established:
		return bad(CodeFailback, "hactl status "+v.Resource, "%s is preferred, but the copies are not in line (%s)", p, v.Mirror.Replication)
	case v.Peer.Verdict != Alive:
		return bad(CodeFailback, "hactl status", "%s is preferred, but %s to the heartbeat", p, v.Peer.Verdict)
	case v.Peer.Suspect:
		return bad(CodeFailback, "hactl status", "%s is preferred, but it crashed and is not yet brought in line", p)
	case v.Peer.Failed.Remembered(v.Now):
		return bad(CodeFailback, "hactl cleanup "+v.Resource, "%s is preferred, but it failed there %s ago", p, ago(v.Now-v.Peer.Failed.At))
	}
	return good(CodeFailback, "%s is preferred and fit", p)
}

// goesBack reports whether this is a node that gives back by itself.
func (v View) goesBack() bool {
	return v.Settings.FailbackAfter > 0 && v.Settings.Preferred == v.Peer.Name
}

// Fit reports whether a view speaks for a failback: of a Primary that rests, on
// the node that is not preferred. How long that has been so is remembered by
// whoever looks.
func Fit(v View) bool {
	rests := v.mine() && v.leaseValid() && v.Self.Role == state.Primary && v.Wish.Kind == NoWish && !v.Self.Standby &&
		(!v.Settings.HasServices || v.Services.State == Started)
	return rests && v.goesBack() && checkFailback(v).OK
}

// failbackWait is how long the preferred node must have been fit: twice as long for
// each time that the resource went back to no avail.
func (v View) failbackWait() time.Duration {
	return min(v.Settings.FailbackAfter<<min(v.Failback.Tries, 12), max(failbackMax, v.Settings.FailbackAfter))
}

// failback is a Primary that rests on the node that is not preferred. why is told
// beside what else there is to tell, and at is when to look again.
func failback(v View) (d Decision, due bool, why string, at time.Duration) {
	if !v.goesBack() {
		return Decision{}, false, "", 0
	}
	if r := checkFailback(v); !r.OK {
		return Decision{}, false, "it does not go back: " + r.Text, 0
	}
	if v.Failback.Fit == 0 {
		return Decision{}, false, "", v.Now + v.Settings.LapseLook // it is seen the next time
	}
	at = v.Failback.Fit + v.failbackWait()
	if v.Now < at {
		return Decision{}, false, v.Peer.Name + " is preferred and fit: it goes back there in " + ago(at-v.Now), at
	}
	return steps(v.Peer.Name+" is preferred and has been fit for "+ago(v.Now-v.Failback.Fit), GoBack), true, "", 0
}
