package wire

import (
	"errors"
	"fmt"
)

// Why bytes are no message. Match them with errors.Is; the error that carries
// one (FormatError) says what was found and what would be right.
var (
	ErrMagic      = errors.New("not a frame of the mirror protocol")
	ErrVersion    = errors.New("unsupported version of the mirror protocol")
	ErrTooLong    = errors.New("payload longer than the limit")
	ErrHeaderSum  = errors.New("checksum of the frame header does not match")
	ErrPayloadSum = errors.New("checksum of the payload does not match")
	ErrTruncated  = errors.New("frame cut short")
	ErrKind       = errors.New("unknown kind of message")
	ErrField      = errors.New("field not allowed in this kind of message")
	ErrHello      = errors.New("malformed hello")
	ErrRecord     = errors.New("malformed ledger record")
)

// FormatError is what every refusal of this package is: Reason is one of the
// Err… values, Text what was found and what would be right.
type FormatError struct {
	Reason error
	Text   string
}

// Error returns reason and text.
func (e *FormatError) Error() string { return e.Reason.Error() + ": " + e.Text }

// Unwrap returns the reason.
func (e *FormatError) Unwrap() error { return e.Reason }

func refuse(reason error, format string, args ...any) error {
	return &FormatError{Reason: reason, Text: fmt.Sprintf(format, args...)}
}
