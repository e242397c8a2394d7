package ledger

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"hapair/failover/ledger/record"
)

// Refusals of commands are those of package record, repeated here for callers.
var (
	ErrStale      = record.ErrStale
	ErrNotInSync  = record.ErrNotInSync
	ErrNotPrimary = record.ErrNotPrimary
	ErrLastCopy   = record.ErrLastCopy
	ErrDeclared   = record.ErrDeclared
	ErrInvalid    = record.ErrInvalid
)

// Record is the ledger's word about one resource.
type Record = record.Record

// StaleError carries the record the ledger has; it matches ErrStale.
type StaleError = record.StaleError

// Errors of the ledger itself.
var (
	// ErrNoQuorum: no leader was found, or none that could commit, in the time
	// given. Nothing was changed.
	ErrNoQuorum = errors.New("no quorum")
	// ErrUnknownOutcome: the time ran out after the command was on its way. It
	// may be applied or not, now or later: read the record again.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrClosed: the ledger is closed or has left.
	ErrClosed = errors.New("ledger is closed")
	// ErrNotPair: going alone without an operator's force is for two voters, so
	// arbitration manual or fencing.
	ErrNotPair = errors.New("only with two voters: arbitration manual or fencing")
	// ErrHasNoData: a witness never runs by itself.
	ErrHasNoData = errors.New("a witness has no data to go on with")
	// ErrQuorum: with a quorum nobody is left behind, not even by force.
	ErrQuorum = errors.New("a majority of the voters answers, with a leader: nobody is to be left behind")
	// ErrNotSplit: there is nobody to surrender to.
	ErrNotSplit = errors.New("no node is known that went on alone")
	// ErrServes: what this node serves would go with its ledger.
	ErrServes = errors.New("this node serves it, by the ledger that would be given up")
	// ErrGivesUp: who gives its ledger up, or has none, is nobody to surrender to.
	ErrGivesUp = errors.New("it gives its ledger up itself, or has none yet")
	// ErrNotPrimaryHere: a node goes alone by itself only when it is the
	// Primary of every resource that has one.
	ErrNotPrimaryHere = errors.New("this node is not the primary of every promoted resource")
	// ErrNotFencing: a fence decides in arbitration fencing only.
	ErrNotFencing = errors.New("only in arbitration fencing")
	// ErrNotMet: who has not met its peer since it began fences nobody (R25).
	ErrNotMet = errors.New("not met since this node began, with arbitration fencing on both: what is known here may be old")
	// ErrAnswers: a peer that answers is not fenced.
	ErrAnswers = errors.New("it answers")
	// ErrNothingGained: no resource with a Primary could be served here.
	ErrNothingGained = errors.New("nothing would be gained: this node's copy is not current, or nobody is Primary")
	// ErrFenceUndecided: a fence that this node asked for may still strike.
	ErrFenceUndecided = errors.New("a fence of the peer is not decided yet")
	// ErrNotFenced: no fence of the peer is confirmed, or the two have met since.
	ErrNotFenced = errors.New("no confirmed fence of the peer")
	// ErrJoining: this node has no ledger of its own yet.
	ErrJoining = errors.New("this node is rejoining")
	// ErrSuperseded: another node goes on under a higher incarnation.
	ErrSuperseded = errors.New("another node goes on under a higher incarnation")
	// ErrSplitBrain: two nodes went alone from the same incarnation.
	ErrSplitBrain = errors.New("split brain: both nodes went on alone")
	// ErrBlank: this node's directory was empty, and it has not met every other
	// voter since.
	ErrBlank = errors.New("this node remembers nothing, and has not met the others")
	// ErrReplaced: another machine has this node's name since.
	ErrReplaced = errors.New("this machine was replaced by another")
	// ErrSeat: a new machine does not have its node's place yet.
	ErrSeat = errors.New("the place of this node is another machine's yet")
	// ErrDisk: the ledger's directory cannot be written any more.
	ErrDisk = errors.New("ledger disk failed")
)

// EventKind names what happened to the ledger.
type EventKind string

// The events.
const (
	EventLeader     EventKind = "leader"     // Node leads now; "" nobody
	EventCaughtUp   EventKind = "caught-up"  // this node has applied all that was committed before it started
	EventBegun      EventKind = "begun"      // Node takes part, having begun with an empty directory
	EventAlone      EventKind = "alone"      // this node goes on alone
	EventRejoining  EventKind = "rejoining"  // this node discarded its ledger to join Node's
	EventRejoined   EventKind = "rejoined"   // Node is a voter again
	EventSplitBrain EventKind = "splitbrain" // Node went alone too
	EventDisk       EventKind = "disk"       // the directory failed; the node votes no more
	EventStall      EventKind = "stall"      // a leader gave up leading: its disk does not answer
	EventLeft       EventKind = "left"       // this node left gracefully
	EventVoters     EventKind = "voters"     // a witness has come, or gone
	EventReplaced   EventKind = "replaced"   // another machine is taken for Node; this node itself: it is refused
)

// Event is one line for the operator.
type Event struct {
	Kind        EventKind
	Node        string
	Incarnation uint64
	Because     string
	Err         error
}

// SupersededError says who goes on, and under which incarnation.
type SupersededError struct {
	Node        string
	Incarnation uint64
}

// Error implements error.
func (e *SupersededError) Error() string {
	return fmt.Sprintf("node %s, incarnation %d: %v", e.Node, e.Incarnation, ErrSuperseded)
}

// Is makes errors.Is(err, ErrSuperseded) hold.
func (e *SupersededError) Is(target error) bool { return target == ErrSuperseded }

// SeatError says which machine came for a node, which one is taken for it, and where;
// it matches ErrReplaced or ErrSeat.
type SeatError struct {
	Node      string
	Came, Has string // machines; Has is "" when the last one was said to be gone for good
	At        string // the voter that judged
	Replaced  bool   // Came was replaced; else it is new
	Why       string // a new one does not get the place yet
}

// Error implements error.
func (e *SeatError) Error() string {
	has := "the one " + nameMachine(e.Has)
	if e.Has == "" {
		has = "none since it was replaced (hactl replace)"
	}
	if e.Replaced {
		return fmt.Sprintf("%s takes another machine for %s: %s; this one, %s, was replaced: "+
			"keep it off, or empty its ledger directory to have it join as a new one", e.At, e.Node, has, nameMachine(e.Came))
	}
	return fmt.Sprintf("a new machine, %s, is not taken for %s at %s yet, which has %s: %s", nameMachine(e.Came), e.Node, e.At, has, e.Why)
}

// Is makes errors.Is(err, ErrReplaced) and errors.Is(err, ErrSeat) hold.
func (e *SeatError) Is(target error) bool {
	return target == ErrReplaced && e.Replaced || target == ErrSeat && !e.Replaced
}

// nameMachine is an identity for people.
func nameMachine(m string) string {
	begun, mark, found := strings.Cut(m, "-")
	at, err := time.Parse("20060102T150405Z", begun)
	switch {
	case m == "":
		return "of an earlier release"
	case err != nil || !found:
		return fmt.Sprintf("%.20q", m)
	}
	return fmt.Sprintf("begun %s UTC (%.4s)", at.Format("2006-01-02 15:04:05"), mark)
}
