package apiv1

import "time"

// VerifyRequest begins to compare the copies while they are in use, or ends
// that with Stop. It is led by the Primary, of two Secondaries by the node that
// is asked. Repair writes what differs from the Primary to its peer,
// and what the Primary cannot read from there.
type VerifyRequest struct {
	Volume *int `json:"volume,omitempty"` // nil: all volumes
	Repair bool `json:"repair,omitempty"`
	// RateBytesPerS bounds it; 0 takes what the applications leave.
	RateBytesPerS int64 `json:"rate_bytes_per_s,omitempty"`
	// Resume goes on where the last was stopped.
	Resume bool `json:"resume,omitempty"`
	Stop   bool `json:"stop,omitempty"`
}

// States of a verify.
const (
	VerifyNone    = "none"    // there was none since the agent started
	VerifyRunning = "running" // Waits says why nothing is compared now
	VerifyStopped = "stopped" // --resume goes on
	VerifyDone    = "done"
	VerifyFailed  = "failed" // Because says why
)

// What is wrong with a range.
const (
	RangeDiffers        = "differs"
	RangeUnreadableHere = "unreadable_here"
	RangeUnreadablePeer = "unreadable_there"
)

// Verify is the latest verify that this node led, or leads.
type Verify struct {
	State     string     `json:"state"`            // none, running, stopped, done, failed
	Volume    *int       `json:"volume,omitempty"` // nil: all
	Repair    bool       `json:"repair"`
	Scheduled bool       `json:"scheduled"`       // by the configuration, not by an operator
	Waits     string     `json:"waits"`           // "" when it goes on
	Because   string     `json:"because"`         // of a failed one
	Began     *time.Time `json:"began,omitempty"` // nil when there was none
	Ended     *time.Time `json:"ended,omitempty"` // nil while it runs

	DoneBytes     int64 `json:"done_bytes"`
	TotalBytes    int64 `json:"total_bytes"`
	RateBytesPerS int64 `json:"rate_bytes_per_s"`
	ETAS          int64 `json:"eta_s"` // -1 when unknown

	DifferingBytes  int64 `json:"differing_bytes"`  // what differed, in blocks of 4 KiB
	UnreadableBytes int64 `json:"unreadable_bytes"` // what could not be read, on either node
	RepairedBytes   int64 `json:"repaired_bytes"`   // of both
	// Found lists what differs, at most 128; FoundMore says that there is more.
	Found     []Range `json:"found"`
	FoundMore bool    `json:"found_more"`
}

// Range is a range of a volume that was found not to be equal.
type Range struct {
	Volume   int    `json:"volume"`
	Offset   int64  `json:"offset"`
	Length   int64  `json:"length"`
	Kind     string `json:"kind"` // differs, unreadable_here, unreadable_there
	Repaired bool   `json:"repaired"`
}

// Proven says when a volume's copies were last found equal, region by region.
type Proven struct {
	RegionBytes int64 `json:"region_bytes"`
	// Oldest is when the region that waits longest was; nil while one never was.
	Oldest *time.Time `json:"oldest,omitempty"`
	// Bytes is how much was ever.
	Bytes int64 `json:"bytes"`
	// RegionsAgeS is how long ago each region was, in its order; -1: never.
	RegionsAgeS []int64 `json:"regions_age_s"`
}
