package plan

import (
	"fmt"
	"time"

	"hapair/mirror/state"
)

// FenceState is what became of the last fence of the peer that this node asked for.
type FenceState uint8

// The states.
const (
	FenceNone      FenceState = iota
	FenceAsked                // not decided yet
	FenceConfirmed            // the peer was off, and the two have not met since
	FenceFailed               // refused, or of unknown outcome: the same (rule R22)
	FenceVoid                 // not decided, and asked for before the two met again or in a former life: it will not count (R26)
)

// String returns the word for the state.
func (s FenceState) String() string {
	return word(int(s), "none", "asked", "confirmed", "failed", "void")
}

// Undecided reports whether a fence that this node asked for may still strike:
// nothing is handed over before that is known (rule R24).
func (s FenceState) Undecided() bool { return s == FenceAsked || s == FenceVoid }

// Fence is what arbitration by fencing knows on this node; zero elsewhere.
type Fence struct {
	State    FenceState
	Since    time.Duration // when it became what it is
	May      string        // why no fence may be asked for now, "" if it may
	Text     string        // what the devices said of the last one that failed
	Failures int           // in a row, since the two parted
	Unready  string        // why the devices could not be used, by their last monitor; "" if they could
	// First says that this node does not wait with its fence: it is the Primary
	// of all that has one or, where both nodes are Primary, the first by name.
	First bool
}

// byFencing reports whether a fence is what decides now: the peer is gone, and
// with it the quorum of two.
func (v View) byFencing() bool {
	return v.Settings.Arbitration == Fencing && !v.Ledger.Quorum && !v.Ledger.Answers
}

// fenced goes on alone: nobody else holds anything.
func fenced(v View) Decision {
	text := "confirmed"
	if v.Fence.Text != "" {
		text = v.Fence.Text
	}
	return steps(fmt.Sprintf("%s is fenced (%s): this node goes on alone", v.Peer.Name, text), GoAlone)
}

// fence has the peer fenced when that is due.
func fence(v View) Decision {
	if r, at := checkFence(v); !r.OK {
		return wait(r, at)
	}
	d := steps(fmt.Sprintf("%s is %s and arbitration is by fencing", v.Peer.Name, v.Peer.Verdict))
	d.Steps = append(d.Steps, Step{Kind: FencePeer, Node: v.Peer.Name}, Step{Kind: GoAlone})
	return d
}

// checkFence says whether the peer is to be fenced now, by a node that would go
// on. at is when that changes by itself, 0 when something has to happen first.
func checkFence(v View) (r Reason, at time.Duration) {
	p, f := v.Peer.Name, v.Fence
	passing := func(at time.Duration, format string, args ...any) (Reason, time.Duration) {
		x := bad(CodeFence, "", format, args...)
		x.Passing = true
		return x, at
	}
	switch {
	case v.Maintenance:
		return bad(CodeMaintenance, fmt.Sprintf("hactl fence %s; or %s", p, forceHint(v)), "%s is %s; maintenance is on: nothing is fenced", p, v.Peer.Verdict), 0
	case f.State == FenceAsked:
		return passing(0, "%s is being fenced, asked for %s ago", p, ago(v.Now-f.Since))
	case f.State == FenceVoid:
		return passing(0, "a fence of %s that does not count any more is not decided yet", p)
	case f.May != "":
		return bad(CodeFence, forceHint(v), "%s is not fenced: %s", p, f.May), 0
	case v.Peer.Verdict != Dead || v.Mirror.Connection == state.Connected:
		return passing(0, "%s is %s, its mirror %s: it is fenced when it is dead and not connected", p, v.Peer.Verdict, v.Mirror.Connection)
	}
	if again := f.Since + v.fenceBackoff(); f.State == FenceFailed && v.Now < again {
		x, at := passing(again, "fencing %s failed, attempt %d: %s; the next one in %s", p, f.Failures, orNone(f.Text), ago(again-v.Now))
		x.Hint = fmt.Sprintf("switch %s off and see that it is, then hactl fence-confirm %s --i-have-checked; or %s", p, p, forceHint(v))
		return x, at
	}
	if due := max(v.Peer.Since, v.Mirror.Since) + v.Settings.FenceDelay; !f.First && v.Now < due {
		return passing(due, "%s fences first if it lives: this node fences it in %s", p, ago(due-v.Now))
	}
	return good(CodeFence, "%s is %s: it can be fenced now", p, v.Peer.Verdict), 0
}

// fenceBackoff is the time from a failed fence to the next.
func (v View) fenceBackoff() time.Duration {
	return v.Settings.FenceRetry << min(max(v.Fence.Failures-1, 0), 3)
}

// fenceToTakeOver is a Secondary whose Primary is gone (rule R23). It fences only
// what it could take over from: for anything else nothing would be gained.
func fenceToTakeOver(v View) Decision {
	asked := v.Wish.Kind == Promote || v.Wish.Kind == Switchover
	own := []check{checkSplitBrain, checkRecord, checkInSync, checkDisk, checkResync, checkCrashed}
	if !asked {
		own = append(own, soft...)
	}
	r, no := failing(v, own)
	if !no {
		r, _ = checkFence(v)
	}
	switch {
	case asked && !r.OK && !r.Passing:
		return refuse(r)
	case no:
		return wait(r, 0)
	}
	return fence(v)
}

// checkCrashed keeps a copy that is in doubt from fencing a better one.
func checkCrashed(v View) Reason {
	if !v.Self.Suspect {
		return good(CodeSuspect, "this node did not crash since its copy was last in line")
	}
	return bad(CodeSuspect, forceHint(v), "this node crashed since its copy was last in line: it does not fence %s to take over", v.Peer.Name)
}

// frozenByFencing is a Primary whose peer is gone, and with it its lease.
func frozenByFencing(v View) Decision {
	d := fence(v)
	switch {
	case len(d.Steps) > 0:
	case v.Self.Role != state.Primary:
		d.Because = fmt.Sprintf("the lease of token %d was asked for; %s", v.Ledger.Record.Tenure, d.Because)
	default:
		d.Because = "I/O is frozen: the lease has run out; " + d.Because
	}
	return d
}

// undecided holds back what would hand anything over while a fence that this node
// asked for may still strike (rule R24). What takes down work without authority
// is not held back.
func undecided(v View, d Decision) Decision {
	if !v.Fence.State.Undecided() || d.First().Kind == AbortLost {
		return d
	}
	for _, s := range d.Steps {
		if s.Kind != LedgerDemote && s.Kind != HandOver && s.Kind != GoBack {
			continue
		}
		r := bad(CodeFence, "hactl status "+v.Resource+"; again when it is decided", "a fence of %s, asked for %s ago, is not decided yet: nothing is handed over before",
			v.Peer.Name, ago(v.Now-v.Fence.Since))
		if v.Wish.Kind != NoWish {
			return refuse(r)
		}
		return wait(r, 0)
	}
	return d
}

// explainFence tells what a fence would be in the way of, or is.
func explainFence(v View) []Reason {
	if v.Settings.Arbitration != Fencing {
		return nil
	}
	var out []Reason
	if v.Fence.Unready != "" {
		r := bad(CodeFenceDevice, "hactl status", "%s could not be fenced now: %s", v.Peer.Name, v.Fence.Unready)
		r.Unasked = true
		out = append(out, r)
	} else {
		out = append(out, good(CodeFenceDevice, "%s could be fenced, by the last monitor of its devices", v.Peer.Name))
	}
	if primary := v.Ledger.Record.Primary; v.byFencing() && primary != "" && v.Fence.State != FenceConfirmed {
		r, _ := checkFence(v)
		out = append(out, r)
	}
	return out
}
