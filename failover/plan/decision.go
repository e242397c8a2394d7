package plan

import (
	"fmt"
	"time"
)

// Kind names a step.
type Kind uint8

// The steps. Each must be idempotent: it may be asked for again when its
// effect has not been seen yet.
const (
	Nothing         Kind = iota
	Declare              // record a new pair: both copies are identical
	AskLapsed            // ask a majority whether the Primary's lease has run out
	GoBack               // begin a switchover to the preferred node
	AskPeer              // ask the present Primary to hand over to this node
	Disconnect           // end the mirror session with a frozen Primary
	ForceAlone           // run the ledger with this node as its only voter, by order of the operator
	GoAlone              // the same, as the Primary of a manual pair, or after a confirmed fence
	LedgerPromote        // record this node as Primary
	LedgerForce          // record that this copy alone is current and nobody Primary, by order of the operator
	HoldLease            // ask for the lease, and keep asking
	MirrorPromote        // open the devices for writing
	StartServices        // in order
	RestartServices      // what failed, and what was started after it
	StopServices         // in reverse order
	MirrorDemote         // flush both copies, close the devices
	LedgerDemote         // record that nobody is Primary
	ReleaseLease         // hand the lease back
	HandOver             // tell the peer to take the resource now
	FencePeer            // have the peer fenced; the outcome comes later
	AbortLost            // authority is lost: forced stop of services, front end aborted, demote
)

// String returns the name used in journals and stories.
func (k Kind) String() string {
	return word(int(k), "nothing", "declare", "ask-lapsed", "go-back", "ask-peer", "disconnect", "force-alone", "go-alone",
		"ledger-promote", "ledger-force", "hold-lease", "mirror-promote", "start-services", "restart-services", "stop-services",
		"mirror-demote", "ledger-demote", "release-lease", "hand-over", "fence", "abort-lost")
}

// Step is one thing to do.
type Step struct {
	Kind  Kind
	Node  string // of HandOver, AskPeer and FencePeer: the peer
	Force bool   // of StopServices, MirrorPromote and MirrorDemote
}

// String returns the step as a story prints it.
func (s Step) String() string {
	text := s.Kind.String()
	if s.Node != "" {
		text += " " + s.Node
	}
	if s.Force {
		text += " --force"
	}
	return text
}

// Decision is what a view leads to. Without steps it is a wait.
type Decision struct {
	Steps   []Step        // the way to the goal: carry out the first, then ask again
	Code    Code          // stable name of Because
	Because string        // one sentence
	Hint    string        // the command that would help; may be empty
	At      time.Duration // ask again at this instant at the latest; 0: only when something changes
	Refused *Refusal      // the operator's wish cannot be met; nothing was decided beyond that
}

// First returns the step to carry out now, or Nothing.
func (d Decision) First() Step {
	if len(d.Steps) == 0 {
		return Step{}
	}
	return d.Steps[0]
}

// Preempts reports whether the decision is reason to break off a step that is under
// way: lost authority breaks off everything, a stop breaks off a start, and one by
// force a stop that is not.
func (d Decision) Preempts(running Step) bool {
	switch first := d.First(); first.Kind {
	case AbortLost:
		return running.Kind != AbortLost
	case StopServices:
		return running.Kind == StartServices || running.Kind == RestartServices || running.Kind == StopServices && first.Force && !running.Force
	default: // waits until the running step has ended
		return false
	}
}

// Code is a stable name for a reason.
type Code string

// The codes.
const (
	CodeSettled     Code = "settled"        // this node is Primary and all is well
	CodeGo          Code = "go"             // a step is due
	CodeNoRecord    Code = "no-record"      // the ledger was not read yet
	CodeUndeclared  Code = "undeclared"     // no copy was ever declared good
	CodeNoQuorum    Code = "no-quorum"      //
	CodeArbitration Code = "arbitration"    // how a survivor comes to go on alone
	CodeHolder      Code = "other-primary"  // the peer is Primary and may hold its lease
	CodeForward     Code = "forwarding"     // Primary without a copy of its own: the peer serves
	CodeNotInSync   Code = "not-in-sync"    //
	CodeDisk        Code = "disk"           // this copy cannot serve
	CodeResync      Code = "resync"         // this copy is the target of a resync
	CodeSuspect     Code = "suspect"        // crashed, and a healthy in-sync peer is there
	CodeSplitBrain  Code = "split-brain"    //
	CodePeerPrimary Code = "peer-connected" // the peer is connected and calls itself Primary
	CodeMaintenance Code = "maintenance"    //
	CodeStandby     Code = "standby"        //
	CodeDown        Code = "demoted"        // by the operator
	CodeNotAsked    Code = "not-asked"      // the resource does not run by itself
	CodeManual      Code = "manual"         // arbitration is manual
	CodeFence       Code = "fence"          // the peer is to be fenced first, or being fenced
	CodeFenceDevice Code = "fence-device"   // what the peer would be fenced with
	CodeFailures    Code = "failures"       // failed here too often
	CodeColdStart   Code = "cold-start"     // waiting for the peer
	CodePeerFirst   Code = "peer-first"     // the peer may take it first
	CodeFrozen      Code = "frozen"         // lease lapsed
	CodeLease       Code = "lease-asked"    // lease asked for
	CodeFailback    Code = "failback"       // going back to the preferred node by itself
	CodeHandedOver  Code = "handed-over"    //
	CodeRetry       Code = "retry"          // a step failed, the next attempt is later
	CodePeerCannot  Code = "peer-cannot"    // the peer cannot take it
	CodeHeld        Code = "held"           // the device is open
	CodeLost        Code = "authority-lost" //
	CodeLoss        Code = "loss"           // what a forced promotion may lose
)

// Refusal is an error with the reason and the command that would help.
type Refusal struct {
	Code Code
	Text string
	Hint string
}

// Error returns the reason and the hint.
func (r *Refusal) Error() string {
	if r.Hint == "" {
		return r.Text
	}
	return r.Text + " (" + r.Hint + ")"
}

// Reason is one fact that speaks for or against a promotion.
type Reason struct {
	Code    Code
	OK      bool
	Text    string
	Hint    string
	Passing bool // not OK now, but expected to pass by itself
	Loss    bool // says what a forced promotion may lose
	Unasked bool // speaks only against doing it without being asked
}

func (r Reason) refusal() *Refusal { return &Refusal{Code: r.Code, Text: r.Text, Hint: r.Hint} }

func steps(because string, kinds ...Kind) Decision {
	d := Decision{Code: CodeGo, Because: because}
	for _, k := range kinds {
		d.Steps = append(d.Steps, Step{Kind: k})
	}
	return d
}

func wait(r Reason, at time.Duration) Decision {
	return Decision{Code: r.Code, Because: r.Text, Hint: r.Hint, At: at}
}

func waitf(code Code, at time.Duration, format string, args ...any) Decision {
	return Decision{Code: code, Because: fmt.Sprintf(format, args...), At: at}
}

func refuse(r Reason) Decision {
	return Decision{Code: r.Code, Because: r.Text, Hint: r.Hint, Refused: r.refusal()}
}
