package engine

import (
	"time"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// EffectKind says what is to be done.
type EffectKind uint8

// The effects.
const (
	// LocalIO: submit Request to the disk of Volume; LocalDone follows.
	LocalIO EffectKind = iota + 1
	// PeerSend: send Message on Session. Order among PeerSends is kept.
	PeerSend
	// Answer: run Request.Done(Err).
	Answer
	// WriteActivity: make Activity durable; ActivityDone follows.
	WriteActivity
	// WritePages: make bitmap pages from Page on durable, as many as there are in
	// Payload, dirty.PageBytes each. Of a write that is cut off each may be the old
	// one or this. PagesDone follows.
	WritePages
	// WriteSuper: make Super durable; SuperDone follows with Version.
	WriteSuper
	// FitSize: lay the metadata of Volume, whose copy holds nothing, out anew for
	// Size bytes of data, empty, and with Super; SizeFitted follows.
	FitSize
	// LedgerExclude: take Node out of the in-sync set if the record still has
	// Token; keep trying until that is decided. LedgerDone follows.
	LedgerExclude
	// LedgerInclude: put Node into the in-sync set, likewise. LedgerDone follows.
	LedgerInclude
	// LedgerGiveUp: take Node, which is this one and Primary, out of the in-sync
	// set, likewise. LedgerDone follows.
	LedgerGiveUp
	// LedgerLeave: take Node, which is this one and Secondary, out of the in-sync
	// set, likewise; but only for a while: when nothing could be decided,
	// LedgerDone follows with the reason, and the change may happen yet.
	LedgerLeave
	// DropLink: end Session because of Err and connect again.
	DropLink
	// StandAlone: end Session because of Err and do not connect again.
	StandAlone
	// RestLink: end Session because of Err and connect again after For.
	RestLink
	// AbandonDisk: fail whatever the disk of Volume has not answered, because of
	// Err, and everything it is asked from now on.
	AbandonDisk
	// Deposed: somebody else is Primary now (Err says how it is known); the
	// device must go.
	Deposed
	// Reply: the command ended with Err.
	Reply
	// Note: something an operator would want in the log; Text says it.
	Note
	// Problem: something an operator has to look at; Text says it.
	Problem
	// Digest: compute the digests of the blocks in Request.Data; Digested follows.
	// It takes as long as reading them, so not under the caller's lock.
	Digest
	// SplitVictim: the policies say that this node gives up what only it has; Text
	// says why. It is for the caller to do so: demote, then DiscardData.
	SplitVictim
	// Proven: the copies of Volume were found equal in Size bytes at Offset.
	Proven
	// MeasureDisk: look what the disks of Volume allow now; Measured follows.
	MeasureDisk
	// RemakeMeta: lay the metadata of Volume out anew for Size bytes of data, with
	// Super, Bitmap and Log; SizeFitted follows. What the data disk was asked before
	// is to be durable by then. An error that wraps ErrNoRoom says that nothing was
	// changed.
	RemakeMeta
)

// Super is what the superblock of a volume says of its copy.
type Super struct {
	Gen         genid.Set
	Disk        state.Disk
	Clean       bool // detached in order: the activity log says nothing
	LastPrimary bool // this node was the last Primary it knows of
	AssumeClean bool // declared equal to the peer's when created
	FullSync    bool // the copy is to be replaced as a whole
	Tenure      uint64
	Since       int64 // when the copy went on without its peer's, in seconds since 1970; 0: not known
	Elder       bool  // the node was Primary then, and before
}

// Effect is one thing to do. Which fields count depends on Kind.
type Effect struct {
	Kind     EffectKind
	Volume   int
	Page     int
	Version  uint64
	Request  *block.Request
	Err      error
	Session  uint64
	Message  wire.Message
	Activity actlog.Transaction
	Payload  []byte
	Super    *Super
	Size     int64 // FitSize, RemakeMeta: bytes of data; Proven: bytes
	Bitmap   *dirty.Bitmap
	Log      []actlog.Transaction
	Offset   int64 // Proven
	For      time.Duration
	Node     string
	Token    uint64
	Of       EventKind // Reply: which event is answered
	Text     string
	Topic    Topic // of a Note
}

// Topic is what a Note is about.
type Topic uint8

// The topics.
const (
	OnConnection Topic = iota
	OnDisk
	OnResync
	OnVerify
)
