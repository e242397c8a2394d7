package config

import (
	"net/netip"
	"time"

	"hapair/mirror/aftersplit"
)

// Config is the whole file with its defaults filled in. Treat it as read-only:
// it is shared between goroutines without a lock.
type Config struct {
	// Cluster names the pair; it is part of every handshake.
	Cluster string `yaml:"cluster"`
	// Nodes are the two data nodes, in the order of the file.
	Nodes []Node `yaml:"nodes"`
	// Witness is the third voter without data; nil for a bare pair.
	Witness *Witness `yaml:"witness,omitempty" unset:"none"`
	// Arbitration says who decides when the two disagree.
	Arbitration Arbitration `yaml:"arbitration"`
	// Resources are the replicated data sets, in the order of the file.
	Resources []Resource `yaml:"resources"`
	// Fencing lists the fence devices of each node.
	Fencing []NodeFencing `yaml:"fencing,omitempty" unset:"none"`
	// Watchdog has each data node reset by its own watchdog; nil: none.
	Watchdog *Watchdog `yaml:"watchdog,omitempty" unset:"none"`

	// Disk and Metadata are the short form: one resource "data" of one volume.
	// They are empty after parsing; Resources holds what they meant.
	Disk     PerNode `yaml:"disk,omitempty"`
	Metadata PerNode `yaml:"metadata,omitempty"`

	// Port is the TCP port of mirror links and of the ledger on every node.
	Port uint16 `yaml:"port"`
	// HeartbeatPort is the TCP and UDP port of the membership heartbeat.
	HeartbeatPort uint16 `yaml:"heartbeat_port"`
	// Security says how the nodes prove who they are to each other.
	Security Security `yaml:"security"`
	// Timing holds every interval the failover depends on.
	Timing Timing `yaml:"timing"`
	// API says who may use the control socket.
	API API `yaml:"api"`
	// StateDir keeps the ledger and everything else that outlives a restart.
	StateDir string `yaml:"state_dir"`
	// RunDir holds the control socket and what a reboot may forget.
	RunDir string `yaml:"run_dir"`
	// DeviceDir holds the stable links <resource>/<volume>.
	DeviceDir string `yaml:"device_dir"`

	src *source // where each value stands, for messages
}

// Node is one data node.
type Node struct {
	Name string `yaml:",key"`
	// Addresses are the paths to this node; the first is tried first.
	Addresses []Address `yaml:"addresses"`
}

// Address is the address of a node on one named path.
type Address struct {
	Path string     `yaml:",key"`
	IP   netip.Addr `yaml:",value"`
}

// Witness is the voter without data.
type Witness struct {
	Name string `yaml:"name"`
	// Address is where both data nodes reach it.
	Address netip.Addr `yaml:"address"`
}

// Arbitration names the way a lone node learns whether it may go on.
type Arbitration string

// The three ways.
const (
	ArbitrateWitness Arbitration = "witness" // a third voter decides: automatic failover
	ArbitrateFencing Arbitration = "fencing" // a confirmed fence decides: automatic failover
	ArbitrateManual  Arbitration = "manual"  // the operator decides
)

// Resource is one replicated data set.
type Resource struct {
	Name string `yaml:",key"`
	// Volumes share one role, one peer and one write order. Their numbers are
	// their positions, from 0.
	Volumes []Volume `yaml:"volumes"`
	// Frontend is how the volumes appear as block devices.
	Frontend Frontend `yaml:"frontend"`
	// Protocol says when a write is answered. Where the nodes differ the stricter
	// one counts.
	Protocol Protocol `yaml:"protocol"`
	// Paths says whether the mirror goes over one path at a time, or over all that are
	// fit, for throughput. Both nodes must say all.
	Paths Paths `yaml:"paths"`
	// Congestion bounds what protocols A and B answer ahead of the peer's disk.
	Congestion Congestion `yaml:"congestion"`
	// AutoPromote lets the pair choose a Primary by itself.
	AutoPromote bool `yaml:"auto_promote"`
	// PreferredNode is promoted first on a cold start; "" for either.
	PreferredNode string `yaml:"preferred_node,omitempty" unset:"none"`
	// AutoFailback moves the resource back to PreferredNode once that has been fit
	// for FailbackAfter.
	AutoFailback  bool          `yaml:"auto_failback"`
	FailbackAfter time.Duration `yaml:"failback_after"`
	// OnNoQuorum says what the application sees while writing is not allowed.
	OnNoQuorum OnNoQuorum `yaml:"on_no_quorum"`
	// OnIOError says what a Primary does when its disk fails.
	OnIOError OnIOError `yaml:"on_io_error"`
	// AfterSplitBrain says what happens by itself when both copies were written
	// without the other.
	AfterSplitBrain AfterSplitBrain `yaml:"after_split_brain,omitempty" unset:"disconnect: an operator decides"`
	// SplitBrainKeep is how much of what a side of a split brain gives up is kept: a
	// size for each volume, all, or off.
	SplitBrainKeep Keep `yaml:"split_brain_keep"`
	// DiskTimeout is how long a disk may take for a request before it is given up,
	// where the data can be gone on with at the peer; 0: for ever.
	DiskTimeout time.Duration `yaml:"disk_timeout"`
	// PeerTimeout is how long a connected peer may take for a request before the
	// Primary goes on without it; 0: for ever.
	PeerTimeout time.Duration `yaml:"peer_timeout"`
	// ResyncRate bounds a resync in bytes per second; 0 does not.
	ResyncRate Size `yaml:"resync_rate,omitempty" unset:"what the disks and the link give"`
	// Verify is when the copies are compared by themselves.
	Verify Verify `yaml:"verify,omitempty" unset:"none: only by hactl verify"`
	// Failures says how often a service may fail on a node before the peer takes
	// the resource.
	Failures Failures `yaml:"failures"`
	// Services run on the Primary, started in this order, stopped in reverse.
	Services []Service `yaml:"services,omitempty" unset:"none"`
}

// Failures says when a service has failed on a node too often.
type Failures struct {
	// Threshold is how many failures within Within it takes.
	Threshold int           `yaml:"threshold"`
	Within    time.Duration `yaml:"within"`
	// Forget is how long after the last one none is remembered any more.
	Forget time.Duration `yaml:"forget"`
}

// Congestion is what happens when the peer does not take writes as fast as they
// are answered.
type Congestion struct {
	// Fill is how much may be answered that the peer's disk does not have.
	Fill Size `yaml:"fill"`
	// Action is what happens when it is reached.
	Action CongestionAction `yaml:"action"`
}

// Verify is the continuous verify of a resource.
type Verify struct {
	// Every is the time from the beginning of one to that of the next; 0: none.
	Every time.Duration `yaml:"every"`
	// Rate bounds it; it also yields to applications by itself.
	Rate Rate `yaml:"rate"`
	// Repair writes what differs from the Primary to its peer.
	Repair bool `yaml:"repair"`
}

// AfterSplitBrain has DRBD's policies, by how many nodes are Primary when the two
// meet: after-sb-0pri, after-sb-1pri, after-sb-2pri.
type AfterSplitBrain struct {
	NoPrimary    string `yaml:"no_primary"`
	OnePrimary   string `yaml:"one_primary"`
	TwoPrimaries string `yaml:"two_primaries"`
}

// Policies are the same in their order; aftersplit.Names has the keys.
func (a AfterSplitBrain) Policies() aftersplit.Policies {
	return aftersplit.Policies{a.NoPrimary, a.OnePrimary, a.TwoPrimaries}
}

// Volume is one device of a resource.
type Volume struct {
	// Disk is the backing device (or file) on each node.
	Disk PerNode `yaml:"disk"`
	// Metadata is "internal" (the end of the disk) or a path of its own.
	Metadata PerNode `yaml:"metadata"`
	// Size is the usable size in bytes; 0 takes all of the disk.
	Size Size `yaml:"size,omitempty" unset:"as large as the disk"`
}

// Internal is the metadata value that means "at the end of the disk".
const Internal = "internal"

// PerNode is a value that is the same on every node (All) or given per node.
type PerNode struct {
	All    string
	ByNode map[string]string
}

// For returns the value for a node, "" when it has none.
func (p PerNode) For(node string) string {
	if p.All != "" {
		return p.All
	}
	return p.ByNode[node]
}

// IsZero reports whether no value was given.
func (p PerNode) IsZero() bool { return p.All == "" && len(p.ByNode) == 0 }

// Size is a number of bytes, written "100GiB", "512 MiB" or plainly.
type Size int64

// Rate is a number of bytes per second, written "20MiB/s".
type Rate int64

// Keep is how much is kept: KeepAll, KeepOff, or a Size.
type Keep string

// All that the free space allows, and nothing.
const (
	KeepAll Keep = "all"
	KeepOff Keep = "off"
)

// KeepFree stays free on the file system of state_dir, whatever is kept: the ledger
// lies there too.
const KeepFree = 512 << 20

// Limit is the size in bytes, 0 for all; off says that nothing is kept.
func (k Keep) Limit() (bytes int64, off bool) {
	if k == KeepOff {
		return 0, true
	}
	s, err := ParseSize(string(k))
	if err != nil {
		return 0, false // all; anything else was refused
	}
	return int64(s), false
}

// OnIOError is what a Primary does whose disk has failed.
type OnIOError string

// The two ways, with DRBD's names.
const (
	DetachOnError OnIOError = "detach"  // it gives its copy up and goes on through the peer
	PassOnError   OnIOError = "pass-on" // the application gets the error; the peer takes over
)

// Frontend is a way to serve a block device.
type Frontend string

// The front ends; auto takes the first that works on this machine.
const (
	FrontendAuto   Frontend = "auto"
	FrontendUblk   Frontend = "ublk"
	FrontendNBD    Frontend = "nbd"
	FrontendFUSE   Frontend = "fuse"
	FrontendExport Frontend = "export"
)

// Paths says how many of the paths to the peer are used at a time.
type Paths string

// How many.
const (
	PathsOne Paths = "one" // the first that is fit, in the configured order
	PathsAll Paths = "all"
)

// Protocol says what has to be true before a write is answered.
type Protocol string

// The protocols, with DRBD's letters.
const (
	ProtocolA Protocol = "A" // the local disk has it, and it is on its way to the peer
	ProtocolB Protocol = "B" // the local disk has it, and the peer in its memory
	ProtocolC Protocol = "C" // both disks have it: nothing answered is lost with one node
)

// CongestionAction is what a Primary does that is too far ahead of its peer.
type CongestionAction string

// The two ways, with DRBD's names.
const (
	CongestionBlock     CongestionAction = "block"      // answers wait for the peer
	CongestionPullAhead CongestionAction = "pull-ahead" // it goes on without the peer, which is resynced later
)

// OnNoQuorum is what I/O does while the node holds no lease.
type OnNoQuorum string

// Suspended I/O waits and goes on later; failed I/O returns EIO at once.
const (
	SuspendIO OnNoQuorum = "suspend"
	FailIO    OnNoQuorum = "error"
)

// Service is one thing that runs where the Primary is. Exactly one of Mount,
// Systemd, Exec, OCF and Address is set.
type Service struct {
	// Name is unique in the resource; by default it comes from what it is.
	Name    string          `yaml:"name,omitempty"`
	Mount   *MountService   `yaml:"mount,omitempty"`
	Systemd string          `yaml:"systemd,omitempty"`
	Exec    *ExecService    `yaml:"exec,omitempty"`
	OCF     *OCFService     `yaml:"ocf,omitempty"`
	Address *AddressService `yaml:"address,omitempty"`
	// StartTimeout, StopTimeout and MonitorTimeout bound one attempt each.
	StartTimeout   time.Duration `yaml:"start_timeout"`
	StopTimeout    time.Duration `yaml:"stop_timeout"`
	MonitorTimeout time.Duration `yaml:"monitor_timeout"`
	// MonitorInterval is the time between two checks of a running service.
	MonitorInterval time.Duration `yaml:"monitor_interval"`
	// Failures is its own; nil: as the resource has it.
	Failures *Failures `yaml:"failures,omitempty" unset:"as the resource has it"`
	// Parallel starts and stops it together with the one before.
	Parallel bool `yaml:"parallel,omitempty"`
}

// Kind returns "mount", "systemd", "exec", "ocf" or "address".
func (s Service) Kind() string {
	switch {
	case s.Mount != nil:
		return "mount"
	case s.Systemd != "":
		return "systemd"
	case s.Exec != nil:
		return "exec"
	case s.OCF != nil:
		return "ocf"
	case s.Address != nil:
		return "address"
	}
	return ""
}

// MountService mounts a volume of the resource.
type MountService struct {
	Path string `yaml:"path"`
	// Type is the file system; "" lets mount(8) find out.
	Type string `yaml:"type,omitempty" unset:"found out by mount"`
	// Options are mount options, comma separated.
	Options string `yaml:"options,omitempty" unset:"none"`
	// Volume is the number of the volume to mount.
	Volume int `yaml:"volume"`
}

// ExecService runs commands. Start and Stop end when the thing is up or down;
// Status exits 0 when it runs, 1, 2, 3 or 7 when not, and with anything else when it is
// broken.
type ExecService struct {
	Start  Command `yaml:"start"`
	Stop   Command `yaml:"stop"`
	Status Command `yaml:"status,omitempty" unset:"none"`
}

// OCFService is kept by a resource agent of the Open Cluster Framework.
type OCFService struct {
	// Agent is provider:type.
	Agent string `yaml:"agent"`
	// Parameters are handed to it, as its metadata names them.
	Parameters map[string]string `yaml:"parameters,omitempty" unset:"none"`
	// CheckLevel is how deep a check goes; 0: as the agent likes.
	CheckLevel int `yaml:"check_level"`
}

// Command is a program with its arguments. In the file a list is taken as it
// is; a text is run by /bin/sh -c.
type Command []string

// SecurityMode is how links are authenticated.
type SecurityMode string

// The two modes.
const (
	SecurityTLS SecurityMode = "tls" // TLS 1.3 with the cluster's own CA
	SecurityPSK SecurityMode = "psk" // a pre-shared key
)

// Security names the secret files. They are the same paths on every node, and
// readable by root only; the file itself holds no secret.
type Security struct {
	Mode SecurityMode `yaml:"mode"`
	// CAFile, CertFile and KeyFile are PEM files, used by mode tls.
	CAFile   string `yaml:"ca_file"`
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// PSKFile holds the pre-shared key, used by mode psk.
	PSKFile string `yaml:"psk_file"`
	// GossipKeyFile holds the key of the membership heartbeat, used always.
	GossipKeyFile string `yaml:"gossip_key_file"`
}

// Timing holds the intervals a failover depends on. Heartbeat (detection) <
// Lease < Grace, and 3*Renew <= Lease, so that two lost renewals lose nothing.
type Timing struct {
	// Probe is the time between two membership probes on each path.
	Probe time.Duration `yaml:"probe"`
	// Heartbeat is how long a silent ledger leader is waited for.
	Heartbeat time.Duration `yaml:"heartbeat"`
	// Link is how long a silent mirror link is waited for.
	Link time.Duration `yaml:"link"`
	// Lease is how long a Primary may answer I/O after its last renewal was sent.
	Lease time.Duration `yaml:"lease"`
	// Renew is the time between two renewals.
	Renew time.Duration `yaml:"renew"`
	// Grace is how long the others wait after the last grant, lease included.
	Grace time.Duration `yaml:"grace"`
}

// API says who may use the control socket.
type API struct {
	// ReadGroup owns the socket: its members may look. "" is root only.
	ReadGroup string `yaml:"read_group"`
	// AdminGroup may also change things; "" is root only.
	AdminGroup string `yaml:"admin_group,omitempty" unset:"none"`
	// MetricsAddress serves /metrics over TCP as well, host:port; "" does not.
	MetricsAddress string `yaml:"metrics_address,omitempty" unset:"none"`
}
