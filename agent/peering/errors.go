package peering

import (
	"errors"
	"fmt"
)

// Why there is no stream. Match them with errors.Is.
var (
	ErrAuthentication = errors.New("peer could not be authenticated")
	ErrProtocol       = errors.New("peer does not speak the peering protocol")
	ErrUnknownNode    = errors.New("node is not in the configuration")
	ErrUnknownPath    = errors.New("node has no address on that path")
	ErrPathDown       = errors.New("path is down")
	ErrClosed         = errors.New("peering is closed")
	ErrLeftBehind     = errors.New("this node belongs to a lower incarnation of the cluster")
	ErrPeerBehind     = errors.New("peer belongs to a lower incarnation of the cluster")
)

// Code says why an authenticated peer was refused. ONLY APPEND: it travels.
type Code uint8

// The codes.
const (
	Accepted         Code = iota
	WrongCluster          // another cluster
	UnknownNode           // a node that is not configured here
	WrongNode             // reached another node than the one wanted, or the certificate is another's
	LowerIncarnation      // the dialing node is of a lower incarnation than the accepting one
	PeerIncarnation       // the accepting node is of a lower incarnation than the dialing one
	NoVersion             // no version of the protocol in common
	UnknownPurpose        // nobody here handles the purpose
	Busy                  // MaxConns reached
	Closing               // the node stops
	Replaced              // another machine is taken for that node
)

var codeNames = [...]string{
	"accepted", "wrong cluster", "unknown node", "wrong node", "lower incarnation of the dialing node",
	"lower incarnation of the accepting node", "no common version", "unknown purpose", "too many streams", "node stops",
	"another machine",
}

// String returns the reason in words.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code(%d)", uint8(c))
}

// RefusedError is a refusal after authentication, the same on both sides.
// errors.Is finds ErrLeftBehind or ErrPeerBehind in it where that is the
// matter, seen from this node.
type RefusedError struct {
	Code            Code
	Text            string // what was found and what would be right
	Node            string // the peer, as it called itself
	Path, Purpose   string
	PeerIncarnation uint64
	Dialed          bool // this node dialed
}

// Error names peer, purpose, reason and what was found.
func (e *RefusedError) Error() string {
	side := "refused"
	if e.Dialed {
		side = "was refused by"
	}
	return fmt.Sprintf("stream %q %s node %q on path %q: %s: %s", e.Purpose, side, e.Node, e.Path, e.Code, e.Text)
}

// Is matches ErrLeftBehind and ErrPeerBehind.
func (e *RefusedError) Is(target error) bool {
	lower := e.Code == LowerIncarnation
	switch target {
	case ErrLeftBehind:
		return lower && e.Dialed || e.Code == PeerIncarnation && !e.Dialed
	case ErrPeerBehind:
		return lower && !e.Dialed || e.Code == PeerIncarnation && e.Dialed
	}
	return false
}
