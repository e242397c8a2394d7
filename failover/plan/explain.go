package plan

import (
	"fmt"
	"strings"
	"time"

	"hapair/mirror/state"
)

// Explain tells everything that speaks for or against this node as Primary,
// in the order in which it is judged, and what a forced promotion may lose.
func Explain(v View) []Reason {
	var out []Reason
	if v.mine() || v.Self.Role == state.Primary {
		d := Next(v)
		out = append(out, Reason{Code: d.Code, OK: d.Code == CodeSettled, Text: d.Because, Hint: d.Hint})
	}
	rules := hard
	if !v.Ledger.Known {
		rules = unreadRules
	}
	for _, c := range rules {
		out = append(out, c(v))
	}
	for _, c := range soft {
		r := c(v)
		r.Unasked = r.Code != CodeSplitBrain
		out = append(out, r)
	}
	if r, no := manualWaits(v); no && v.Ledger.Record.Primary == v.Peer.Name {
		out = append(out, r)
	}
	out = append(out, explainFence(v)...)
	if f := v.Self.Failed; f.Remembered(v.Now) {
		out = append(out, Reason{Code: CodeFailures, OK: !v.exhausted(), Text: failedText(v) + "; " + remembered(v.Now, f), Hint: failuresHint(v)})
	}
	if f := v.Peer.Failed; f.Remembered(v.Now) {
		out = append(out, good(CodeFailures, "it failed on %s %d of %d times, as that told; %s", v.Peer.Name, f.Count, f.Limit, remembered(v.Now, f)))
	}
	if v.goesBack() && v.Self.Role == state.Primary {
		r := checkFailback(v)
		r.Unasked = true
		out = append(out, r)
	}
	return append(out, Losses(v)...)
}

// remembered says when failures count no longer.
func remembered(now time.Duration, f Failures) string {
	return fmt.Sprintf("last %s ago, forgotten in %s", ago(now-f.At), ago(f.Until-now))
}

// unreadRules are those that can be judged without the record.
var unreadRules = []check{checkRecord, checkArbitration, checkQuorum, checkDisk, checkResync, checkPeerPrimary}

// Losses tells what a forced promotion of this node may lose. Nothing is
// returned when nothing can be lost.
func Losses(v View) []Reason {
	var out []Reason
	add := func(format string, args ...any) {
		out = append(out, Reason{Code: CodeLoss, Loss: true, Text: fmt.Sprintf(format, args...)})
	}
	r := v.Ledger.Record
	if !v.Ledger.Known {
		r = v.Ledger.Old
		add("what is current is not known without the others: %s may hold acknowledged writes that this copy lacks; %s", v.Peer.Name, oldWord(r))
	}
	if r.Token != 0 && !r.Has(v.Self.Name) {
		add("%s holds acknowledged writes this copy lacks", v.Peer.Name)
	}
	target := v.Mirror.Replication == state.SyncSource || v.Mirror.Replication == state.PausedSyncS
	if v.Mirror.MissingBytes > 0 && !target { // what a target calls missing here it is about to be given
		add("%s were written on %s and are missing here", size(v.Mirror.MissingBytes), v.Peer.Name)
	}
	if v.Mirror.PeerNewer {
		add("the data of %s are of a newer generation", v.Peer.Name)
	}
	if v.Self.Disk == state.Inconsistent {
		add("this copy is part old, part new: its filesystem may be unusable")
	}
	if v.Self.Suspect && r.Has(v.Peer.Name) && !(v.connected() && v.Peer.Suspect) {
		add("this node crashed: what was acknowledged but never flushed may be missing here and present on %s", v.Peer.Name)
	}
	if !v.Ledger.Quorum && r.Primary == v.Peer.Name {
		add("%s may still be writing; if it is, both copies diverge (split brain) and one side's writes must be given up", v.Peer.Name)
	}
	if v.diverged() {
		add("split brain: %s is lost if this copy is kept; %s is lost if the other one is",
			only(v.Peer.Name, v.Mirror.OnlyThere, v.Mirror.Rival != state.RoleUnknown && !v.Mirror.Uncounted), only(v.Self.Name, v.Mirror.DirtyBytes, !v.Mirror.Uncounted))
	}
	return out
}

// oldWord is what this node's own log says.
func oldWord(r Record) string {
	if r.Token == 0 {
		return "nothing is known of the time before"
	}
	return fmt.Sprintf("when this node was last told, Primary was %s and in sync %s", orNone(r.Primary), orNone(strings.Join(r.InSync, " ")))
}

// only is what a node of a split brain has for itself, when known how much.
func only(node string, n uint64, known bool) string {
	if !known {
		return "what only " + node + " has"
	}
	return fmt.Sprintf("what only %s has (%s at most)", node, size(n))
}

func size(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, names := float64(n), []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := -1
	for f >= unit && i < len(names)-1 {
		f /= unit
		i++
	}
	return fmt.Sprintf("%.1f %s", f, names[i])
}
