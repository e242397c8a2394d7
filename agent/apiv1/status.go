package apiv1

import "time"

// Status is everything a node knows about itself, its resources and the pair,
// at one instant. GET /v1/status.
type Status struct {
	Node        string     `json:"node"`
	Cluster     string     `json:"cluster"`
	Version     string     `json:"version"`
	Time        time.Time  `json:"time"`
	UptimeS     int64      `json:"uptime_s"`
	Arbitration string     `json:"arbitration"` // witness, fencing, manual
	Maintenance bool       `json:"maintenance"` // automatic actions are off
	Standby     []string   `json:"standby"`     // nodes that must not be promoted
	Quorum      Quorum     `json:"quorum"`
	Resources   []Resource `json:"resources"`
	Members     []Member   `json:"members"`
	// Fencing says, with arbitration fencing, how each other node could be fenced;
	// Fences are the last ones, oldest first.
	Fencing []Fencing `json:"fencing"`
	Fences  []Fence   `json:"fences"`
	// Watchdog is what resets this node when its agent does not go on, if there is one.
	Watchdog *Watchdog `json:"watchdog,omitempty"`
	// WriteOut is how this node's agent would fare when memory is short.
	WriteOut WriteOut `json:"write_out"`
	// EventSeq is the number of the newest event included in this status.
	EventSeq uint64 `json:"event_seq"`
	// LastProblem is the newest thing that went wrong on this node, if any.
	LastProblem *ProblemAt `json:"last_problem,omitempty"`
}

// WriteOut says whether the agent, which the kernel's dirty pages go through, waits
// for them itself when memory is short.
type WriteOut struct {
	Ready       bool   `json:"ready"`
	Threads     int    `json:"threads"`       // of the agent
	Flushers    int    `json:"flushers"`      // of them that get memory without waiting for writes
	LockedBytes int64  `json:"locked_bytes"`  // that are not taken from it
	OOMScoreAdj int    `json:"oom_score_adj"` // -1000: never ended for want of memory
	Because     string `json:"because"`       // why that could not be found out; "" where it could
}

// ProblemAt is a problem and when it was met.
type ProblemAt struct {
	Time     time.Time `json:"time"`
	Resource string    `json:"resource,omitempty"`
	Problem
}

// Quorum is the ledger's vote as this node sees it.
type Quorum struct {
	Voters      int    `json:"voters"`
	Reachable   int    `json:"reachable"` // voters heard of lately, this node included
	Leader      string `json:"leader"`    // "" when there is none
	Incarnation uint64 `json:"incarnation"`
	HasQuorum   bool   `json:"has_quorum"`
	// Unmet is whom this node has to meet before it votes: its ledger was lost.
	Unmet []string `json:"unmet,omitempty"`
	// Refusing is who has been met, and does not yet take this new machine for the node.
	Refusing []string `json:"refusing,omitempty"`
	// Alone: this node goes on as the only voter of a larger group, Joining: it is no
	// voter again yet. Of three those that return vote again both or neither.
	Alone   bool `json:"alone,omitempty"`
	Joining bool `json:"joining,omitempty"`
	// Replaced says who takes another machine for this node: it takes no part.
	Replaced string `json:"replaced,omitempty"`
	// Arranging is why the voters are not those of the configuration yet: a witness
	// comes or goes, or the two nodes are not configured alike.
	Arranging string `json:"arranging,omitempty"`
}

// Resource is one replicated data set as this node sees it.
type Resource struct {
	Name      string   `json:"name"`
	Token     uint64   `json:"token"`   // fencing token: grows with every promotion and set change
	Primary   string   `json:"primary"` // "" when there is none
	InSync    []string `json:"in_sync"` // the nodes whose copy is current
	Role      string   `json:"role"`    // of this node: Primary, Secondary, Unknown
	DiskState string   `json:"disk_state"`
	Suspect   bool     `json:"suspect"` // this copy comes back from a crash
	// SplitBrain says that both nodes went on without the other: explain tells
	// what each of them has.
	SplitBrain bool `json:"split_brain"`
	// Protocol is by which writes are answered now: C, B or A; ProtocolWhy is why it
	// is not the one that is set here, "" where it is.
	Protocol    string `json:"protocol"`
	ProtocolWhy string `json:"protocol_why,omitempty"`
	// Sides says, in a split brain, what each node has; this one first.
	Sides []Side `json:"sides"`
	// Kept is what this node gave up in a split brain and is kept, by volume.
	Kept        []KeptImage `json:"kept"`
	Arbitration string      `json:"arbitration"`
	// LeaseMS is what is left of this node's lease; 0 when it holds none.
	LeaseMS int64 `json:"lease_ms"`
	// Frozen says that I/O waits, and FrozenReasons why.
	Frozen        bool     `json:"frozen"`
	FrozenReasons []string `json:"frozen_reasons"`
	// Settings are those that count now, which an operator may have changed.
	Settings Settings `json:"settings"`
	// Because is what the failover does or waits for, in a sentence.
	Because string `json:"because"`
	// SinceS is how long this node has had this role.
	SinceS   int64     `json:"since_s"`
	Volumes  []Volume  `json:"volumes"`
	Peers    []Peer    `json:"peers"`
	Services []Service `json:"services"`
	// Verify is the latest verify that this node led.
	Verify Verify `json:"verify"`
	// AttachInS is in how many seconds a disk that hung, and answers again, is
	// attached by itself; 0 when none is about to be.
	AttachInS int64 `json:"attach_in_s"`
	// LastProblem is the newest thing that went wrong with this resource.
	LastProblem *ProblemAt `json:"last_problem,omitempty"`
}

// KeptImage is what is kept of one volume. Together with what was not overwritten
// since it is what the volume held then.
type KeptImage struct {
	Volume int    `json:"volume"`
	State  string `json:"state"`         // keeping, incomplete, undoing, undone
	Why    string `json:"why,omitempty"` // of incomplete
	// GivenUp is when, and Since when what it held began to be written apart.
	GivenUp    time.Time  `json:"given_up"`
	Since      *time.Time `json:"since,omitempty"`
	Peer       string     `json:"peer"`       // whose data took its place
	Generation string     `json:"generation"` // of what is kept
	SizeBytes  int64      `json:"size_bytes"` // of the volume then
	KeptBlocks int64      `json:"kept_blocks"`
	UsedBytes  int64      `json:"used_bytes"` // what the image takes
	Device     string     `json:"device"`     // where it is offered, "" when it is not
}

// Settings may be changed while a resource runs.
type Settings struct {
	OnNoQuorum    string `json:"on_no_quorum"`
	DiskTimeoutMS int64  `json:"disk_timeout_ms"` // 0: for ever
	PeerTimeoutMS int64  `json:"peer_timeout_ms"` // 0: for ever
	// Protocol is what this node is set to; where the peer's is stricter, that counts.
	Protocol            string `json:"protocol"`
	CongestionFillBytes int64  `json:"congestion_fill_bytes"`
	CongestionAction    string `json:"congestion_action"` // block, pull-ahead
}

// Volume is one device of a resource on this node.
type Volume struct {
	Number    int    `json:"number"`
	SizeBytes int64  `json:"size_bytes"`
	Device    string `json:"device"` // the stable link; "" while Secondary
	Disk      string `json:"disk"`   // the backing device
	Frontend  string `json:"frontend"`
	DiskState string `json:"disk_state"`
	// DirtyBytes is what the peer lacks of this volume.
	DirtyBytes int64 `json:"dirty_bytes"`
	// OpenBy names the processes that hold the device open, when known.
	OpenBy   []string `json:"open_by,omitempty"`
	Counters Counters `json:"counters"`
	// Proven says when the copies of this volume were last found equal.
	Proven Proven `json:"proven"`
}

// Counters are what a volume did: rates over the last second, totals since the
// agent started. Latencies are of writes as the application sees them.
type Counters struct {
	ReadsPerS       float64 `json:"reads_per_s"`
	WritesPerS      float64 `json:"writes_per_s"`
	ReadBytesPerS   float64 `json:"read_bytes_per_s"`
	WriteBytesPerS  float64 `json:"write_bytes_per_s"`
	WriteP50US      float64 `json:"write_p50_us"`
	WriteP99US      float64 `json:"write_p99_us"`
	ReadsTotal      uint64  `json:"reads_total"`
	WritesTotal     uint64  `json:"writes_total"`
	FlushesTotal    uint64  `json:"flushes_total"`
	ReadBytesTotal  uint64  `json:"read_bytes_total"`
	WriteBytesTotal uint64  `json:"write_bytes_total"`
	ErrorsTotal     uint64  `json:"errors_total"`
	InFlight        int     `json:"in_flight"`
}

// Peer is the other node as far as one resource is concerned.
type Peer struct {
	Node        string `json:"node"`
	Role        string `json:"role"`
	DiskState   string `json:"disk_state"`
	Connection  string `json:"connection"`  // StandAlone, Unconnected, Connecting, Connected
	Replication string `json:"replication"` // Off, Established, SyncSource, ...
	Path        string `json:"path"`        // the path in use; "" when not connected
	// AlsoPaths are the others in use, where all are used at once.
	AlsoPaths []string `json:"also_paths,omitempty"`
	// Reason says why it is not connected; "" when it is.
	Reason     string `json:"reason"`
	DirtyBytes int64  `json:"dirty_bytes"` // what the copies differ by, as known here
	// BehindBytes is what this node's applications were answered and the peer's disk
	// is not known to have (protocols A and B).
	BehindBytes int64 `json:"behind_bytes"`
	// Resync is there while one runs or is paused.
	Resync *Resync `json:"resync,omitempty"`
	// DownS is how long the connection has been down; 0 when it is up.
	DownS int64 `json:"down_s"`
}

// Directions of a resync, seen from this node.
const (
	ToPeer   = "to_peer"
	FromPeer = "from_peer"
)

// Resync is the progress of making two copies equal again.
type Resync struct {
	Direction     string `json:"direction"` // to_peer, from_peer
	DoneBytes     int64  `json:"done_bytes"`
	TotalBytes    int64  `json:"total_bytes"`
	EqualBytes    int64  `json:"equal_bytes"` // found equal in this session and not sent, as its source knows
	RateBytesPerS int64  `json:"rate_bytes_per_s"`
	ETAS          int64  `json:"eta_s"` // -1 when unknown
	Paused        bool   `json:"paused"`
	PausedBy      string `json:"paused_by,omitempty"` // node it was paused on: its source
}

// Service states.
const (
	ServiceStopped  = "stopped"
	ServiceStarting = "starting"
	ServiceRunning  = "running"
	ServiceStopping = "stopping"
	ServiceFailed   = "failed"
	ServiceUnknown  = "unknown" // not looked at yet, or the last check could not tell
)

// Service is one thing that runs where the Primary is.
type Service struct {
	Name  string    `json:"name"`
	Kind  string    `json:"kind"` // mount, systemd, exec, ocf, address
	State string    `json:"state"`
	Since time.Time `json:"since"`
	Error string    `json:"error"` // the last failure; "" when there is none
	// Failures is how often it failed on this node within its window, and
	// FailureLimit how often it takes until the peer is asked. They are forgotten in
	// ForgottenInS, or by a cleanup.
	Failures     int    `json:"failures"`
	FailureLimit int    `json:"failure_limit"`
	ForgottenInS int64  `json:"forgotten_in_s"` // 0: there is nothing to forget
	LastFailure  string `json:"last_failure,omitempty"`
}

// Member kinds and states.
const (
	KindData    = "data"
	KindWitness = "witness"

	MemberAlive   = "alive"
	MemberSuspect = "suspect"
	MemberDead    = "dead"
	MemberUnknown = "unknown"
)

// Member is a node of the cluster as the heartbeat of this node sees it.
type Member struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`  // data, witness
	State   string `json:"state"` // alive, suspect, dead, unknown
	Self    bool   `json:"self"`
	UptimeS int64  `json:"uptime_s"` // of its agent; 0 when not known
	Version string `json:"version"`
	// Machine is the identity of the machine that has the name, begun with its ledger
	// directory; "" where none is known, or a new one is waited for.
	Machine string   `json:"machine,omitempty"`
	Paths   []Path   `json:"paths"`
	Reasons []string `json:"reasons"` // the evidence, newest first
}

// Path is one way to a member.
type Path struct {
	Name    string  `json:"name"`
	Address string  `json:"address"`
	State   string  `json:"state"`   // alive, suspect, dead, unknown
	RTTUS   float64 `json:"rtt_us"`  // of the last answer; 0 when there was none
	Carrier string  `json:"carrier"` // at this node's end: up, down, unknown
	// Streams is absent for this node itself.
	Streams *Streams `json:"streams,omitempty"`
}

// Streams is what a path is good for, and what went over it since the agent
// started.
type Streams struct {
	Use         string  `json:"use"` // good, held, bad, unknown; "" for a witness, to which there is nothing to choose
	Because     string  `json:"because"`
	SinceS      int64   `json:"since_s"`
	HoldMS      int64   `json:"hold_ms"`       // held: until it is used again
	Losses      uint64  `json:"losses"`        // how often it became bad
	Moves       uint64  `json:"moves"`         // how often a session of the mirror went on over it
	RoundTripUS float64 `json:"round_trip_us"` // of frames of full size, smoothed; 0 when there was none
	Live        int     `json:"live"`          // streams now, for all purposes
	BytesOut    int64   `json:"bytes_out"`     // that the peer has acknowledged
	BytesIn     int64   `json:"bytes_in"`
	Retransmits uint64  `json:"retransmits"` // segments that were sent again
}

// What a path is good for.
const (
	PathGood    = "good"
	PathHeld    = "held" // well again, not yet for long enough
	PathBad     = "bad"
	PathUnknown = "unknown"
)

// What is known of the cable at this node's end of a path.
const (
	CarrierUp      = "up"
	CarrierDown    = "down"
	CarrierUnknown = "unknown" // the device is switched off, or has lost its address
)

// Version is who answers. GET /v1/version.
type Version struct {
	Version string `json:"version"`
	API     string `json:"api"`
	Go      string `json:"go"`
	Node    string `json:"node"`
}
