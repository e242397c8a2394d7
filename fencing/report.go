package fencing

import (
	"time"

	"hapair/fencing/device"
)

// Outcome says what came of a fence; see package device.
type Outcome = device.Outcome

// The outcomes, as in package device. Only Confirmed counts.
const (
	Unknown   = device.Unknown
	Refused   = device.Refused
	Confirmed = device.Confirmed
)

// Report is the end of one fence.
type Report struct {
	Node    string
	Outcome Outcome
	Device  string // what confirmed, or was tried last; several of one level are joined by " + "
	Reason  string // in words, of every level that was tried; it shows no secret
	// Began is when the fence was asked for: what confirms came after it. Whoever
	// joined a fence that was under way gets that one's. An operator's word that
	// was given before the fence was asked for makes it the instant of the word.
	Began time.Time
	Took  time.Duration
}

// Status is a copy of what the room knows. It shows no secret.
type Status struct {
	Nodes   []NodeStatus // those that have devices, by name
	History []Report     // the last fences, oldest first
}

// NodeStatus is what there is to fence one node with.
type NodeStatus struct {
	Node    string
	Ready   error // nil: some level of devices could be used, by their last monitor
	Takes   time.Duration
	Devices []DeviceStatus // in the order of the levels
	Fence   *UnderWay      // nil: none under way
	Last    *Report        // nil: none since the agent began
	Ended   [3]uint64      // fences that ended, by Outcome
}

// DeviceStatus is one device and what its last monitor said.
type DeviceStatus struct {
	Name    string
	Level   int       // from 1
	Checked time.Time // zero: not yet
	Err     error     // of that monitor
}

// UnderWay is a fence that has not ended.
type UnderWay struct {
	Why     string
	Began   time.Time
	Level   int    // from 1: the one that is tried
	Failed  string // what became of the levels before; "" for none
	Waiting bool   // for an operator's word
}
