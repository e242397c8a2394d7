package engine

import (
	"errors"
	"fmt"

	"hapair/mirror/block"
	"hapair/mirror/wire"
)

// Errors of the engine. Match them with errors.Is.
var (
	// ErrSplitBrain: both copies were written without the other.
	ErrSplitBrain = errors.New("split brain: both copies were written without the other")
	// ErrUnrelated: the copies have no common ancestor.
	ErrUnrelated = errors.New("unrelated data: the copies have no common ancestor")
	// ErrBadGeometry: the two nodes' volumes differ.
	ErrBadGeometry = errors.New("the two nodes' volumes differ")
	// ErrStaleToken: a higher token has been seen.
	ErrStaleToken = errors.New("a higher token has been seen")
	// ErrBadState: a message or a command does not fit the present state.
	ErrBadState = errors.New("does not fit the present state")
	// ErrNotTaken: an attach was refused; its disks are the caller's.
	ErrNotTaken = errors.New("the disks were not taken")
	// ErrWouldCut: a volume would lose its end.
	ErrWouldCut = errors.New("the end of the volume would be cut off")
	// ErrNoRoom: a disk, or its metadata, has no room for a size.
	ErrNoRoom = errors.New("no room for that size")
	// ErrPeerAway: what is asked for needs the peer.
	ErrPeerAway = errors.New("the peer is away")
	// ErrPeerRelease: the peer runs a release that cannot do it.
	ErrPeerRelease = errors.New("the peer's release does not know it")
	// ErrRefusedThere: the peer refuses, and has said why.
	ErrRefusedThere = errors.New("nothing was changed there")
	// ErrNotUpToDate: the local copy may not be promoted.
	ErrNotUpToDate = errors.New("the local copy is not current")

	errHandshakeSlow = fmt.Errorf("the peer did not finish the handshake within %v", handshakeMax)
	errDiskFailed    = fmt.Errorf("the local disk has failed: %w", block.ErrIO)
	errForward       = errors.New("the local copy is given up: requests go on through the peer")
	errAttached      = errors.New("a disk was attached: the copy is to be filled")
	errInvalidated   = errors.New("the local copy was invalidated")
	errStopping      = errors.New("the agent stops")
	errFitting       = errors.New("the copy of this node, which is new, takes the size of the peer's")
	errGrowing       = errors.New("the copy of this node takes the size of the peer's, which is larger")
	errSizes         = errors.New("the copies have two sizes after a resize that did not come to its end")
	errRecordChanged = errors.New("the ledger's record changed during the handshake")
)

// RefusedError is a refusal by one side of a handshake or of a frame.
type RefusedError struct {
	Status wire.Status
	Token  uint64 // the higher token, with wire.StaleToken
	ByPeer bool
	Text   string
}

func (r *RefusedError) Error() string {
	who := "refused the peer"
	if r.ByPeer {
		who = "refused by the peer"
	}
	if r.Status == wire.SplitBrain {
		who = "split brain, " + who
	}
	return who + ": " + r.Text
}

// Unwrap makes errors.Is work with the sentinel of the status.
func (r *RefusedError) Unwrap() error {
	switch r.Status {
	case wire.SplitBrain:
		return ErrSplitBrain
	case wire.Unrelated:
		return ErrUnrelated
	case wire.BadGeometry:
		return ErrBadGeometry
	case wire.StaleToken:
		return ErrStaleToken
	case wire.IOError, wire.NoSpace:
		return block.ErrIO
	default: // wire.BadState, and what has no sentinel of its own
		return ErrBadState
	}
}

// lasting reports whether trying again cannot help until somebody acts. Who
// has no disk any more stands alone; its peer waits for it to come back.
func (r *RefusedError) lasting() bool {
	return r.Status == wire.IOError && !r.ByPeer || r.Status == wire.SplitBrain || r.Status == wire.Unrelated || r.Status == wire.BadGeometry
}
