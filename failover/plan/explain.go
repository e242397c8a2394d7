package plan

import (
	"fmt"

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
	for _, c := range hard {
		out = append(out, c(v))
	}
	for _, c := range soft {
		out = append(out, c(v))
	}
	if r, no := manualWaits(v); no && v.Ledger.Record.Primary == v.Peer.Name {
		out = append(out, r)
	}
	if v.exhausted() {
		out = append(out, bad(CodeFailures, failuresHint(v), "%s", failedText(v)))
	}
	return append(out, Losses(v)...)
}

// Losses tells what a forced promotion of this node may lose. Nothing is
// returned when nothing can be lost.
func Losses(v View) []Reason {
	var out []Reason
	add := func(format string, args ...any) {
		out = append(out, Reason{Code: CodeLoss, Loss: true, Text: fmt.Sprintf(format, args...)})
	}
	r := v.Ledger.Record
	if r.Token != 0 && !r.Has(v.Self.Name) {
		add("%s holds acknowledged writes this copy lacks", v.Peer.Name)
	}
	if v.Mirror.MissingBytes > 0 {
		add("%s were written on %s and are missing here", size(v.Mirror.MissingBytes), v.Peer.Name)
	}
	if v.Mirror.PeerNewer {
		add("the data of %s are of a newer generation", v.Peer.Name)
	}
	if v.Self.Disk == state.Inconsistent {
		add("this copy is part old, part new: its filesystem may be unusable")
	}
	if v.Self.Suspect && v.peerInSync() && !(v.connected() && v.Peer.Suspect) {
		add("this node crashed: what was acknowledged but never flushed may be missing here and present on %s", v.Peer.Name)
	}
	if !v.Ledger.Quorum && r.Primary == v.Peer.Name {
		add("%s may still be writing; if it is, both copies diverge (split brain) and one side's writes must be given up", v.Peer.Name)
	}
	if v.Mirror.SplitBrain {
		add("the copies diverged: what only %s holds is lost when this copy wins", v.Peer.Name)
	}
	return out
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
