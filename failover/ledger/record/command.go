package record

import (
	"encoding/json"
	"fmt"
	"slices"

	"hapair/failover/lease"
)

// Limits of what a command may carry.
const (
	MaxName         = 128      // bytes in a resource or node name
	MaxText         = 512      // bytes in a reason or outcome
	MaxNodes        = 8        // nodes in an in-sync set
	MaxResources    = 1024     // records
	MaxMarks        = 1024     // maintenance marks
	MaxCommandBytes = 16 << 10 // encoded command
	MaxStateBytes   = 16 << 20 // encoded state
	rememberAnswers = 256      // answers kept for retried commands
	keepForced      = 16       // forced changes remembered
	keepFences      = 32       // fence outcomes remembered
	keepFounders    = 32       // incarnations remembered
	commandVersion  = 1        // of the encoding
	maxID           = 2 * MaxName
)

// Kind names what a command does.
type Kind string

// The commands. All that name a resource compare Expect with its Token.
const (
	Promote  Kind = "promote"  // Node becomes Primary; it must be in sync
	Demote   Kind = "demote"   // Node, the Primary, becomes Secondary
	Exclude  Kind = "exclude"  // Node leaves the in-sync set
	GiveUp   Kind = "give-up"  // Node, the Primary, takes its own copy out of the in-sync set
	Include  Kind = "include"  // Node enters the in-sync set
	Declare  Kind = "declare"  // Nodes become the first in-sync set
	Force    Kind = "force"    // Node alone is in sync, nobody Primary; Reason is kept
	Mark     Kind = "mark"     // maintenance mark on Resource (a resource or node), with Reason
	Unmark   Kind = "unmark"   // takes the mark away
	FenceLog Kind = "fencelog" // keeps the Outcome of fencing Node
)

// Command is one change asked of the ledger.
type Command struct {
	// ID is unique; a command applied twice under one ID answers twice and
	// changes the state once.
	ID       string      `json:"id"`
	Kind     Kind        `json:"kind"`
	Resource string      `json:"resource,omitempty"`
	Node     string      `json:"node,omitempty"`
	Nodes    []string    `json:"nodes,omitempty"`
	Expect   lease.Token `json:"expect,omitempty"`
	Reason   string      `json:"reason,omitempty"`
	Outcome  string      `json:"outcome,omitempty"`
	// At is the proposer's wall time in Unix nanoseconds: shown, never judged.
	At int64 `json:"at,omitempty"`
}

type commandEnvelope struct {
	V int `json:"v"`
	Command
}

// Encode returns the bytes that go into the log.
func (c Command) Encode() ([]byte, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(commandEnvelope{commandVersion, c})
	if err != nil {
		return nil, fmt.Errorf("encode command %s: %w", c.ID, err)
	}
	if len(b) > MaxCommandBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrInvalid, len(b), MaxCommandBytes)
	}
	return b, nil
}

// DecodeCommand reads what Encode wrote and checks it.
func DecodeCommand(b []byte) (Command, error) {
	if len(b) > MaxCommandBytes {
		return Command{}, fmt.Errorf("%w: %d bytes, at most %d", ErrInvalid, len(b), MaxCommandBytes)
	}
	var e commandEnvelope
	if err := json.Unmarshal(b, &e); err != nil {
		return Command{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if e.V != commandVersion {
		return Command{}, fmt.Errorf("%w: command format %d, this version knows %d", ErrInvalid, e.V, commandVersion)
	}
	return e.Command, e.Command.Check()
}

// Check judges the command by itself, without the state.
func (c Command) Check() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrInvalid, c.Kind, fmt.Sprintf(format, a...))
	}
	switch {
	case c.ID == "" || len(c.ID) > maxID:
		return bad("id of %d bytes, wanted 1 to %d", len(c.ID), maxID)
	case len(c.Resource) > MaxName || len(c.Node) > MaxName:
		return bad("name longer than %d bytes", MaxName)
	case len(c.Reason) > MaxText || len(c.Outcome) > MaxText:
		return bad("text longer than %d bytes", MaxText)
	case len(c.Nodes) > MaxNodes:
		return bad("%d nodes, at most %d", len(c.Nodes), MaxNodes)
	case c.Resource == "" && c.Kind != FenceLog:
		return bad("no resource named")
	}
	return c.checkKind(bad)
}

func (c Command) checkKind(bad func(string, ...any) error) error {
	switch c.Kind {
	case Promote, Demote, Exclude, GiveUp, Include, Force, FenceLog:
		if c.Node == "" {
			return bad("no node named")
		}
	case Declare:
		if len(c.Nodes) == 0 || slices.Contains(c.Nodes, "") {
			return bad("wanted one or more nodes, found %q", c.Nodes)
		}
		for _, n := range c.Nodes {
			if len(n) > MaxName {
				return bad("name longer than %d bytes", MaxName)
			}
		}
	case Mark, Unmark:
	default:
		return bad("unknown command")
	}
	return nil
}

// Refusal says why a command changed nothing. "" means it was accepted.
type Refusal string

// The refusals, each with its error.
const (
	RefusedStale      Refusal = "stale"
	RefusedNotInSync  Refusal = "not in sync"
	RefusedNotPrimary Refusal = "not primary"
	RefusedLastCopy   Refusal = "last copy"
	RefusedDeclared   Refusal = "declared"
	RefusedInvalid    Refusal = "invalid"
)

// Answer is what a command yields: the record after it (or as it stands, when
// refused).
type Answer struct {
	Record  Record  `json:"record"`
	Refused Refusal `json:"refused,omitempty"`
	Detail  string  `json:"detail,omitempty"`
}

// Err turns a refusal into its typed error, nil when accepted.
func (a Answer) Err(c Command) error {
	about := func(err error) error {
		return fmt.Errorf("%s %s on %s: %w (primary %q, in sync %q, token %d)",
			c.Kind, c.Resource, c.Node, err, a.Record.Primary, a.Record.InSync, a.Record.Token)
	}
	switch a.Refused {
	case "":
		return nil
	case RefusedStale:
		return &StaleError{Resource: c.Resource, Have: a.Record, Expected: c.Expect}
	case RefusedNotInSync:
		return about(ErrNotInSync)
	case RefusedNotPrimary:
		return about(ErrNotPrimary)
	case RefusedLastCopy:
		return about(ErrLastCopy)
	case RefusedDeclared:
		return about(ErrDeclared)
	default: // RefusedInvalid, or a newer version's reason
		return fmt.Errorf("%w: %s", ErrInvalid, a.Detail)
	}
}
