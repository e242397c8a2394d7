package apiv1

import "time"

// Kinds of drills. The name of a configured path is one too: that path between the
// two nodes is closed at both ends for a while.
const (
	DrillAgent = "agent" // the Primary's agent ends as if killed, and starts again
	DrillPause = "pause" // it stands still for a while
	DrillDisk  = "disk"  // the Primary's disks fail for a while
	DrillPower = "power" // it is switched off by its fence devices
)

// DrillRequest rehearses a failure on the live pair. Without Yes nothing is done:
// the answer says what would be, or the refusal what forbids it.
type DrillRequest struct {
	Kind    string `json:"kind"`
	Yes     bool   `json:"yes,omitempty"`
	Seconds int    `json:"seconds,omitempty"` // for which it lasts, but for agent; 0: 10
	WaitMS  int64  `json:"wait_ms,omitempty"` // for the report; the drill ends by itself
}

// DrillReport is what a drill would do, or did and measured.
type DrillReport struct {
	Resource string   `json:"resource"`
	Kind     string   `json:"kind"`
	Node     string   `json:"node"`   // who led it, and measured
	Victim   string   `json:"victim"` // whose agent ended or stood still; "" for none
	Plan     []string `json:"plan"`   // what happens, in sentences
	Done     bool     `json:"done"`   // false: this is only the plan

	Began time.Time `json:"began"`
	// RTOMS is for how long nothing was answered, at most; -1: nothing was answered
	// any more. ResolutionMS is how coarse that is.
	RTOMS        float64     `json:"rto_ms"`
	ResolutionMS float64     `json:"resolution_ms"`
	Measured     string      `json:"measured"` // how
	Parts        []DrillPart `json:"parts"`    // what took how long, as the new Primary counted it
	Probes       int         `json:"probes"`   // answered
	// BehindBytes were answered and not known to be on the peer's disk when it
	// struck: the most that could be lost.
	BehindBytes int64  `json:"behind_bytes"`
	Lost        string `json:"lost"` // in a sentence, with what was not measured
	// Restored says that both copies are current again, and all is connected.
	Restored   bool            `json:"restored"`
	RestoredMS int64           `json:"restored_ms"` // after it struck
	Steps      []TimelineEntry `json:"steps"`       // what both nodes recorded meanwhile
	Text       string          `json:"text"`        // one sentence for people
}

// DrillPart is one share of the time.
type DrillPart struct {
	Name string  `json:"name"`
	MS   float64 `json:"ms"`
}

// FillLists replaces nil lists by empty ones.
func (d *DrillReport) FillLists() {
	fill(&d.Plan)
	fill(&d.Parts)
	fill(&d.Steps)
}
