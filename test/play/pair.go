// Package play plays scenarios (package script) on real agents, wherever a pair of
// them runs: in namespaces (test/netns), in virtual machines (test/vm). It knows
// the agents' API and counts what a client was answered; a Pair does the rest.
package play

import (
	"context"
	"time"

	"hapair/test/lab/record"
	"hapair/test/script"
)

// Pair is where agents run. Its methods may be called while a status is asked for.
type Pair interface {
	// Do does to a machine, a cable or a disk what a verb before Promote says.
	// The agent of a node that is switched on or started may still be starting.
	Do(a script.Action) error
	// Call asks the agent of a node, as lab.Lab.Call does.
	Call(ctx context.Context, node, method, path string, in, out any) error
	// Resource is the name of the replicated resource.
	Resource() string
	// Write begins to put records, whose numbers no earlier writer used, through
	// the service's address.
	Write() (Writer, error)
	// Check judges a pair whose copies are in sync and whose writers have ended:
	// it says which of the answered records are not on the disk of the Primary, and
	// whether the copies differ.
	Check(ctx context.Context, primary string, answered []record.Ack) error
	// Say tells what happens.
	Say(format string, args ...any)
}

// Writer is a client of the record service.
type Writer interface {
	// Acks are the answers from the nth on.
	Acks(n int) []record.Ack
	// End ends it. It may be called again.
	End()
}

// Bounds, generous: they only end what hangs.
const (
	patience = 90 * time.Second
	askFor   = 2 * time.Second  // one status
	busyFor  = 15 * time.Second // an agent that starts, a disk that comes back
)
