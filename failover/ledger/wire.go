package ledger

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"hapair/failover/lease"
	"hapair/failover/ledger/promise"
	"hapair/failover/ledger/record"
)

// MaxMessage bounds one message on a ledger stream, in bytes.
const MaxMessage = 512 << 10

const (
	helloMagic   = "hapair-ledger"
	helloVersion = 1
	maxMembers   = 16 // of a group, in a greeting
)

// ErrWire says that a peer sent what is no message of this protocol.
var ErrWire = errors.New("malformed ledger message")

// hello opens every stream, both ways, before anything else is said.
type hello struct {
	Magic       string           `json:"magic"`
	Version     int              `json:"version"`
	Node        string           `json:"node"`
	Incarnation uint64           `json:"incarnation"`
	Lineage     []record.Founder `json:"lineage"`
	Voters      []string         `json:"voters"`
	Learners    []string         `json:"learners,omitempty"` // members without a vote
	Joining     bool             `json:"joining,omitempty"`
	// Surrendering: its ledger is about to be discarded for the other's, see surrender.go.
	Surrendering bool            `json:"surrendering,omitempty"`
	Forked       bool            `json:"forked,omitempty"` // its group is one of three that were left, see identity
	Left         bool            `json:"left,omitempty"`
	Arbitration  string          `json:"arbitration,omitempty"` // "": of a release that does not say
	LastTerm     uint64          `json:"lastTerm"`
	LastIndex    uint64          `json:"lastIndex"`
	Refused      string          `json:"refused,omitempty"`
	Blank        bool            `json:"blank,omitempty"` // nothing is remembered, see blank.go
	Term         uint64          `json:"term,omitempty"`  // the highest this node has reached; not told by release 0
	Machine      string          `json:"machine,omitempty"`
	Claims       bool            `json:"claims,omitempty"` // asks for its seat, see seat.go
	Seats        map[string]seat `json:"seats,omitempty"`  // of other voters
	Life         string          `json:"life,omitempty"`   // "" also of a release that does not say
}

func (h *hello) check() error {
	switch {
	case h.Magic != helloMagic:
		return fmt.Errorf("%w: greeting %.32q, wanted %q", ErrWire, h.Magic, helloMagic)
	case h.Version != helloVersion:
		return fmt.Errorf("%w: protocol version %d, this node speaks %d", ErrWire, h.Version, helloVersion)
	case h.Node == "" || len(h.Node) > record.MaxName:
		return fmt.Errorf("%w: node name of %d bytes", ErrWire, len(h.Node))
	case len(h.Machine) > maxMachine || len(h.Life) > maxLife || len(h.Seats) > maxSeats:
		return fmt.Errorf("%w: identity of %d bytes, %d seats", ErrWire, len(h.Machine), len(h.Seats))
	case len(h.Voters) > maxMembers || len(h.Learners) > maxMembers:
		return fmt.Errorf("%w: %d voters, %d members without a vote", ErrWire, len(h.Voters), len(h.Learners))
	}
	for _, node := range slices.Concat(h.Voters, h.Learners) {
		if node == "" || len(node) > record.MaxName {
			return fmt.Errorf("%w: member's name of %d bytes", ErrWire, len(node))
		}
	}
	for node, s := range h.Seats {
		if len(node) > record.MaxName || len(s.Machine) > maxMachine || len(s.Former) > keepFormer {
			return fmt.Errorf("%w: seat of a name of %d bytes, machine of %d, %d before it", ErrWire, len(node), len(s.Machine), len(s.Former))
		}
	}
	return nil
}

// leaseItem is one renewal, or hand-back, of a batch.
type leaseItem struct {
	Resource string        `json:"r"`
	Tenure   lease.Token   `json:"t"`
	Seq      uint64        `json:"s"`
	Duration time.Duration `json:"d,omitempty"`
	Release  bool          `json:"x,omitempty"`
}

type leaseAsk struct {
	Session     string      `json:"session"`
	Incarnation uint64      `json:"inc"`
	Items       []leaseItem `json:"items,omitempty"`
	Stamp       uint64      `json:"hlc,omitempty"` // see Config.Stamp; so in all messages that have one
}

type leaseResult struct {
	Refused promise.Refusal `json:"no,omitempty"`
	Wait    time.Duration   `json:"w,omitempty"` // until the promise in the way runs out
	Longest time.Duration   `json:"l,omitempty"` // that is promised, where more was asked for; not told by release 0
}

type leaseReply struct {
	Incarnation uint64        `json:"inc"`
	Refused     string        `json:"no,omitempty"` // the batch as a whole
	Results     []leaseResult `json:"results,omitempty"`
	Stamp       uint64        `json:"hlc,omitempty"`
}

type callKind string

const (
	callApply   callKind = "apply"   // Data is a command, for the leader
	callBarrier callKind = "barrier" // how far must I have applied to know all that is committed?
	callLapsed  callKind = "lapsed"  // has every promise but mine run out?
	callReady   callKind = "ready"   // would you promise, and how far have you applied?
	callJoin    callKind = "join"    // make me a voter
	callRemove  callKind = "remove"  // make me no voter
	callArrange callKind = "arrange" // which witness are you configured with? Data is the asking node's, see arrange.go
)

type call struct {
	Kind        callKind      `json:"kind"`
	Incarnation uint64        `json:"inc"`
	Data        []byte        `json:"data,omitempty"`
	Resource    string        `json:"resource,omitempty"`
	Minimum     lease.Token   `json:"minimum,omitempty"`
	Budget      time.Duration `json:"budget"`
	Stamp       uint64        `json:"hlc,omitempty"`
}

type callStatus string

const (
	statusOK        callStatus = "ok"
	statusNotLeader callStatus = "not leader" // nothing was done
	statusUnknown   callStatus = "unknown"    // may have been done
	statusRefused   callStatus = "refused"    // nothing was done
)

type callReply struct {
	Status callStatus    `json:"status"`
	Detail string        `json:"detail,omitempty"`
	Answer record.Answer `json:"answer"`
	Index  uint64        `json:"index,omitempty"`
	Ready  bool          `json:"ready,omitempty"`
	Lapsed bool          `json:"lapsed,omitempty"`
	Known  bool          `json:"known,omitempty"`
	// Arranged answers callArrange; a voter of a release before does not.
	Arranged *arranged `json:"arranged,omitempty"`
	Stamp    uint64    `json:"hlc,omitempty"`
}

// stamp is what this node's messages carry; 0 when nobody wants to know.
func (l *Ledger) stamp() uint64 {
	if l.cfg.Stamp == nil {
		return 0
	}
	return l.cfg.Stamp()
}

// heard takes what a message carried.
func (l *Ledger) heard(stamp uint64) {
	if stamp != 0 && l.cfg.Heard != nil {
		l.cfg.Heard(stamp)
	}
}

func writeMessage(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode ledger message: %w", err)
	}
	if len(b) > MaxMessage {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrWire, len(b), MaxMessage)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...))
	return err
}

func readMessage(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxMessage {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrWire, n, MaxMessage)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrWire, err)
	}
	return nil
}

// exchange sends a question and waits for the answer, both within limit.
func exchange(c net.Conn, limit time.Duration, ask, reply any) error {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if err := writeMessage(c, ask); err != nil {
		return err
	}
	return readMessage(c, reply)
}
