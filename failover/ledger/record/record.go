// Package record holds the words of the ledger and its state machine: what a
// record says, which commands change it, and what each command answers. It is
// pure and deterministic: the same commands in the same order give the same
// state on every voter. It reads no clock and no random source.
package record

import (
	"errors"
	"fmt"
	"slices"

	"hapair/failover/lease"
)

// Record says who may write a resource and which copies count.
type Record struct {
	// Token grows by one with every change of the record. Commands compare
	// with it.
	Token lease.Token `json:"token"`
	// Tenure is the Token at which the present Primary (or, when there is
	// none, the last one) was promoted. Mirror frames carry it. It never falls.
	Tenure lease.Token `json:"tenure"`
	// Primary is a node, or "" for none.
	Primary string `json:"primary,omitempty"`
	// InSync names the copies that hold every answered write, sorted, without
	// doubles. It is empty only before Declare.
	InSync []string `json:"inSync,omitempty"`
}

// Has tells whether node is in the in-sync set.
func (r Record) Has(node string) bool { return slices.Contains(r.InSync, node) }

// Equal compares two records.
func (r Record) Equal(o Record) bool {
	return r.Token == o.Token && r.Tenure == o.Tenure && r.Primary == o.Primary && slices.Equal(r.InSync, o.InSync)
}

// Clone returns a copy that shares nothing.
func (r Record) Clone() Record {
	r.InSync = slices.Clone(r.InSync)
	return r
}

// Refusals. ErrStale is always carried by a StaleError.
var (
	// ErrStale: the record has changed since the caller read it.
	ErrStale = errors.New("record has changed")
	// ErrNotInSync: the node is not in the in-sync set.
	ErrNotInSync = errors.New("node is not in the in-sync set")
	// ErrNotPrimary: the node is not the Primary.
	ErrNotPrimary = errors.New("node is not the primary")
	// ErrLastCopy: the command would empty the in-sync set, or take the Primary out of it.
	ErrLastCopy = errors.New("node is the last in-sync copy, or the primary")
	// ErrDeclared: the in-sync set has been declared already.
	ErrDeclared = errors.New("in-sync set is declared already")
	// ErrInvalid: the command is malformed or beyond a limit.
	ErrInvalid = errors.New("invalid command")
)

// StaleError says that the record is no longer what the caller took it for,
// and what it is. errors.Is(err, ErrStale) holds.
type StaleError struct {
	Resource string
	Have     Record
	Expected lease.Token
}

// Error implements error.
func (e *StaleError) Error() string {
	return fmt.Sprintf("resource %s: %v: expected token %d, ledger has %d", e.Resource, ErrStale, e.Expected, e.Have.Token)
}

// Is makes errors.Is(err, ErrStale) hold.
func (e *StaleError) Is(target error) bool { return target == ErrStale }
