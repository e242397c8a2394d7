package apiv1

import "time"

// Every change is POST /v1/resources/{name}/{verb} or POST /v1/{verb} with one
// of these as its body; an empty body is the zero request. WaitMS bounds how
// long the agent waits for the change to be complete; 0 takes the verb's default.

// PromoteRequest asks this node to become Primary. Force goes on although
// writes may be lost: the refusal without it says which.
type PromoteRequest struct {
	Force  bool   `json:"force,omitempty"`
	Reason string `json:"reason,omitempty"` // recorded with the event
	WaitMS int64  `json:"wait_ms,omitempty"`
}

// DemoteRequest asks this node to become Secondary. Force ends the services and
// fails I/O that will not finish.
type DemoteRequest struct {
	Force  bool   `json:"force,omitempty"`
	Reason string `json:"reason,omitempty"`
	WaitMS int64  `json:"wait_ms,omitempty"`
}

// SwitchoverRequest moves the Primary to To, or to the other node when empty.
// Force ends whoever keeps the services or the device from being stopped.
type SwitchoverRequest struct {
	To     string `json:"to,omitempty"`
	Force  bool   `json:"force,omitempty"`
	WaitMS int64  `json:"wait_ms,omitempty"`
}

// ConnectRequest brings the mirror link up. DiscardMyData resolves a split
// brain by giving up what only this node has.
type ConnectRequest struct {
	DiscardMyData bool `json:"discard_my_data,omitempty"`
	// WithoutImage does not keep what is given up.
	WithoutImage bool `json:"without_image,omitempty"`
}

// Actions of a SplitBrainRequest.
const (
	SplitMount   = "mount"   // offer what was given up as read-only devices
	SplitUnmount = "unmount" // withdraw them
	SplitUndo    = "undo"    // put it back
	SplitDrop    = "drop"    // free its space
)

// SplitBrainRequest does something with what this node gave up in a split brain.
type SplitBrainRequest struct {
	Action string `json:"action"`
}

// DisconnectRequest takes the mirror link down and keeps it down.
type DisconnectRequest struct {
	Force bool `json:"force,omitempty"`
}

// InvalidateRequest makes one copy worthless, so that it is synced from the
// other: this node's, or the peer's.
type InvalidateRequest struct {
	Peer   bool `json:"peer,omitempty"`
	Volume *int `json:"volume,omitempty"` // nil: all volumes
}

// AttachRequest takes disks into use again that have failed: what is found now
// under their names. CreateMetadata is for a disk that is another one; Force
// overwrites what it holds.
type AttachRequest struct {
	CreateMetadata bool `json:"create_metadata,omitempty"`
	Force          bool `json:"force,omitempty"`
}

// ResizeRequest gives volumes another size, on both nodes: a larger one while they
// are in use, a smaller one while no node is Primary. CutData: what lies behind a
// smaller size is lost, whatever it is.
// AssumeClean: the new range is equal on both disks already, and is not made
// zero. AssumePeerHasSpace goes on without a peer that is away and out of the
// in-sync set.
type ResizeRequest struct {
	Volume             *int  `json:"volume,omitempty"`     // nil: all volumes
	SizeBytes          int64 `json:"size_bytes,omitempty"` // 0: the configuration's, or as much as both disks offer
	AssumeClean        bool  `json:"assume_clean,omitempty"`
	AssumePeerHasSpace bool  `json:"assume_peer_has_space,omitempty"`
	CutData            bool  `json:"cut_data,omitempty"`
	WaitMS             int64 `json:"wait_ms,omitempty"`
}

// SetRequest changes settings of a resource on this node until its agent starts
// again; then the configuration counts. What is empty stays as it is. Times are
// written as in the configuration: 30s; 0 waits for ever.
type SetRequest struct {
	OnNoQuorum  string `json:"on_no_quorum,omitempty"` // suspend or error
	DiskTimeout string `json:"disk_timeout,omitempty"`
	PeerTimeout string `json:"peer_timeout,omitempty"`
	Protocol    string `json:"protocol,omitempty"` // A, B or C
}

// SyncRequest pauses or resumes resync. (pause-sync, resume-sync)
type SyncRequest struct{}

// CleanupRequest forgets the failures of services on both nodes.
type CleanupRequest struct {
	Service string `json:"service,omitempty"` // "": of all
}

// MaintenanceRequest switches all automatic actions of the cluster off or on.
type MaintenanceRequest struct {
	On     bool   `json:"on"`
	Reason string `json:"reason,omitempty"`
}

// StandbyRequest marks a node as not to be promoted, or takes the mark away.
type StandbyRequest struct {
	Node   string `json:"node"`
	On     bool   `json:"on"`
	Reason string `json:"reason,omitempty"`
}

// LedgerBeginRequest has a voter whose ledger was lost vote again before it has met
// every other one. Checked is the operator's word that those are gone for good.
type LedgerBeginRequest struct {
	Checked bool   `json:"checked"`
	Reason  string `json:"reason,omitempty"`
}

// ConfigApplyRequest has the agent read its configuration again, for the addresses of
// other members.
type ConfigApplyRequest struct{}

// ReplaceRequest has the machine of another node refused for good, so that a new one
// takes its place. Checked is the operator's word that it is off, and stays so.
type ReplaceRequest struct {
	Node    string `json:"node"`
	Checked bool   `json:"checked"`
	Reason  string `json:"reason,omitempty"`
}

// CreateMetadataRequest writes fresh metadata on a disk this agent does not
// have attached. AssumeClean declares the copies equal already. Force overwrites
// metadata that is there.
type CreateMetadataRequest struct {
	Volume      *int `json:"volume,omitempty"` // nil: all volumes
	AssumeClean bool `json:"assume_clean,omitempty"`
	Force       bool `json:"force,omitempty"`
}

// CreatedMetadata is what create-metadata wrote.
type CreatedMetadata struct {
	Volumes []MetadataInfo `json:"volumes"`
}

// MetadataInfo describes one volume's metadata.
type MetadataInfo struct {
	Volume        int    `json:"volume"`
	Disk          string `json:"disk"`
	Metadata      string `json:"metadata"` // internal, or the path
	UsableBytes   int64  `json:"usable_bytes"`
	MetadataBytes int64  `json:"metadata_bytes"`
	AssumedClean  bool   `json:"assumed_clean"`
}

// Changed is the answer to a change: what it was, what it is, and the new
// token when there is one.
type Changed struct {
	Resource string `json:"resource,omitempty"`
	Node     string `json:"node,omitempty"` // where it took effect
	Was      string `json:"was"`
	Now      string `json:"now"`
	Token    uint64 `json:"token,omitempty"`
	TookMS   int64  `json:"took_ms"`
	Text     string `json:"text"` // one sentence for people
}

// Verdicts of an explanation.
const (
	MayPromote  = "yes"   // promote works now
	MustWait    = "wait"  // it will work by itself; Why says on what it waits
	NeedsForce  = "force" // only by force; WouldLose says the price
	CannotServe = "no"    // not even by force
)

// Explanation answers: may this node be promoted, why, on which evidence, and
// what would be lost. GET /v1/resources/{name}/explain.
type Explanation struct {
	Resource string   `json:"resource"`
	Node     string   `json:"node"`
	Role     string   `json:"role"`    // of this node
	Verdict  string   `json:"verdict"` // yes, wait, force, no
	Text     string   `json:"text"`
	Why      []Reason `json:"why"`
	// WouldLose says in sentences what a forced promotion may lose.
	WouldLose []string `json:"would_lose"`
	// Help lists commands that would change the verdict.
	Help []string `json:"help"`
	// Sides says, in a split brain, what each node has; this one first.
	Sides []Side `json:"sides"`
	// Policy is what after_split_brain says of it; "" where an operator decides.
	Policy string `json:"policy,omitempty"`
}

// UnknownBytes is an amount that is not known.
const UnknownBytes = -1

// Side is one node's part in a split brain.
type Side struct {
	Node  string `json:"node"`
	Role  string `json:"role"`  // Unknown when it was not heard
	Token uint64 `json:"token"` // of the record that node goes by
	// WasPrimary says that it was Primary when the two parted, and before.
	WasPrimary bool `json:"was_primary"`
	// Since is when it first went on without the other, by its own clock; left out
	// when not known.
	Since *time.Time `json:"since,omitempty"`
	// OnlyBytes is what this side has and the other may lack; -1 when not known.
	OnlyBytes int64 `json:"only_bytes"`
	// Keep lists the commands that keep this side, in their order: run on the
	// other node, they give up what that has.
	Keep []string `json:"keep"`
	// KeepOn is the node on which these commands are run.
	KeepOn string `json:"keep_on"`
	// Loses says in a sentence what is lost by them.
	Loses string `json:"loses"`
	// Volumes says it by volume; empty when the side was not heard.
	Volumes []SideVolume `json:"volumes"`
}

// SideVolume is one volume of a Side.
type SideVolume struct {
	Number      int   `json:"number"`
	DirtyBlocks int64 `json:"dirty_blocks"` // of 4 KiB, at most, written without the other
	DirtyBytes  int64 `json:"dirty_bytes"`
	// Counted says that these are all since the two parted; otherwise they parted
	// earlier, and more may differ.
	Counted    bool       `json:"counted"`
	Since      *time.Time `json:"since,omitempty"`
	Generation string     `json:"generation"` // of the data
	Base       string     `json:"base"`       // the generation in which the other left
}

// Reason is one rule that was asked and what it found.
type Reason struct {
	Rule     string `json:"rule"` // e.g. quorum, lease, in_sync, disk, suspect, maintenance
	Holds    bool   `json:"holds"`
	Evidence string `json:"evidence"`
}
