// Package deadman takes service addresses away from a node whose lease has run
// out, also when the agent that held it was killed, stopped or hangs: what a
// kernel has been told to answer for it goes on answering for.
//
// A Guard, in the agent, keeps a small process of its own (Serve), which knows
// the addresses and shares a page of memory with the agent: until when each
// resource may be served. It looks at that page and the clock, at nothing else.
package deadman

import (
	"time"

	"hapair/failover/lease"
	"hapair/failover/vip"
)

// Lead is how long before the end of a lease the addresses go: the next holder
// must not meet them.
const Lead = 25 * time.Millisecond

// MayHold reports whether an address may be on the node at now, on CLOCK_BOOTTIME, by
// the lease of its resource: no longer than the helper leaves it there. Who puts
// one back by the lease alone does it behind the helper's back.
func MayHold(l lease.Lease, now time.Duration) bool { return l.Valid(now + Lead) }

// Held is an address that must not outlive the lease of a resource.
type Held struct {
	Resource string `json:"resource"`
	vip.Site
}

// What the agent says, one JSON text a line, and the answer to each: the same
// text for as long as it was understood.
type order struct {
	Hold    *holding `json:"hold,omitempty"`
	Release *holding `json:"release,omitempty"`
}

type holding struct {
	Held
	Slot int `json:"slot"` // where in the page its resource stands
}

// slots is how many resources a page has room for.
const slots = pageBytes / 8

const pageBytes = 4096
