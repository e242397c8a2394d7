package engine

import (
	"time"

	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/wire"
)

// EventKind says what happened.
type EventKind uint8

// The events.
const (
	// Submitted: a front end hands over Request for Volume.
	Submitted EventKind = iota + 1
	// LocalDone: Request, one of the engine's own, returned from its disk with Err.
	LocalDone
	// ActivityDone: the activity-log transaction of Volume is durable, or Err.
	ActivityDone
	// PagesDone: the bitmap pages of Volume that were to be written are durable, or
	// Err.
	PagesDone
	// SuperDone: the superblock of Volume at Version is durable, or Err.
	SuperDone
	// SizeFitted: the metadata of Volume are laid out as FitSize or RemakeMeta
	// asked, or Err.
	SizeFitted
	// LinkUp: session Session began.
	LinkUp
	// Received: Message arrived on Session.
	Received
	// LinkDown: Session ended because of Err; no buffer sent on it is touched any more.
	// The peer has been out of reach for Ago.
	LinkDown
	// LedgerRecord: the ledger's record of this resource is Record (committed). With
	// Current nothing is missing in it that was committed when this engine began.
	LedgerRecord
	// LedgerDone: the last change of the in-sync set that was asked for ended; Err
	// is nil when it is committed. Record is what the ledger holds now.
	LedgerDone
	// LeaseRenewed: the lease of Tenure runs until Until (0: lost or handed back).
	LeaseRenewed
	// Promote: the ledger made this node Primary under Tenure. Force accepts an
	// Inconsistent or Outdated copy as the data. Answered by Reply.
	Promote
	// Demote: become Secondary in order; the front end has stopped. Answered by Reply.
	Demote
	// Abort: authority is lost; fail what is held, become Secondary. Answered by Reply.
	Abort
	// Invalidate: treat the local copy as worthless, with Only that of Volume
	// alone, and resync all of it, after the ledger has taken it out of the in-sync
	// set. Answered by Reply.
	Invalidate
	// DiscardData: what only this copy has may be overwritten, where the next
	// handshake finds a split brain. Answered by Reply.
	DiscardData
	// Undo: the caller is about to put back on the disks what this node once gave
	// up. Answered by Reply when that may begin; the command goes on until UndoDone.
	Undo
	// UndoDone: it was put back, and flushed, or Err. Copies are what the superblocks
	// said then, Marks which blocks were put back, by volume. Answered by Reply.
	UndoDone
	// Pause and Resume the resync.
	Pause
	Resume
	// Detach: save everything and let go of the disks. Answered by Reply.
	Detach
	// Attach: Disks, by volume, take the place of those that have failed; nil for
	// a volume whose disk has not. Answered by Reply.
	Attach
	// Configure: Settings count from now on.
	Configure
	// DiskStalled: the disk of Volume has not answered for as long as Err says.
	// It is told again and again while that lasts.
	DiskStalled
	// Tick: time passed. Queued is how many bytes of what was sent wait for the peer.
	Tick
	// Digested: Payload is the digests of what Request has read.
	Digested
	// Verify: compare the copies as the order Verify says. Answered by Reply when
	// it has begun; View tells how far it is.
	Verify
	// VerifyStop: end the verify, keep its position. Answered by Reply when
	// nothing of it is in flight.
	VerifyStop
	// Resize: give a volume another size on both nodes, as Resize says. Answered by
	// Reply when both copies are, or when it has ended otherwise.
	Resize
	// Measured: the disks of Volume allow from Floor to Room bytes, and when it is
	// made smaller Ceiling at most, which is less than it has where the metadata move
	// into what is cut off; or Err.
	Measured
)

// Event is one thing that happened. Which fields count depends on Kind.
type Event struct {
	Kind    EventKind
	Volume  int // index into Config.Volumes
	Version uint64
	Request *block.Request
	Err     error
	Session uint64
	Message *wire.Message
	Record  wire.Record
	Current bool // LedgerRecord
	Tenure  uint64
	Until   time.Duration
	Force   bool
	Only    bool
	Path    string
	Ago     time.Duration
	Disks   []*VolumeConfig
	Payload []byte
	Copies  []Super
	Marks   []*dirty.Bitmap
	Verify  VerifyOrder
	Resize  ResizeOrder
	Floor   int64
	Room    int64
	Ceiling int64
	Queued  int64

	Settings Settings
}
