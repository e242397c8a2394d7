// Package wire is the mirror's protocol: what two nodes say to each other
// about one resource, and the bytes it takes. It is pure: no I/O, no clock.
//
// A frame is a fixed header of HeaderBytes, little-endian, with a crc32c over
// itself and one over the payload, then the payload.
package wire

import "hapair/mirror/block"

// Kind says what a message is. ONLY APPEND: the values are the protocol.
type Kind uint8

// The kinds.
const (
	Invalid     Kind = iota
	Hello            // payload: Hello; first message of a session, both ways
	Bitmap           // payload: one page of the sender's dirty bitmap; Volume, Offset = page number
	BitmapDone       // the sender's bitmaps are complete
	Write            // payload: Length bytes for Offset
	WriteZeroes      // Offset, Length
	Discard          // Offset, Length
	Flush            // make everything acknowledged on this session durable
	Ack              // ID, Status: answers Write, WriteZeroes, Discard, Flush, SyncDone; a Read that failed; see engine for those that answer nothing
	SyncStart        // the sender is source: the receiver turns Inconsistent, durably, then acks
	SyncDone         // every dirty block has been sent and flushed: the receiver adopts the generation, durably, then acks
	InSync           // payload: Record; the ledger has recorded the receiver as in sync
	State            // payload: Hello; role, disk states or ledger record of the sender changed
	Refuse           // payload: text; the sender closes the session. Status, Token say why
	Ping             // link liveness, control connection only
	Pong             // answers Ping, echoes ID
	Read             // Offset, Length: the receiver answers with Data, or with an Ack that says why not
	Data             // payload: Length bytes at Offset; answers Read, echoes ID
	Verify           // Offset, Length: what has the receiver there? Only to a peer with FeatureVerify
	Verified         // ID, Status; payload: the digest of each block of the range that Verify names, in order
)

// Of Verify and Verified.
const (
	// VerifyBlockBytes is what one digest is of; the last block of a volume may
	// be shorter.
	VerifyBlockBytes = 4096
	// DigestBytes is the length of one digest, SHA-256.
	DigestBytes = 32
	// MaxVerifyBytes bounds the Length of a Verify.
	MaxVerifyBytes = block.MaxTransferBytes
)

// lastKind is the highest that this release knows.
const lastKind = Verified

// Flags modify a message. ONLY APPEND.
type Flags uint8

const (
	FUA     Flags = 1 << iota // as block.FUA
	Resync                    // sent by the resync, not by an application
	NoUnmap                   // as block.NoUnmap
	Memory                    // on what changes a range: acknowledge it from memory too; on an Ack: that is it. Only with FeatureProtocols
	Ordered                   // on a Flush, or on what changes a range: after all that came before it, before all that comes after. Only with FeatureProtocols
)

// Status is the outcome in an Ack or a Refuse. ONLY APPEND.
type Status uint16

// The outcomes.
const (
	OK          Status = iota
	IOError            // the receiver's disk failed
	NoSpace            // the receiver's disk is full
	StaleToken         // the receiver has seen a higher token; Token says which
	SplitBrain         // data diverged
	Unrelated          // data without a common ancestor
	BadGeometry        // sizes or volumes differ
	BadState           // the message does not fit the receiver's state
	BadMessage         // the message could not be understood
	Shutdown           // the sender stops, in order
	Congested          // the receiver does not take writes as fast as they are answered
)

// Message is one frame. Data is valid until Release; a receiver that keeps it
// longer takes Buffer over (sets it to nil) and puts it back itself.
type Message struct {
	Kind   Kind
	Flags  Flags
	Volume uint16
	Status Status
	ID     uint64 // of the request; echoed by the ack
	Token  uint64 // the sender's writer token (rule R12)
	Offset uint64
	Length uint64
	Data   []byte

	Buffer *block.Buffer // backing of Data on the receiving side
}
