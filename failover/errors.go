package failover

import (
	"errors"
	"fmt"

	"hapair/failover/plan"
)

// Refusal is an answer to an operator that something is not done: Code is
// stable, Text says why, Hint names the command that would help. Every
// operator call that is refused returns a *Refusal.
type Refusal = plan.Refusal

// The codes of refusals that are not those of package plan.
const (
	CodePending plan.Code = "pending"  // another request is under way
	CodeClosed  plan.Code = "closed"   // the controller has stopped
	CodeNode    plan.Code = "node"     // no such node, or the wrong one
	CodeTimeout plan.Code = "timeout"  // the caller's time ran out
	CodeFailed  plan.Code = "failed"   // a step failed; the error is wrapped beside the refusal
	CodeAlready plan.Code = "no-force" // a forced promotion needs a reason
)

// ErrStopped is wrapped by what was cut short because the controller stopped.
var ErrStopped = errors.New("the controller has stopped")

func refused(code plan.Code, hint, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Text: fmt.Sprintf(format, args...), Hint: hint}
}

// StepError is a step that failed. Unwrap reaches the cause, so a Busy is
// found by errors.As.
type StepError struct {
	Resource string
	Step     plan.Kind
	Err      error
}

// Error names the step and the resource.
func (e *StepError) Error() string { return fmt.Sprintf("%s of %s: %v", e.Step, e.Resource, e.Err) }

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }
