package apiv1

import "errors"

// Problem is a refusal or a failure: a stable code for programs, a sentence
// for people, and the command that would help. It is an error.
type Problem struct {
	Code string `json:"code"`
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

// Error returns the sentence.
func (p *Problem) Error() string { return p.Text }

// Is reports whether target is a Problem of the same code, so that
// errors.Is(err, apiv1.ErrNotImplemented) works.
func (p *Problem) Is(target error) bool {
	var q *Problem
	return errors.As(target, &q) && q.Code == p.Code
}

// The codes. They are stable: programs decide by them.
const (
	CodeBadRequest     = "bad_request"     // malformed: unknown field, wrong type, bad value
	CodeTooLarge       = "too_large"       // body over the limit
	CodeNotFound       = "not_found"       // no such route, resource, volume, node
	CodeBadMethod      = "bad_method"      // the route exists, the method does not
	CodeForbidden      = "forbidden"       // the caller may look but not change
	CodeRefused        = "refused"         // a rule forbids it now
	CodeInUse          = "in_use"          // the device is held open
	CodeNotPrimary     = "not_primary"     // only the Primary can do this
	CodeNoQuorum       = "no_quorum"       // no majority can be reached
	CodeNotUpToDate    = "not_up_to_date"  // the copy is behind or half synced
	CodePeerConnected  = "peer_connected"  // needs the peer to be away
	CodePeerAway       = "peer_away"       // needs the peer to be connected
	CodeSplitBrain     = "split_brain"     // both sides have data of their own
	CodeWouldLose      = "would_lose"      // only --force does this; Text says what is lost
	CodeTimeout        = "timeout"         // did not finish in the time given
	CodeBusy           = "busy"            // another change of this resource runs
	CodeNotImplemented = "not_implemented" // described, not built
	CodeInternal       = "internal"        // a fault of the agent
	CodeUnavailable    = "unavailable"     // starting up or shutting down
	CodeSlowReader     = "slow_reader"     // an event stream was dropped
)

// Sentinels for errors.Is; their texts are not shown.
var (
	ErrNotImplemented = &Problem{Code: CodeNotImplemented, Text: "not implemented"}
	ErrNotFound       = &Problem{Code: CodeNotFound, Text: "not found"}
	ErrRefused        = &Problem{Code: CodeRefused, Text: "refused"}
	ErrForbidden      = &Problem{Code: CodeForbidden, Text: "forbidden"}
	ErrNoQuorum       = &Problem{Code: CodeNoQuorum, Text: "no quorum"}
)

// ErrorBody is the JSON of every answer that is not 2xx.
type ErrorBody struct {
	Error Problem `json:"error"`
}
