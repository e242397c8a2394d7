package engine

import (
	"fmt"
	"slices"

	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

type action uint8

const (
	actNone    action = iota
	actWait           // nobody has declared which copy counts
	actNothing        // the copies are equal
	actSource         // this node's copy is sent
	actTarget         // this node's copy is replaced
	actFit            // a copy that holds nothing takes the size of the other
	actForward        // the Primary has no copy that serves: its requests go to the other
)

func (a action) String() string {
	return [...]string{"none", "wait", "nothing to resync", "SyncSource", "SyncTarget", "fitting sizes", "forwarding"}[a]
}

func (a action) inverse() action {
	switch a {
	case actSource:
		return actTarget
	case actTarget:
		return actSource
	default: // the same for both
		return a
	}
}

// decision is the outcome of a handshake, from one side's view.
type decision struct {
	action action
	full   []bool // by volume: everything is sent, not only what the bitmaps say
	why    string
	sizes  []int64 // actFit: what each volume of this node is to have, 0 as it is
	grows  bool    // then: those hold data, and are smaller than the peer's
	refuse *RefusedError
	given  bool   // a side gives up what only it has
	victim string // with a refusal for a split brain: who gives up by the policies
}

func refusal(s wire.Status, format string, args ...any) decision {
	return decision{refuse: &RefusedError{Status: s, Text: fmt.Sprintf(format, args...)}}
}

// judge decides what two copies owe each other. It is symmetric: judge(b, a)
// is the inverse of judge(a, b). The ledger says who is current, the
// generation identifiers guard against everything the ledger cannot know
// (swapped disks, a lost ledger, force), the bitmaps say which blocks.
func judge(mine, theirs *wire.HelloBody) decision {
	if mine.Role == state.Primary && theirs.Role == state.Primary { // before their sizes: one of them is about to hear that it is none
		return judgePrimaries(mine, theirs)
	}
	if d := judgeGeometry(mine, theirs); d.refuse != nil || d.action != actNone {
		return d
	}
	if d := judgeForward(mine, theirs); d.action != actNone {
		return d
	}
	if d := judgeDisks(mine, theirs); d.refuse != nil || d.action != actNone {
		return d
	}
	gen, d := judgeGenerations(mine, theirs)
	if d.refuse != nil {
		return judgeSplit(d, mine, theirs)
	}
	rec := newerRecord(mine.Record, theirs.Record)
	d = judgeCurrent(mine, theirs, rec, gen)
	if named := rec.Primary; d.action == actSource && named == theirs.Node && theirs.Role != state.Primary ||
		d.action == actTarget && named == mine.Node && mine.Role != state.Primary {
		return decision{action: actWait, why: fmt.Sprintf("%s would be overwritten, and the ledger still names it Primary", named)}
	}
	return judgeRoles(d, mine, theirs)
}

// judgePrimaries: two Primaries are not mirrored. Where both have written, a
// policy may have one of them give up, which then demotes first.
func judgePrimaries(mine, theirs *wire.HelloBody) decision {
	d := refusal(wire.BadState, "both nodes say they are Primary (token %d here, %d there)", mine.Record.Tenure, theirs.Record.Tenure)
	if g := judgeGeometry(mine, theirs); g.refuse != nil || g.action != actNone {
		return d // two sizes are no matter of a policy
	}
	_, g := judgeGenerations(mine, theirs)
	if g = judgeSplit(g, mine, theirs); g.refuse != nil && g.why != "" {
		d.victim, d.why = g.victim, g.why
		d.refuse.Text += "; " + g.why
	}
	return d
}

func newerRecord(a, b wire.Record) wire.Record {
	if b.Token > a.Token {
		return b
	}
	return a
}

// judgeDisks: nothing is mirrored without both disks. A Primary that has lost
// its own stays connected all the same: its peer can only then take over.
func judgeDisks(mine, theirs *wire.HelloBody) decision {
	for i := range mine.Volumes {
		a, b := &mine.Volumes[i], &theirs.Volumes[i]
		if a.Disk.HasData() && b.Disk.HasData() {
			continue
		}
		if mine.Role == state.Primary && !a.Disk.HasData() || theirs.Role == state.Primary && !b.Disk.HasData() {
			return decision{action: actWait, why: fmt.Sprintf("volume %d is %s on %s and %s on %s, and the Primary has to hand over", a.Number, a.Disk, mine.Node, b.Disk, theirs.Node)}
		}
		return refusal(wire.BadState, "volume %d is %s on %s and %s on %s", a.Number, a.Disk, mine.Node, b.Disk, theirs.Node)
	}
	return decision{}
}

// judgeGenerations merges the verdicts of all volumes: all must point the same
// way.
func judgeGenerations(mine, theirs *wire.HelloBody) (decision, decision) {
	if kept := keptSide(mine, theirs); kept != actNone {
		if d, ok := judgeGivenUp(mine, theirs, kept); ok {
			d.given = true
			return d, decision{}
		}
	}
	merged := decision{action: actNothing, why: "equal generations", full: make([]bool, len(mine.Volumes))}
	for i := range mine.Volumes {
		v := genid.Compare(genid.FromWords(mine.Volumes[i].Gen), genid.FromWords(theirs.Volumes[i].Gen))
		d, full := fromVerdict(v)
		if d.refuse != nil {
			d.refuse.Text = fmt.Sprintf("volume %d: %s", mine.Volumes[i].Number, d.refuse.Text)
			return d, d
		}
		merged.full[i] = full
		switch {
		case d.action == actNothing:
		case merged.action == actNothing:
			merged.action, merged.why = d.action, d.why
		case merged.action != d.action:
			r := refusal(wire.SplitBrain, "volume %d is newer on one node, another volume on the other", mine.Volumes[i].Number)
			return r, r
		}
	}
	return merged, decision{}
}

func fromVerdict(v genid.Verdict) (d decision, full bool) {
	switch v {
	case genid.Equal, genid.BothNew:
		return decision{action: actNothing, why: "equal generations"}, false
	case genid.SourceBitmap:
		return decision{action: actSource, why: "the peer's data are an ancestor of ours"}, false
	case genid.TargetBitmap:
		return decision{action: actTarget, why: "our data are an ancestor of the peer's"}, false
	case genid.SourceFull:
		return decision{action: actSource, why: "the peer's data are an old ancestor of ours"}, true
	case genid.TargetFull:
		return decision{action: actTarget, why: "our data are an old ancestor of the peer's"}, true
	case genid.SourceFullNew:
		return decision{action: actSource, why: "the peer's copy is new"}, true
	case genid.TargetFullNew:
		return decision{action: actTarget, why: "our copy is new"}, true
	case genid.SplitBrain, genid.SplitBrainFull:
		return refusal(wire.SplitBrain, "both copies were written without the other; hactl explain on both nodes tells what each has, and how to keep it"), false
	default: // genid.Unrelated
		return refusal(wire.Unrelated, "the copies have no common ancestor; was a disk swapped?"), false
	}
}

// judgeCurrent combines the ledger's in-sync set with the generations.
func judgeCurrent(mine, theirs *wire.HelloBody, rec wire.Record, gen decision) decision {
	me, them := slices.Contains(rec.InSync, mine.Node), slices.Contains(rec.InSync, theirs.Node)
	switch {
	case me && them:
		return judgeBothCurrent(mine, theirs, gen)
	case me:
		return judgeOneCurrent(gen, actSource, mine, theirs)
	case them:
		return judgeOneCurrent(gen, actTarget, theirs, mine)
	}
	return decision{action: actWait, why: "the ledger does not say yet which copy counts"}
}

// judgeOneCurrent: the ledger calls exactly one copy current.
func judgeOneCurrent(gen decision, want action, current, other *wire.HelloBody) decision {
	if gen.given && gen.action != want {
		d := refusal(wire.BadState, "%s gives up what it has, and the ledger calls only that current", current.Node)
		d.given = true
		return d
	}
	if gen.action != actNothing && gen.action != want {
		// Both may know an old record, just started: only the generations prove a split brain.
		return refusal(wire.BadState, "the ledger calls only %s current, but the data of %s are newer by their generation", current.Node, other.Node)
	}
	d := decision{action: want, full: wanted(gen.full, other), why: fmt.Sprintf("only %s is in the in-sync set", current.Node)}
	if !countsAsCurrent(current) {
		return refusal(wire.BadState, "the ledger calls only %s current, but its disk is not UpToDate", current.Node)
	}
	return d
}

// judgeBothCurrent: rule R3 (logs and bitmaps are merged even so) and R9 (the
// healthy copy is the source).
func judgeBothCurrent(mine, theirs *wire.HelloBody, gen decision) decision {
	a, b := countsAsCurrent(mine), countsAsCurrent(theirs)
	switch {
	case gen.action == actSource:
		return judgeSource(gen, mine, theirs)
	case gen.action == actTarget:
		return judgeSource(gen, theirs, mine)
	case !a && !b:
		return refusal(wire.BadState, "neither copy is UpToDate; force one of them Primary")
	case !a:
		return decision{action: actTarget, full: wanted(gen.full, mine), why: "our copy is not UpToDate"}
	case !b:
		return decision{action: actSource, full: wanted(gen.full, theirs), why: "the peer's copy is not UpToDate"}
	}
	if dirtyBlocks(mine)+dirtyBlocks(theirs) == 0 {
		return decision{action: actNothing, why: "both are in the in-sync set and nothing is dirty"}
	}
	first, why := preferredSource(mine, theirs)
	if first {
		return decision{action: actSource, full: gen.full, why: why}
	}
	return decision{action: actTarget, full: gen.full, why: why}
}

// judgeSource: the generations say who the source is; its copy has to be fit
// for it, or the good one would be taken out of the in-sync set first.
func judgeSource(gen decision, source, target *wire.HelloBody) decision {
	if !countsAsCurrent(source) {
		return refusal(wire.BadState, "by its generation %s is the source, but its copy is not UpToDate", source.Node)
	}
	gen.full = wanted(gen.full, target)
	return gen
}

// preferredSource is rule R9 for two current copies: the Primary, else the one
// that did not crash, else the last Primary, else the lower name.
func preferredSource(mine, theirs *wire.HelloBody) (bool, string) {
	switch {
	case mine.Role != theirs.Role && (mine.Role == state.Primary || theirs.Role == state.Primary):
		return mine.Role == state.Primary, "the Primary is the source"
	case mine.Suspect != theirs.Suspect:
		return theirs.Suspect, "the copy that did not crash is the source"
	case mine.LastPrimary != theirs.LastPrimary:
		return mine.LastPrimary, "the last Primary is the source"
	}
	return mine.Node < theirs.Node, "both copies are alike; the lower name is the source"
}

// judgeRoles: a Primary is never overwritten.
func judgeRoles(d decision, mine, theirs *wire.HelloBody) decision {
	if d.action == actTarget && mine.Role == state.Primary || d.action == actSource && theirs.Role == state.Primary {
		return refusal(wire.BadState, "the Primary would have to become the target of a resync (%s)", d.why)
	}
	return d
}

func dirtyBlocks(h *wire.HelloBody) (n uint64) {
	for i := range h.Volumes {
		n += h.Volumes[i].DirtyBlocks
	}
	return n
}

// countsAsCurrent is for a copy that the newest record has in the in-sync set.
// One that says Outdated goes by an older record, and does not know yet; so
// does one that was created as equal and waits to be declared. One that is to
// be replaced as a whole is current by no record.
func countsAsCurrent(h *wire.HelloBody) bool {
	for i := range h.Volumes {
		v := &h.Volumes[i]
		declared := v.Disk == state.Inconsistent && v.AssumeClean
		if v.FullSync || !v.Disk.CanServe() && v.Disk != state.Outdated && !declared {
			return false
		}
	}
	return true
}

// wanted is which volumes are sent whole: those whose generations ask for it,
// and those whose copy does.
func wanted(full []bool, target *wire.HelloBody) []bool {
	out := slices.Clone(full)
	for i := range out {
		out[i] = out[i] || target.Volumes[i].FullSync
	}
	return out
}
