package apiv1

import "time"

// FenceRequest has a node fenced: switched off, by the devices this node has for
// it. Force does it to one that is alive.
type FenceRequest struct {
	Node   string `json:"node"`
	Force  bool   `json:"force,omitempty"`
	Reason string `json:"reason,omitempty"`
	WaitMS int64  `json:"wait_ms,omitempty"`
}

// FenceConfirmRequest is an operator's word that a node is off. It counts only
// with IHaveChecked.
type FenceConfirmRequest struct {
	Node         string `json:"node"`
	IHaveChecked bool   `json:"i_have_checked"`
}

// Outcomes of a fence. Only the last one counts.
const (
	FenceUnknown   = "unknown"   // it may have happened, or happen yet
	FenceRefused   = "refused"   // the device said no
	FenceConfirmed = "confirmed" // the node was off
)

// Fencing is what there is to fence one node with.
type Fencing struct {
	Node    string        `json:"node"`
	Ready   bool          `json:"ready"`   // some level of devices could be used when last looked at
	Because string        `json:"because"` // why not; "" when ready
	TakesMS int64         `json:"takes_ms"`
	DelayMS int64         `json:"delay_ms"` // what a Secondary waits before it fences the node
	Devices []FenceDevice `json:"devices"`
	// UnderWay is there while the node is being fenced.
	UnderWay *FenceUnderWay `json:"under_way,omitempty"`
	// Totals of the fences since the agent started.
	ConfirmedTotal uint64 `json:"confirmed_total"`
	RefusedTotal   uint64 `json:"refused_total"`
	UnknownTotal   uint64 `json:"unknown_total"`
}

// Watchdog is a watchdog of the kernel that the agent pets.
type Watchdog struct {
	Device     string `json:"device"`
	Driver     string `json:"driver"`     // by its own word
	TimeoutMS  int64  `json:"timeout_ms"` // from the last pet to the reset
	PettedMS   int64  `json:"petted_ms"`  // since it was last petted
	Because    string `json:"because"`    // why it is not petted now; "" while it is
	PetsTotal  uint64 `json:"pets_total"`
	NoWayOut   bool   `json:"no_way_out"`   // it cannot be disarmed
	OnNoQuorum string `json:"on_no_quorum"` // of a Primary without a lease: wait, reset
	// Disk is read for pills, "" for none; DiskBecause says why it is not, "" while it is.
	Disk        string `json:"disk"`
	DiskBecause string `json:"disk_because"`
}

// FenceDevice is one device and what it said when it was last looked at.
type FenceDevice struct {
	Name    string     `json:"name"`
	Level   int        `json:"level"`
	Usable  bool       `json:"usable"`
	Because string     `json:"because"`           // why it is not; "" when it is
	Checked *time.Time `json:"checked,omitempty"` // left out before the first look
}

// FenceUnderWay is a fence that has not ended.
type FenceUnderWay struct {
	Because          string    `json:"because"`
	Since            time.Time `json:"since"`
	Level            int       `json:"level"`
	Failed           string    `json:"failed"`             // what became of the levels before; "" for none
	WaitsForOperator bool      `json:"waits_for_operator"` // for hactl fence-confirm
}

// Fence is the end of one fence.
type Fence struct {
	Node    string    `json:"node"`
	Outcome string    `json:"outcome"` // unknown, refused, confirmed
	Device  string    `json:"device"`
	Reason  string    `json:"reason"`
	Since   time.Time `json:"since"`
	TookMS  int64     `json:"took_ms"`
}
