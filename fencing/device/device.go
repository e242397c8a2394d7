// Package device holds the words of fencing: what came of it, and what a fence
// device is. It imports nothing of ours.
package device

import (
	"context"
	"time"
)

// Outcome says what came of fencing a node. The zero Outcome promises nothing.
type Outcome uint8

// The outcomes. Only Confirmed counts; the other two are the same to whoever
// decides what follows, and differ for the reader of a log.
const (
	Unknown   Outcome = iota // it may have happened, or happen yet
	Refused                  // the device, or what is behind it, said no
	Confirmed                // the node was off, and proven to be, at an instant after it was asked for
)

// String returns the word for the outcome.
func (o Outcome) String() string {
	switch o {
	case Refused:
		return "refused"
	case Confirmed:
		return "confirmed"
	case Unknown:
	}
	return "unknown"
}

// Order is what a device is asked.
type Order struct {
	Node string // whom to fence
	Why  string // for logs, and for handlers of the operator's
	// Met is when the two nodes met last, as far as this process has seen it: when this
	// one began to hear the other. Zero: they have not.
	Met time.Time
}

// Device makes sure that a node does not run.
type Device interface {
	// Name tells the device from the other devices of its node. It shows no secret.
	Name() string
	// Off turns the node off and proves it. It returns when the outcome is known,
	// or ctx has ended; reason says in words how it went, whatever the outcome, and
	// shows no secret. A device may be asked again at any time: turning off what is
	// off is Confirmed.
	Off(ctx context.Context, o Order) (outcome Outcome, reason string)
	// Monitor reports whether the device could be used now. It changes nothing that a
	// fence relies on.
	Monitor(ctx context.Context) error
}

// Error is what a device could not do, in the words of whatever it ran.
type Error struct {
	Text  string
	Cause error // nil: it said so itself
}

// Error returns the text.
func (e *Error) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }
