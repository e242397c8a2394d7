// Package plan decides what one node does with one resource: which step comes
// next, or why it waits. It is pure: the same view always gives the same
// decision, the time is part of the view, and nothing here does I/O.
//
// The decision is level-triggered. Next returns the steps from here to the
// goal; whoever asks carries out the first one, looks at the world again and
// asks again. A step that became wrong is thereby never carried out, and an
// agent that restarts in the middle goes on from what it finds.
//
//  1. view.go      what is known
//  2. decision.go  what can come out
//  3. next.go      which situation this is
//  4. holder.go    this node is the Primary of the record
//     takeover.go  the peer is, or was; or this node was, in a former life
//     vacant.go    nobody is
//     wish.go      what the operator asked for
//  5. check.go     the conditions of a promotion, one sentence each
//     fence.go     the peer is gone, and a fence decides
//  6. explain.go   all of them at once, and what would be lost
package plan

import (
	"slices"
	"time"

	"hapair/failover/lease"
	"hapair/mirror/state"
)

// View is everything one node knows about one resource at one instant. All
// instants are on this node's lease.Clock.
type View struct {
	Resource string
	Now      time.Duration
	Started  time.Duration // when this agent began

	Self     Node
	Peer     Peer
	Mirror   Mirror
	Ledger   Ledger
	Lease    Lease
	Services Services
	Wish     Wish
	Hint     Hint
	Trouble  Trouble
	Failback Failback
	Fence    Fence

	Tenure      lease.Token // the tenure this process was granted; 0 after a restart
	Hinted      bool        // a hand-over was announced since the record last had a Primary
	Maintenance bool        // nothing happens by itself
	Tried       bool        // the services were started under the present tenure, or did not come up; not what was stopped here since
	Down        bool        // the operator demoted it: nobody becomes Primary by itself
	Owed        bool        // the operator demoted it here by force, and the ledger, without a quorum then, is to be told

	Settings Settings
}

// Node is this node's side of the resource.
type Node struct {
	Name        string
	Role        state.Role
	Disk        state.Disk
	Suspect     bool        // came back from a crash and is not yet brought in line (rule R8)
	Tenure      lease.Token // the tenure the mirror was promoted under, 0 as Secondary
	Standby     bool        // the operator wants nothing to run here
	AssumeClean bool        // new metadata, declared identical on both nodes by the operator
	Failed      Failures    // what is remembered of failures here
}

// Verdict is what the heartbeat says about the peer.
type Verdict uint8

// The verdicts. The zero value promises nothing.
const (
	Unheard Verdict = iota // never heard since this agent began
	Alive
	Suspected // some paths silent
	Dead      // every path silent
)

// String returns the word for the verdict.
func (v Verdict) String() string {
	return word(int(v), "unheard", "alive", "suspected", "dead")
}

// Peer is the other node's side, as far as it is known here.
type Peer struct {
	Name    string
	Verdict Verdict
	Reasons []string      // the evidence behind the verdict
	Since   time.Duration // when the verdict became what it is

	Told        bool // the four below were told in the present mirror session
	Role        state.Role
	Disk        state.Disk
	Suspect     bool
	AssumeClean bool
	PrimaryAt   time.Duration // when it last told that it is Primary

	Left    bool // it was stopped in order while this node's copy was in doubt
	Standby bool
	Failed  Failures // its failures, as it told when it handed over
}

// Mirror is the state of the replication.
type Mirror struct {
	Connection   state.Connection
	Since        time.Duration // when the connection became what it is
	Replication  state.Replication
	Forwards     bool       // this Primary has given its copy up: requests go to the peer, or wait for it
	SplitBrain   bool       // the copies diverged, or both are being written
	Rival        state.Role // then: of the peer, as it told
	OnlyThere    uint64     // then: what the peer has that this copy may lack, in bytes
	Uncounted    bool       // then: the two parted earlier than the counts go back
	PeerNewer    bool       // at the last handshake the peer's generation was newer
	DirtyBytes   uint64     // written here, missing on the peer
	MissingBytes uint64     // written on the peer, missing here, as last told
	Held         []string   // who holds the device open here
	Unopened     bool       // this node is Primary, and not all its devices are offered
}

// Record is the ledger's word about the resource. The zero Record means that
// nothing was ever declared.
type Record struct {
	Token       lease.Token
	Tenure      lease.Token
	Primary     string // "" for none
	LastPrimary string // the Primary before, when known
	InSync      []string
}

// Has reports whether node is in the in-sync set.
func (r Record) Has(node string) bool { return slices.Contains(r.InSync, node) }

// Ledger is the record and how far it can be changed.
type Ledger struct {
	Known  bool // the record was read since this agent began
	Record Record
	Old    Record        // while it is not known: what this node's own log says, which may be old
	Since  time.Duration // when the record's Primary last changed, as seen here
	Quorum bool
	// Answers says that a majority of the voters answers, whether or not one of
	// them leads.
	Answers bool
	Alone   bool // this node runs the ledger as its only voter
	Split   bool // so does the peer, apart from this node
}

// Lease is this node's own lease, and what is known of the peer's.
type Lease struct {
	Asked bool        // renewals are being asked for
	Own   lease.Lease // zero when none was granted

	PeerLapsed     bool          // this node's own promise to the Primary of the record has run out
	MajorityLapsed bool          // a majority said so, of the present record
	LookedAt       time.Duration // when the majority was last asked
	LapsedSince    time.Duration // when the majority first said so
}

// ServiceState is the state of a resource's services as one.
type ServiceState uint8

// The service states.
const (
	Stopped ServiceState = iota
	Started
	Partial // some run: a start or a stop is under way or was cut short
	Broken  // one failed
)

// String returns the word for the state.
func (s ServiceState) String() string {
	return word(int(s), "stopped", "started", "partial", "broken")
}

// Services is what runs on top of the resource here.
type Services struct {
	State      ServiceState
	FailedName string // the first that failed
	Failed     string // which failed and why
	StopFailed bool   // the last orderly stop failed: the next one is forced
}

// WishKind is what an operator can ask for.
type WishKind uint8

// The wishes.
const (
	NoWish WishKind = iota
	Promote
	Demote
	Switchover // to Target
)

// String returns the operator's word.
func (w WishKind) String() string {
	return word(int(w), "none", "promote", "demote", "switchover")
}

// Wish is what the operator asked of this node and still waits for.
type Wish struct {
	Kind   WishKind
	Target string // of a switchover
	Force  bool
	Reason string
	Since  time.Duration
	Auto   bool // nobody asked: it goes back to the preferred node, for Reason
}

// by says who asked for it.
func (w Wish) by() string {
	if w.Auto {
		return w.Reason
	}
	return w.Kind.String() + " asked for by the operator"
}

// Hint is the peer's announcement that this node is to take the resource.
type Hint struct {
	Take  bool
	From  string
	Until time.Duration
}

// Trouble is the last step that failed, and since when it is tried in vain.
type Trouble struct {
	Step  Kind
	Text  string
	At    time.Duration
	Count int // in a row
}

// peerInSync reports whether the record calls the peer current.
func (v View) peerInSync() bool { return v.Ledger.Record.Has(v.Peer.Name) }

// active reports whether anything of the resource runs here.
func (v View) active() bool {
	return v.Self.Role == state.Primary || v.Services.State != Stopped
}

// mine reports whether the record names this node, by the grant this very
// process was given.
func (v View) mine() bool {
	r := v.Ledger.Record
	return r.Primary == v.Self.Name && v.Tenure != 0 && v.Tenure == r.Tenure
}

// connected reports whether the peer speaks to us on a mirror session.
func (v View) connected() bool {
	return v.Mirror.Connection == state.Connected && v.Peer.Told
}

// compared reports whether the present session has compared the copies, by a
// record that says which of them count. What the peer told before that may be
// by an older record, or by none.
func (v View) compared() bool { return v.connected() && v.Mirror.Replication != state.Off }

// diverged reports whether both nodes went on without the other.
func (v View) diverged() bool { return v.Mirror.SplitBrain || v.Ledger.Split }

// peerReachable reports whether the peer is there at all.
func (v View) peerReachable() bool {
	return v.Mirror.Connection == state.Connected || v.Peer.Verdict == Alive || v.Peer.Verdict == Suspected
}

// leaseValid reports whether this node may serve under the present record.
func (v View) leaseValid() bool {
	return v.Lease.Own.Valid(v.Now) && v.Lease.Own.Tenure == v.Ledger.Record.Tenure
}

// exhausted reports whether the resource failed here often enough, and not long
// ago.
func (v View) exhausted() bool { return v.Self.Failed.Exhausted(v.Now) }

// peerExhausted is the same of the peer, as far as it told.
func (v View) peerExhausted() bool { return v.Peer.Failed.Exhausted(v.Now) }

// retryAt is when what failed here is tried again; 0 when nothing holds it back.
func (v View) retryAt() time.Duration {
	if at := v.Self.Failed.At + v.Settings.RetryDelay; v.Self.Failed.Remembered(v.Now) && v.Now < at {
		return at
	}
	return 0
}

func word(i int, words ...string) string {
	if i < len(words) {
		return words[i]
	}
	return "invalid"
}
