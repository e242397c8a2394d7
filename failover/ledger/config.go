package ledger

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"

	"hapair/failover/lease"
	"hapair/failover/ledger/record"
)

// Voter is one member of the group.
type Voter struct {
	Node    string
	Witness bool // votes, keeps the ledger, has no data, never leads
}

// Arbitration says how a survivor comes to decide alone.
type Arbitration uint8

// The ways to arbitrate.
const (
	// ArbitrationWitness: three voters; two are a majority.
	ArbitrationWitness Arbitration = iota + 1
	// ArbitrationManual: two voters; the Primary may go on alone, the other
	// node only when an operator forces it.
	ArbitrationManual
	// ArbitrationFencing: two voters; either goes on alone once a fence of the
	// other is confirmed, or when an operator forces it.
	ArbitrationFencing
)

// String returns the word used in the configuration.
func (a Arbitration) String() string {
	switch a {
	case ArbitrationWitness:
		return "witness"
	case ArbitrationManual:
		return "manual"
	case ArbitrationFencing:
		return "fencing"
	}
	return fmt.Sprintf("arbitration(%d)", uint8(a))
}

// Streams carries connections between the nodes. Both ends are authenticated
// before the ledger sees a byte. Connections must support deadlines.
type Streams interface {
	// Dial opens a stream to a node. It gives up when ctx does.
	Dial(ctx context.Context, node, purpose string) (net.Conn, error)
	// Handle has fn called, each time in a goroutine of its own, for streams
	// whose purpose begins with prefix; node is who dialed. A later Handle of
	// the same prefix takes the place of the earlier.
	Handle(prefix string, fn func(node string, c net.Conn))
}

// Purposes of the streams the ledger dials.
const (
	PurposeRaft  = "raft"
	PurposeCall  = "ledger/call"
	PurposeLease = "ledger/lease"
)

// Timing of the ledger. Zero values take the defaults.
type Timing struct {
	Lease     time.Duration // 500 ms: how long a lease is good for
	Renew     time.Duration // 100 ms: how often it is renewed
	Margin    time.Duration // Lease/10: what a voter adds; clock rates may differ by Margin/Lease between two nodes
	Heartbeat time.Duration // 200 ms: raft's heartbeat and leader lease
	Election  time.Duration // Heartbeat: raft's election time-out
	DiskStall time.Duration // 1 s: a leader whose log write takes longer lets another lead
	Rescue    time.Duration // 5 Election: a witness that has known no leader for so long may lead for a moment
}

func (t Timing) withDefaults() Timing {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.Lease, 500*time.Millisecond)
	def(&t.Renew, min(100*time.Millisecond, t.Lease/5))
	def(&t.Margin, t.Lease/10)
	def(&t.Heartbeat, 200*time.Millisecond)
	def(&t.Election, t.Heartbeat)
	def(&t.DiskStall, time.Second)
	def(&t.Rescue, 5*t.Election)
	return t
}

// silence is how long a lease stream may be quiet before it counts as dead.
func (t Timing) silence() time.Duration { return 2 * t.Renew }

const (
	minLease = 50 * time.Millisecond
	maxLease = time.Minute
	maxFence = 2 * time.Hour
)

func (t Timing) check() error {
	switch {
	case t.Lease < minLease || t.Lease > maxLease:
		return fmt.Errorf("lease %v, wanted %v to %v", t.Lease, minLease, maxLease)
	case t.Renew <= 0 || t.Renew > t.Lease/3:
		return fmt.Errorf("renew %v, wanted at most a third of the lease, %v", t.Renew, t.Lease/3)
	case t.Margin < t.Lease/50 || t.Margin > t.Lease:
		return fmt.Errorf("margin %v, wanted %v (2%% of the lease) to %v", t.Margin, t.Lease/50, t.Lease)
	case t.Heartbeat < 20*time.Millisecond || t.Heartbeat > 10*time.Second:
		return fmt.Errorf("heartbeat %v, wanted 20ms to 10s", t.Heartbeat)
	case t.Election < t.Heartbeat || t.Election > 10*time.Second:
		return fmt.Errorf("election %v, wanted heartbeat (%v) to 10s", t.Election, t.Heartbeat)
	case t.Rescue < 2*t.Election:
		return fmt.Errorf("rescue %v, wanted at least twice the election, %v", t.Rescue, t.Election)
	case t.DiskStall < t.Heartbeat:
		return fmt.Errorf("disk stall %v, wanted at least the heartbeat, %v", t.DiskStall, t.Heartbeat)
	}
	return nil
}

// Config of a ledger. Every voter is given the same Voters and Arbitration.
type Config struct {
	Self        string
	Voters      []Voter
	Arbitration Arbitration
	Dir         string
	Clock       lease.Clock
	Logger      *zap.Logger
	Streams     Streams
	Timing      Timing
	// FenceTakes is the longest that a fence may take: 1 min. One that an earlier
	// life of this node asked for is undecided for so long.
	FenceTakes time.Duration
	// Life is this node's, where it pets a watchdog by what it reads on a disk that
	// the others may fence it by; "" where it does not. The others are told.
	Life string
	// Events is told what an operator wants to know; it may block only itself.
	Events func(Event)
	// Stamp and Heard, if set, carry the hybrid logical time of the nodes: what
	// Stamp returned went with a message, and Heard was told it where that arrived;
	// renewals go several times a second, both ways. Neither may block. A voter of a
	// release without them says 0, which is not told.
	Stamp func() uint64
	Heard func(stamp uint64)

	store storeOptions // tests
}

// ErrConfig is wrapped by every complaint about a Config.
var ErrConfig = errors.New("ledger configuration")

func (c *Config) check() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, a...))
	}
	if c.Clock == nil || c.Streams == nil || c.Dir == "" {
		return bad("clock, streams and directory are all needed")
	}
	seen, witnesses := map[string]bool{}, 0
	for _, v := range c.Voters {
		if v.Node == "" || len(v.Node) > record.MaxName || seen[v.Node] {
			return bad("voter %q: wanted distinct names of 1 to %d bytes", v.Node, record.MaxName)
		}
		seen[v.Node] = true
		if v.Witness {
			witnesses++
		}
	}
	if !seen[c.Self] {
		return bad("this node, %q, is not among the voters %v", c.Self, c.Voters)
	}
	switch c.Arbitration {
	case ArbitrationManual, ArbitrationFencing:
		if len(c.Voters) != 2 || witnesses != 0 {
			return bad("arbitration %v: found %d voters, %d of them witnesses; wanted two data nodes", c.Arbitration, len(c.Voters), witnesses)
		}
	case ArbitrationWitness:
		if len(c.Voters) != 3 || witnesses > 1 {
			return bad("arbitration witness: found %d voters, %d of them witnesses; wanted three voters, at most one a witness", len(c.Voters), witnesses)
		}
	default:
		return bad("%v is none of witness, manual, fencing", c.Arbitration)
	}
	if len(c.Life) > maxLife {
		return bad("the word for this life has %d bytes; at most %d", len(c.Life), maxLife)
	}
	if c.FenceTakes < 0 || c.FenceTakes > maxFence {
		return bad("a fence takes %v, wanted up to %v", c.FenceTakes, maxFence)
	}
	if err := c.Timing.check(); err != nil {
		return fmt.Errorf("%w: timing: %w", ErrConfig, err)
	}
	return nil
}

// others are the configured voters but this node.
func (c *Config) others() []string {
	var out []string
	for _, v := range c.Voters {
		if v.Node != c.Self {
			out = append(out, v.Node)
		}
	}
	return out
}
