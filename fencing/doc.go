// Package fencing makes sure that a node does not run, and never guesses: the
// outcome of a fence is Unknown, Refused or Confirmed, and only Confirmed
// counts. When to fence, and what follows, others decide.
//
// A Room holds the fence devices of the other nodes, in levels: the levels are
// tried in order, and one has fenced when all its devices have confirmed.
// DESIGN.md says what each kind of device takes for a proof.
//
// A reader begins with fence.go (one fence), then monitor.go (are the devices
// there when they will be needed), confirm.go (an operator's word) and the
// packages of the devices.
package fencing
