package script

import (
	"errors"
	"fmt"
	"time"
)

// Lab is a pair that a scenario can be played on. Times are the lab's own: virtual
// in the simulator. Every method returns an error when a law was broken in the
// meantime, a *Violation if it is one of those that a scenario names. A Lab is
// used by one goroutine.
type Lab interface {
	// Now is the time since any instant before.
	Now() time.Duration
	// Act does what is asked and returns when it has taken effect, or an error
	// that is ErrRefused when the pair declines by one of its rules.
	Act(a Action) error
	// Load has an application write, read and flush all the time, on whichever
	// node serves, or has it rest.
	Load(on bool) error
	// Look is how the pair is now.
	Look() (View, error)
	// Pass lets about so much time pass, or as much more as one look at the pair
	// needs.
	Pass(d time.Duration) error
	// End mends what is broken, waits until both copies are in sync and one node
	// serves, and judges what was answered.
	End() error
}

// ErrRefused is what a declined action returns, wrapped with the reason.
var ErrRefused = errors.New("refused")

// View is what can be seen of a pair from outside.
type View struct {
	Nodes   map[string]NodeView // of the data nodes; one that says nothing is zero
	Answers int                 // given to the application since the scenario began
	Gap     time.Duration       // the longest time without an answer under load so far, the present one included
}

// NodeView is what a node says of itself.
type NodeView struct {
	Serves     bool     // Primary, with its lease and its device
	Frozen     bool     // Primary, and answers nothing
	InSet      []string // the in-sync set, as far as it knows
	Current    bool     // both copies are current, as far as it knows, and the mirror runs
	Target     bool     // of a resync, paused or not
	Forwarding bool
	DiskGone   bool
	Verified   bool // its last verify has ended and found nothing
}

// Clause is a law that a scenario names.
type Clause int

// The clauses.
const (
	TwoPrimaries Clause = iota + 1
	AckLost
	FrozenLonger
)

// String is the clause as it is written.
func (c Clause) String() string {
	switch c {
	case TwoPrimaries:
		return "two-primaries"
	case AckLost:
		return "ack-lost"
	case FrozenLonger:
		return "frozen-longer-than"
	}
	return fmt.Sprintf("clause %d", int(c))
}

// Violation is what must never be, and was.
type Violation struct {
	Clause Clause
	Err    error
}

// Error names the clause.
func (v *Violation) Error() string { return fmt.Sprintf("never %s: %v", v.Clause, v.Err) }

// Unwrap returns what was seen.
func (v *Violation) Unwrap() error { return v.Err }

// holds reports whether a condition is so. Answers count from what they were when
// the step began.
func (v View) holds(c Condition, before int) bool {
	serves := 0
	for _, n := range v.Nodes {
		if n.Serves {
			serves++
		}
	}
	n := v.Nodes[c.Node]
	switch c.What {
	case Primary:
		return c.Node == Any && serves > 0 || c.Node == None && serves == 0 || n.Serves
	case InSync:
		return serves == 1 && v.Nodes[Alpha].Current && v.Nodes[Beta].Current
	case Alone:
		return n.Serves && len(n.InSet) == 1 && n.InSet[0] == c.Node
	case Target:
		return n.Target
	case Frozen:
		return n.Frozen
	case Forwarding:
		return n.Serves && n.Forwarding
	case DiskGone:
		return n.DiskGone
	case Verified:
		return n.Verified
	case Answers:
		return v.Answers >= before+c.Count
	}
	return false
}
