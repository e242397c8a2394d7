// Package state holds the roles and states of a replicated resource, with
// DRBD's names and spelling. It imports nothing of ours.
//
// States are never compared with <: use the predicates. The numeric values
// travel on the wire and are only ever appended to.
package state

// Role is what a node may do with a resource.
type Role uint8

// The roles.
const (
	RoleUnknown Role = iota
	Secondary        // takes the peer's writes; gives no access, not even reads
	Primary          // may be read and written
)

// String returns DRBD's word.
func (r Role) String() string { return name(int(r), "Unknown", "Secondary", "Primary") }

// Disk is the state of one copy.
type Disk uint8

// The disk states.
const (
	DUnknown     Disk = iota // the peer's disk, when not connected
	Diskless                 // no backing device
	Attaching                // reading the metadata
	Failed                   // an I/O error was reported; becomes Diskless
	Inconsistent             // part old, part new: a resync target, or a new resource
	Outdated                 // consistent, but known to lag
	Consistent               // consistent, not connected: may prove UpToDate or Outdated
	UpToDate                 // consistent and current
)

// String returns DRBD's word.
func (d Disk) String() string {
	return name(int(d), "DUnknown", "Diskless", "Attaching", "Failed", "Inconsistent", "Outdated", "Consistent", "UpToDate")
}

// CanServe reports whether a Primary may read from this copy.
func (d Disk) CanServe() bool { return d == UpToDate || d == Consistent }

// HasData reports whether there is a copy that writes can go to.
func (d Disk) HasData() bool {
	return d == Inconsistent || d == Outdated || d == Consistent || d == UpToDate
}

// Connection is the state of the link to the peer.
type Connection uint8

// The connection states.
const (
	StandAlone  Connection = iota // no attempt: by wish, refused, or split brain
	Unconnected                   // about to try
	Connecting                    // waiting for the peer
	Connected                     // handshake complete
)

// String returns DRBD's word.
func (c Connection) String() string {
	return name(int(c), "StandAlone", "Unconnected", "Connecting", "Connected")
}

// Replication is what flows over a connection.
type Replication uint8

// The replication states.
const (
	Off         Replication = iota // not replicated
	Established                    // every write is replicated as it happens
	SyncSource                     // resync runs from this node
	SyncTarget                     // resync runs to this node
	PausedSyncS                    // resync from this node is paused
	PausedSyncT                    // resync to this node is paused
	Forwarding                     // the Primary has no copy that serves: its requests go to the peer
	Ahead                          // congested: this Primary goes on without the peer for a while
	Behind                         // the peer goes on without this copy for a while
)

// String returns DRBD's word.
func (r Replication) String() string {
	return name(int(r), "Off", "Established", "SyncSource", "SyncTarget", "PausedSyncS", "PausedSyncT", "Forwarding", "Ahead", "Behind")
}

func name(i int, names ...string) string {
	if i < len(names) {
		return names[i]
	}
	return "Invalid"
}

// Protocol is when a write is answered. The zero Protocol is the strictest.
type Protocol uint8

// The protocols, the strictest first.
const (
	ProtocolC Protocol = iota // when both disks have it
	ProtocolB                 // when the local disk has it, and the peer in its memory
	ProtocolA                 // when the local disk has it, and it is on its way to the peer
)

// String returns DRBD's letter.
func (p Protocol) String() string { return name(int(p), "C", "B", "A") }

// ParseProtocol reads a letter; one that is not known means C.
func ParseProtocol(s string) Protocol {
	switch s {
	case "A":
		return ProtocolA
	case "B":
		return ProtocolB
	default:
		return ProtocolC
	}
}

// Stricter returns the stricter of two protocols.
func (p Protocol) Stricter(q Protocol) Protocol {
	if q < p {
		return q
	}
	return p
}
