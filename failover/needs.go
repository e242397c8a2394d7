package failover

import (
	"context"
	"errors"
	"time"

	"hapair/failover/lease"
	"hapair/failover/plan"
	"hapair/mirror/state"
)

// Needs is everything a Controller needs of the other rooms. All
// implementations must be safe for concurrent use, and whenever something
// they report changes, the agent calls Controller.Wake.
type Needs struct {
	Ledger    Ledger
	Leases    Leases
	Group     Group
	Marks     Marks
	Mirror    Mirror
	Heartbeat Heartbeat
	Peers     Peers
	Services  Services // nil when the resource has none
	Fencer    Fencer   // nil unless arbitration is by fencing
}

// ErrOvertaken is wrapped by what a Ledger returns when the record has changed
// since it was read. That is no trouble: the plan looks again.
var ErrOvertaken = errors.New("overtaken by another change of the record")

// Ledger is the record of who is Primary and which copies are current. Every
// change compares expect with the record's token, is ErrOvertaken when they
// differ, and is durable at a majority when it returns. Tokens grow, but where a
// node's ledger is given up for the peer's: see Controller.Discarded.
type Ledger interface {
	// Record returns the record as this node knows it. ok is false until the
	// ledger has been read since the agent began, and the record what this
	// node's own log says; a resource that was never declared is the zero Record
	// and true. It does not block.
	Record(resource string) (r plan.Record, ok bool)
	// Promote makes node Primary; it must be in sync. The tenure in the
	// answer is the grant. No earlier Primary's lease may be valid.
	Promote(ctx context.Context, resource, node string, expect lease.Token) (plan.Record, error)
	// Demote makes nobody Primary; node must be it.
	Demote(ctx context.Context, resource, node string, expect lease.Token) (plan.Record, error)
	// Declare makes nodes the first in-sync set.
	Declare(ctx context.Context, resource string, nodes []string, expect lease.Token) (plan.Record, error)
	// Force makes node the whole in-sync set and nobody Primary, and keeps reason.
	Force(ctx context.Context, resource, node, reason string, expect lease.Token) (plan.Record, error)
}

// Leases is the permission to serve. A lease is only ever granted by a
// majority none of whose members still owes a promise to another node: that
// is what makes a promotion safe even when the record changed early.
type Leases interface {
	// Hold begins to ask for the lease of a resource and keeps renewing it.
	// It does not block.
	Hold(resource string, tenure lease.Token)
	// Release stops asking and hands the lease back.
	Release(ctx context.Context, resource string) error
	// Lease returns this node's own lease, the zero Lease without one.
	Lease(resource string) lease.Lease
	// Lapsed asks a majority whether the lease of the record's Primary has
	// certainly run out.
	Lapsed(ctx context.Context, resource string) (bool, error)
	// PromiseLapsed reports whether this node's own promise to the record's
	// Primary has run out. It does not block.
	PromiseLapsed(resource string) bool
}

// Group is the set of voters behind the ledger.
type Group interface {
	// Quorum reports whether the ledger can be changed, as far as known now.
	Quorum() bool
	// Answers reports whether a majority of the voters answers.
	Answers() bool
	// Alone reports whether this node is the only voter of its incarnation.
	Alone() bool
	// Split reports whether another node is the only voter of a group of its
	// own, of the same right.
	Split() bool
	// GoAlone makes this node the only voter, under a higher incarnation. By the
	// rule of manual arbitration it refuses when, with its whole log applied,
	// another node is Primary of any resource; by that of fencing, unless a fence
	// of the other node is confirmed, and then nobody is Primary of what that was.
	GoAlone(ctx context.Context, reason string) error
	// ForceAlone does it by order of an operator.
	ForceAlone(ctx context.Context, reason string) error
}

// Marks are the operator's notes in the ledger, the same on every node. See
// MarkMaintenance, MarkStandby and MarkDown for the names.
type Marks interface {
	Marked(name string) bool
	Mark(ctx context.Context, name, reason string) error
	Unmark(ctx context.Context, name string) error
}

// The names of the marks.
const MarkMaintenance = "maintenance"

// MarkStandby names the mark of a node on which nothing is to run.
func MarkStandby(node string) string { return "standby/" + node }

// MarkLeft names the mark of a node that was stopped in order while its peer's
// copy was in doubt: the peer is not to go on with that by itself.
func MarkLeft(resource, node string) string { return "left/" + resource + "/" + node }

// MarkStay names the mark of a resource that an operator moved away from the
// preferred node: it does not go back by itself.
func MarkStay(resource string) string { return "stay/" + resource }

// MarkDown names the mark of a resource the operator demoted.
func MarkDown(resource string) string { return "down/" + resource }

// Mirror is the replicated resource.
type Mirror interface {
	// Promote opens the devices for writing under tenure and returns their
	// paths in the order of the volumes. force accepts a disk that is not
	// known to be current. It returns at once when already promoted so.
	Promote(ctx context.Context, resource string, tenure lease.Token, force bool) (devices []string, err error)
	// Demote flushes both copies and closes the devices. An error that is a
	// Busy names who holds them open; nothing was changed then.
	Demote(ctx context.Context, resource string) error
	// Abort demotes without waiting for anybody: requests fail, devices go
	// away. It does not need the peer.
	Abort(ctx context.Context, resource string) error
	// Disconnect ends the session with the peer. It connects again by itself.
	Disconnect(ctx context.Context, resource string) error
	// View does not block.
	View(resource string) MirrorView
}

// Busy is an error that names who holds a device open ("vim (pid 812)").
type Busy interface {
	error
	Holders() []string
}

// MirrorView is what a mirror says of itself and of its peer. The Since of
// its State is ignored: the controller keeps it.
type MirrorView struct {
	Role        state.Role
	Disk        state.Disk
	Suspect     bool        // came back from a crash and not yet brought in line
	AssumeClean bool        // new metadata, declared identical by the operator
	Tenure      lease.Token // of the promotion, 0 as Secondary
	State       plan.Mirror

	PeerTold        bool // the peer told the following in the present session
	PeerRole        state.Role
	PeerDisk        state.Disk
	PeerSuspect     bool
	PeerAssumeClean bool
}

// Services is what runs on top of the resource, as one.
type Services interface {
	// Start starts what is not running, in order. After an error some may run.
	Start(ctx context.Context, devices []string) error
	// Restart stops what failed and all that was started after it, and starts it
	// again. It wraps ErrNotStopped when something could not be stopped.
	Restart(ctx context.Context, devices []string) error
	// Stop stops in reverse order. Stopping what is stopped succeeds.
	Stop(ctx context.Context) error
	// StopForced does whatever it takes, addresses first. It must not wait
	// for the device.
	StopForced(ctx context.Context) error
	// State returns the state found last and, when Broken, the first that failed,
	// and all that did and why. It does not block.
	State() (s plan.ServiceState, name, failed string)
}

// ErrNotStopped is wrapped by what Services.Restart returns when nothing failed but
// a stop: somebody uses what was to be stopped.
var ErrNotStopped = errors.New("not restarted")

// ofService is an error that names the service that failed.
type ofService interface {
	error
	ServiceName() string
}

// serviceOf is the service an error names, "" for none.
func serviceOf(err error) string {
	var s ofService
	if errors.As(err, &s) {
		return s.ServiceName()
	}
	return ""
}

// Heartbeat is the evidence about the peer.
type Heartbeat interface {
	// Peer returns the verdict, the reasons, and since when on the lease.Clock.
	Peer(node string) (v plan.Verdict, reasons []string, since time.Duration)
}

// Fencer has the peer fenced, by arbitration fencing. It is one for all controllers
// of a node; see Fences.
type Fencer interface {
	// Fence has the peer fenced and returns when that has been noted, durably; it
	// does not wait for the devices. It errs when no fence may be asked for.
	Fence(because string) error
	// View returns what became of it. It does not block.
	View() plan.Fence
}

// Ballot is what Fences need of the ledger: what may be asked for, and what counts.
type Ballot interface {
	// Fence does not block.
	Fence() BallotFence
	// AskFence notes, durably, that the peer is about to be fenced.
	AskFence() (ticket uint64, err error)
	// FenceDecided takes the outcome; began is the instant from which on the peer
	// was off. The answer says whether it counts.
	FenceDecided(ticket uint64, confirmed bool, began time.Time) (counts bool, err error)
	// RecordFence keeps an outcome; it needs a quorum.
	RecordFence(ctx context.Context, node, outcome, reason string) error
}

// BallotFence is the ledger's word about the fence of the peer.
type BallotFence struct {
	State     plan.FenceState
	May       error    // why no fence may be asked for now; nil: it may
	Primaries []string // of the resources
}

// FenceDevices turn a node off.
type FenceDevices interface {
	// Fence returns when the outcome is known, and nothing of it strikes any more. When
	// ctx ends before, it is broken off, unless others wait for it.
	Fence(ctx context.Context, node, why string) FenceReport
	// Ready says whether they could be used, as far as known now. It does not block.
	Ready(node string) error
}

// FenceReport is what devices say of one fence. The zero report promises nothing.
type FenceReport struct {
	Confirmed bool // the node was off at an instant after Began
	Refused   bool // else: the device said no; neither: nobody knows
	Device    string
	Reason    string
	Began     time.Time
	Took      time.Duration
}

func (r FenceReport) outcome() string {
	switch {
	case r.Confirmed:
		return "confirmed"
	case r.Refused:
		return "refused"
	}
	return "unknown"
}

// String is the report in words.
func (r FenceReport) String() string {
	text := r.outcome()
	if r.Device != "" {
		text = r.Device + ": " + text
	}
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	return text
}

// Peers carries hints to the controllers of other nodes, best effort.
type Peers interface {
	Hint(ctx context.Context, node string, h Hint) error
}

// HintKind says what a hint is about.
type HintKind uint8

// The hints.
const (
	Take   HintKind = iota + 1 // the sender gave the resource up: the receiver is to take it now
	Give                       // the receiver is asked to switch over to the sender
	Deny                       // the sender does not follow a Give, and says why
	Forget                     // an operator has mended what failed
)

// Hint is what one controller tells its peer. It never carries authority:
// only the ledger does. FailedAgo is a duration because no instant leaves a node.
type Hint struct {
	Kind         HintKind      `json:"kind"`
	Resource     string        `json:"resource"`
	From         string        `json:"from"`
	Token        lease.Token   `json:"token"`
	Reason       string        `json:"reason,omitempty"`
	Failures     int           `json:"failures,omitempty"`     // failed attempts on the sender
	FailedAgo    time.Duration `json:"failedAgo,omitempty"`    // since the last of them
	FailureLimit int           `json:"failureLimit,omitempty"` // how many it takes; 0: not told
	FailedFor    time.Duration `json:"failedFor,omitempty"`    // how long they count from now
	Service      string        `json:"service,omitempty"`      // of Forget; "": all
	Operator     bool          `json:"operator,omitempty"`     // of Take: an operator wants it there; earlier failures are mended
	Force        bool          `json:"force,omitempty"`        // of Give: whoever uses the resource is not waited for
	Code         plan.Code     `json:"code,omitempty"`         // of Deny, with Reason and Help
	Help         string        `json:"help,omitempty"`
}

// Timer is the part of a time.Timer that is used; a seam for tests.
type Timer interface {
	C() <-chan time.Time
	Stop() bool
}

type realTimer struct{ *time.Timer }

func (t realTimer) C() <-chan time.Time { return t.Timer.C }

func newRealTimer(d time.Duration) Timer { return realTimer{time.NewTimer(d)} }
