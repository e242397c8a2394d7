// Package aftersplit decides which side of a split brain gives up, by DRBD's
// policies and under their names (drbd.conf: after-sb-0pri, after-sb-1pri,
// after-sb-2pri). It is pure, and both nodes reach the same from the same.
package aftersplit

import (
	"fmt"
	"slices"
	"strings"
)

// The policies, spelled as DRBD spells them.
const (
	Disconnect    = "disconnect"
	YoungerPri    = "discard-younger-primary"
	OlderPri      = "discard-older-primary"
	ZeroChanges   = "discard-zero-changes"
	LeastChanges  = "discard-least-changes"
	nodePrefix    = "discard-node-"
	Consensus     = "consensus"
	ViolentlyAs0p = "violently-as0p"
	Secondary     = "discard-secondary"
	CallPriLost   = "call-pri-lost-after-sb"
)

// Policies say what happens by itself, by how many nodes are Primary when the
// two meet: none, one, both.
type Policies [3]string

// Names are the keys of the policies, in their order.
var Names = [3]string{"no_primary", "one_primary", "two_primaries"}

// Default leaves every split brain to an operator.
var Default = Policies{Disconnect, Disconnect, Disconnect}

// Deciding reports whether any policy ever picks a side.
func (p Policies) Deciding() bool { return p != Default && p != Policies{} }

// Check says which policy is none of DRBD's for its case, or names no node of
// nodes; nil when all are good.
func (p Policies) Check(nodes []string) error {
	known := [3][]string{
		{Disconnect, YoungerPri, OlderPri, ZeroChanges, LeastChanges},
		{Disconnect, Consensus, ViolentlyAs0p, Secondary, CallPriLost},
		{Disconnect, ViolentlyAs0p, CallPriLost},
	}
	for _, n := range nodes {
		known[0] = append(known[0], nodePrefix+n)
	}
	for i, is := range p {
		if !slices.Contains(known[i], is) {
			return fmt.Errorf("%s: %q: want one of %s", Names[i], is, strings.Join(known[i], ", "))
		}
	}
	return nil
}

// Side is one copy when the two meet.
type Side struct {
	Node    string
	Primary bool
	Elder   bool  // it was Primary when the two parted, and before
	Changes int64 // blocks written since; Unknown
}

// Unknown is a number of changes that nobody knows.
const Unknown = -1

// Outcome is what the policies say: who gives up, "" for nobody, and why.
type Outcome struct {
	Victim string
	Why    string
}

// Decide asks the policies. Decide(p, a, b) == Decide(p, b, a).
func Decide(p Policies, a, b Side) Outcome {
	if a.Node > b.Node {
		a, b = b, a
	}
	primaries := 0
	for _, s := range []Side{a, b} {
		if s.Primary {
			primaries++
		}
	}
	policy := p[primaries]
	o := decide(p, primaries, a, b)
	o.Why = fmt.Sprintf("%s is %s: %s", Names[primaries], policy, o.Why)
	return o
}

func decide(p Policies, primaries int, a, b Side) Outcome {
	policy := p[primaries]
	if policy == Disconnect {
		return Outcome{Why: "an operator decides"}
	}
	if primaries == 0 {
		return decideNone(policy, a, b)
	}
	secondary := a.Node
	if a.Primary {
		secondary = b.Node
	}
	if primaries == 1 && policy == Secondary {
		return Outcome{secondary, secondary + " is Secondary"}
	}
	o := decideNone(p[0], a, b)
	o.Why = fmt.Sprintf("%s is %s, and %s", Names[0], p[0], o.Why)
	if primaries == 1 && policy == Consensus && o.Victim != "" && o.Victim != secondary {
		return Outcome{Why: o.Why + ", but that is the Primary"}
	}
	return o
}

// decideNone is the policy for two Secondaries, on which the others fall back.
func decideNone(policy string, a, b Side) Outcome {
	switch policy {
	case Disconnect:
		return Outcome{Why: "an operator decides"}
	case YoungerPri, OlderPri:
		if a.Elder != b.Elder {
			older, younger := a.Node, b.Node
			if b.Elder {
				older, younger = younger, older
			}
			if policy == OlderPri {
				return Outcome{older, older + " was Primary when the two parted"}
			}
			return Outcome{younger, older + " was Primary when the two parted"}
		}
		o := leastChanges(a, b)
		o.Why = "which was Primary first is not known, so least changes: " + o.Why
		return o
	case ZeroChanges:
		return zeroChanges(a, b)
	case LeastChanges:
		return leastChanges(a, b)
	default: // discard-node-NAME; nobody else's, see Check
	}
	if victim := strings.TrimPrefix(policy, nodePrefix); victim == a.Node || victim == b.Node {
		return Outcome{victim, "so it was configured"}
	}
	return Outcome{Why: "that is neither of the two"}
}

func zeroChanges(a, b Side) Outcome {
	switch {
	case a.Changes == Unknown || b.Changes == Unknown:
		return Outcome{Why: "how much was changed is not known"}
	case b.Changes == 0: // both: nothing is lost with either, and the lower name is kept
		return Outcome{b.Node, b.Node + " changed nothing"}
	case a.Changes == 0:
		return Outcome{a.Node, a.Node + " changed nothing"}
	}
	return Outcome{Why: "both changed something"}
}

func leastChanges(a, b Side) Outcome {
	if o := zeroChanges(a, b); o.Victim != "" || a.Changes == Unknown || b.Changes == Unknown {
		return o
	}
	fewer, more := a, b
	if b.Changes < a.Changes {
		fewer, more = b, a
	}
	if fewer.Changes == more.Changes {
		return Outcome{Why: fmt.Sprintf("both changed %d blocks", a.Changes)}
	}
	return Outcome{fewer.Node, fmt.Sprintf("%s changed %d blocks, %s %d", fewer.Node, fewer.Changes, more.Node, more.Changes)}
}
