// Package failover keeps each resource of this node where it belongs: a
// Controller gathers what the ledger, the mirror, the heartbeat and the
// services say, asks plan.Next, and carries the steps out, one at a time. It
// answers the operator and keeps a journal of what it did, why, and how long
// each part took.
//
// What it needs of the other rooms is declared in needs.go; package agent
// fills it. DESIGN.md lists the goroutines and what wakes each.
//
// A reader begins with controller.go (the loop), then gather.go (what goes
// into a decision), perform.go (what comes out of it), operator.go (what an
// operator may ask) and journal.go (what is told afterwards).
package failover
