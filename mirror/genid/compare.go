package genid

// Verdict is what a comparison of two sets asks for, seen from "mine". The zero
// Verdict is none. Disk states, crashes and the operator's word may override
// the direction; that is not judged here.
type Verdict uint8

// The verdicts.
const (
	NoVerdict      Verdict = iota
	Equal                  // same generation: only what the bitmaps and activity logs say is out of sync
	BothNew                // neither copy was ever written
	TargetFullNew          // only mine is new: I am target, full resync
	SourceFullNew          // only the peer's is new: I am source, full resync
	TargetBitmap           // the peer went on without me: I am target, its bitmap says what
	SourceBitmap           // I went on without the peer: I am source, my bitmap says what
	TargetFull             // the peer is more than one generation ahead: I am target, full resync
	SourceFull             // I am more than one generation ahead: I am source, full resync
	SplitBrain             // both went on from the same generation; both bitmaps together say where they differ
	SplitBrainFull         // both went on, the bitmaps are of no use: only a full resync can repair it
	Unrelated              // nothing in common: refuse
)

var verdictNames = [...]string{
	"NoVerdict", "Equal", "BothNew", "TargetFullNew", "SourceFullNew", "TargetBitmap", "SourceBitmap",
	"TargetFull", "SourceFull", "SplitBrain", "SplitBrainFull", "Unrelated",
}

// String returns the verdict's name.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return "Invalid"
}

// Inverse is the verdict the peer reaches.
func (v Verdict) Inverse() Verdict {
	switch v {
	case TargetFullNew:
		return SourceFullNew
	case SourceFullNew:
		return TargetFullNew
	case TargetBitmap:
		return SourceBitmap
	case SourceBitmap:
		return TargetBitmap
	case TargetFull:
		return SourceFull
	case SourceFull:
		return TargetFull
	default: // the same for both
		return v
	}
}

// Compare judges two sets. The order of the questions matters; it is DRBD's,
// with its sync identifier made so that no message about it can be lost.
// Both sides reach the same conclusion: Compare(b, a) == Compare(a, b).Inverse().
//
// Sets that contradict each other (each says the other is behind) cannot come
// from honest copies; they are called SplitBrainFull, so that nothing is
// overwritten without an operator. So is, or SplitBrain, what was promoted by force
// (Set.Force). A set without a current generation is
// Unrelated to every other.
func Compare(mine, peer Set) Verdict {
	if mine.Current == 0 || peer.Current == 0 {
		return Unrelated
	}
	if v := compareNew(mine.Current, peer.Current); v != NoVerdict {
		return v
	}
	if mine.Current == peer.Current {
		return Equal
	}
	if v := direction(peer.follows(mine.Current), mine.follows(peer.Current), TargetBitmap); v != NoVerdict {
		return forcedApart(v, SplitBrain, mine, peer)
	}
	if v := direction(peer.ancestor(mine.Current), mine.ancestor(peer.Current), TargetFull); v != NoVerdict {
		return forcedApart(v, SplitBrainFull, mine, peer)
	}
	if mine.Bitmap.known() && peer.follows(mine.Bitmap) || peer.Bitmap.known() && mine.follows(peer.Bitmap) {
		return SplitBrain
	}
	if related(mine, peer) {
		return SplitBrainFull
	}
	return Unrelated
}

// forcedApart is the verdict v between a copy and one that is behind it, unless the
// first was promoted by force and the other has what came before. One that is being
// filled from there has been given up.
func forcedApart(v, split Verdict, ahead, behind Set) Verdict {
	if v == TargetBitmap || v == TargetFull {
		ahead, behind = behind, ahead
	}
	if ahead.Forced() && behind.Current != ahead.SyncID() {
		return split
	}
	return v
}

// follows reports whether the bitmap of s says what a copy that carries id
// lacks: it is where the peer left, or where it was left in a resync from here.
func (s Set) follows(id ID) bool { return id == s.Bitmap || id == s.SyncID() }

func compareNew(mine, peer ID) Verdict {
	switch {
	case mine == JustCreated && peer == JustCreated:
		return BothNew
	case mine == JustCreated:
		return TargetFullNew
	case peer == JustCreated:
		return SourceFullNew
	}
	return NoVerdict
}

// direction turns "I am behind" and "the peer is behind" into a verdict.
func direction(behind, ahead bool, target Verdict) Verdict {
	switch {
	case behind && ahead:
		return SplitBrainFull
	case behind:
		return target
	case ahead:
		return target.Inverse()
	}
	return NoVerdict
}

// related reports whether the two sets have an ancestor in common.
func related(a, b Set) bool {
	if b.ancestor(a.Bitmap) {
		return true
	}
	for _, id := range a.History {
		if b.ancestor(id) {
			return true
		}
	}
	return false
}
