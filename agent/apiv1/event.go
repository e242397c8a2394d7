package apiv1

import "time"

// Event kinds.
const (
	EventRole       = "role"       // a role changed
	EventConnection = "connection" // a link came or went
	EventDisk       = "disk"       // a disk state changed
	EventResync     = "resync"     // a resync began, paused, ended
	EventVerify     = "verify"     // a verify began, ended, was stopped
	EventService    = "service"    // a service changed its state
	EventMember     = "member"     // a member came, went, became suspect
	EventQuorum     = "quorum"     // quorum or leader changed
	EventFrozen     = "frozen"     // I/O froze or thawed
	EventFence      = "fence"      // a node was fenced, or was not
	EventOperator   = "operator"   // somebody asked for something
	EventProblem    = "problem"    // something went wrong
	EventAgent      = "agent"      // the agent started, stops, reloaded
	EventDropped    = "dropped"    // this subscriber was too slow; the stream ends
)

// EventKinds lists the kinds an agent sends, but for EventDropped.
func EventKinds() []string {
	return []string{EventRole, EventConnection, EventDisk, EventResync, EventVerify, EventService, EventMember, EventQuorum, EventFrozen, EventFence, EventOperator, EventProblem, EventAgent}
}

// Event is one thing that happened, numbered in the order this node saw it.
type Event struct {
	Seq      uint64            `json:"seq"`
	Time     time.Time         `json:"time"`
	Node     string            `json:"node"`
	Kind     string            `json:"kind"`
	Resource string            `json:"resource,omitempty"`
	Text     string            `json:"text"`
	Fields   map[string]string `json:"fields,omitempty"` // was, asked, now, because, ...
}
