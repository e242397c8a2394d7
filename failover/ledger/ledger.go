// Package ledger keeps, by consensus, who may write each resource and which
// copies count, and hands out the lease a writer works under. DESIGN.md says
// how and why. Everything exported is safe for concurrent use.
package ledger

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"

	"hapair/failover/lease"
	"hapair/failover/ledger/logstore"
	"hapair/failover/ledger/record"
	"hapair/failover/plan"
)

type storeOptions = logstore.Options

// identity is where a store's history begins, kept beside raft's own values.
type identity struct {
	Incarnation uint64           `json:"incarnation"`
	Lineage     []record.Founder `json:"lineage"`
	Joining     bool             `json:"joining,omitempty"` // no voter yet: never bootstrap
	Wiping      bool             `json:"wiping,omitempty"`  // the old snapshot is still to be removed
	Blank       bool             `json:"blank,omitempty"`   // takes no part in raft yet, see blank.go
	Floor       *floor           `json:"floor,omitempty"`   // nil: nothing was ever forgotten
	Machine     string           `json:"machine,omitempty"` // see seat.go
	Forked      bool             `json:"forked,omitempty"`  // one of three was forced: the group may have fewer voters than configured
}

// Keys in the stable store beside raft's own.
const (
	keyIdentity = "hapair-identity"
	keyLongest  = "hapair-longest-lease" // of any this node may have promised, in ns
)

// Ledger is one voter's part of the ledger.
type Ledger struct {
	cfg     Config
	log     *zap.Logger
	raftLog hclog.Logger
	clock   lease.Clock
	store   *logstore.Store
	snaps   *logstore.Snapshots
	session string
	seq     atomic.Uint64

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	admin sync.Mutex // held while raft is started, stopped or replaced

	mu        sync.Mutex // guards what follows; nothing is called under it
	grp       *group
	ident     identity
	split     string                    // the node that went alone too, "" for none
	apart     map[string]record.Founder // by whom the group of a node was founded that went alone
	met       map[string]hello          // who was met since this node is blank
	vouched   bool                      // an operator's word: who was not met is gone for good
	replaced  map[string]error          // by whom this machine is refused
	own       map[string]Record         // what the log said when this node started
	peers     map[string]*peer          // replaced as a whole, see meetPeers
	want      string                    // the witness that is to be there by the configuration; "" for none
	alike     Arbitration               // manual or fencing: while there is none
	told      map[string]string         // which witness another node is configured with
	arranging string                    // why the voters are not those of the configuration yet; "" when they are
	left      bool
	closed    bool
	diskErr   error
	stalledAt bool
	rescue    atomic.Bool // a witness may ask for votes, and lead
	// surrendering: the other side of a split brain is being asked, to have its ledger
	surrendering atomic.Bool
	// transferring counts hand-overs of the leadership under way: meanwhile
	// nothing waits for an absent peer
	transferring atomic.Int32
	conns        map[net.Conn]string // accepted streams, and from whom

	view              *view
	hands             *hands
	voter             *voter
	self              *peer
	fence             fences
	seat              seats
	dialed            dialed
	joinMu            sync.Mutex // one change of the voters at a time
	meeting           sync.Mutex // held while the peers change
	parting, counting parting    // of arrange alone

	rejoinCh chan hello
	catchCh  chan struct{}
	metCh    chan struct{} // somebody was met
	wantCh   chan struct{} // another witness is wanted

	cbMu     sync.Mutex
	onRecord []func(string, Record)
	onLease  []func(lease.Lease)
	records  *notifier
	leases   *notifier
	turned   atomic.Int64 // when leases came round, as a time.Duration
}

// Open starts the voter. The directory is created when absent; on an empty one
// the group of the configuration is set up, the same on every voter.
func Open(cfg Config) (*Ledger, error) {
	cfg.Timing = cfg.Timing.withDefaults()
	if cfg.FenceTakes == 0 {
		cfg.FenceTakes = time.Minute
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	l := &Ledger{
		cfg: cfg, log: cfg.Logger.With(zap.String("node", cfg.Self)), clock: cfg.Clock, session: rand.Text(),
		conns: map[net.Conn]string{}, peers: map[string]*peer{}, want: cfg.witness(), alike: cfg.ofPair(), met: map[string]hello{}, replaced: map[string]error{}, apart: map[string]record.Founder{}, told: map[string]string{},
		rejoinCh: make(chan hello, 1), catchCh: make(chan struct{}, 1), metCh: make(chan struct{}, 1),
		wantCh: make(chan struct{}, 1),
	}
	l.raftLog = newRaftLog(l.log)
	l.ctx, l.cancel = context.WithCancel(context.Background())
	if err := l.openStore(); err != nil {
		return nil, err
	}
	l.view, l.hands = newView(l.ident), newHands(l)
	l.records, l.leases = newNotifier(), newNotifier()
	l.self = newPeer(l, cfg.Self)
	if l.isBlank() {
		l.wg.Go(l.awaitMeetings)
	} else if err := l.startFirst(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.serve()
	l.wg.Go(l.self.renewSelf)
	l.meetPeers()
	l.wg.Go(l.manage)
	l.wg.Go(l.catchUp)
	l.wg.Go(l.keepRoom)
	if l.isWitness(cfg.Self) {
		l.wg.Go(l.rescueLog)
	} else if len(cfg.data()) == 2 {
		l.wg.Go(l.arrange)
	}
	if l.fence.state == plan.FenceVoid {
		l.wg.Go(l.formerFence)
	}
	return l, nil
}

func (l *Ledger) startFirst() error {
	l.admin.Lock()
	defer l.admin.Unlock()
	return l.startGroup()
}

// openStore opens the directory and brings its identity up to date.
func (l *Ledger) openStore() (err error) {
	if l.store, l.snaps, err = openDir(&l.cfg, l.log); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			l.store.Close() //nolint:errcheck // the error at hand says more
		}
	}()
	if n := l.store.CutTail(); n > 0 {
		l.log.Warn("ledger log: cut off an operation that had not finished", zap.Int64("bytes", n))
	}
	if err = l.loadIdentity(); err != nil {
		return err
	}
	if !l.ident.Joining && !l.ident.Blank { // a blank one does not know yet of which group it is
		if err = l.bootstrap(); err != nil {
			return err
		}
	}
	if err = l.fits(); err != nil {
		return err
	}
	if s, err := l.replayAll(); err == nil { // only told to an operator; what is broken shows when raft starts
		l.own = s.Records
	}
	if err = l.openFence(); err != nil {
		return err
	}
	if err = l.loadSeats(); err != nil {
		return err
	}
	forgotten, err := l.longestLease()
	if err != nil {
		return err
	}
	l.voter = newVoter(l, forgotten)
	return nil
}

func (l *Ledger) loadIdentity() error {
	b, err := l.store.Get([]byte(keyIdentity))
	if err != nil {
		return err
	}
	if len(b) == 0 {
		return l.saveIdentity(identity{Incarnation: 1, Lineage: []record.Founder{{Incarnation: 1}}, Blank: l.cfg.Arbitration == ArbitrationWitness, Machine: newMachine()})
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil {
		return fmt.Errorf("ledger identity in %s: %w", l.cfg.Dir, err)
	}
	l.ident = id
	if id.Wiping {
		if err := l.finishWipe(); err != nil {
			return err
		}
	}
	if id = l.id(); id.Machine == "" { // begun by a release before
		id.Machine = newMachine()
		return l.saveIdentity(id)
	}
	return nil
}

func (l *Ledger) saveIdentity(id identity) error {
	b, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("ledger identity: %w", err)
	}
	if err := l.store.Set([]byte(keyIdentity), b); err != nil {
		return err
	}
	l.mu.Lock()
	l.ident = id
	l.mu.Unlock()
	return nil
}

func (l *Ledger) id() identity {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ident
}

// longestLease returns the longest lease this node may have promised before it
// restarted, and has the disk know of what it will promise now.
func (l *Ledger) longestLease() (time.Duration, error) {
	was, err := l.store.GetUint64([]byte(keyLongest))
	if err != nil {
		return 0, err
	}
	now := uint64(l.cfg.Timing.Lease + l.cfg.Timing.Margin)
	if was < now {
		err = l.store.SetUint64([]byte(keyLongest), now)
	}
	return time.Duration(max(was, now)) - l.cfg.Timing.Margin, err
}

// forgetLongest runs until it succeeds, once the promises forgotten in the restart have run
// out: those of this configuration stand, and no longer ones are made, whoever asks for them.
func (l *Ledger) forgetLongest() bool {
	err := l.store.SetUint64([]byte(keyLongest), uint64(l.cfg.Timing.Lease+l.cfg.Timing.Margin))
	if err != nil && !errors.Is(err, logstore.ErrNoRoom) {
		l.diskFailed(err)
	}
	return err == nil
}

// OnRecord has fn called for every record known now and for every change, in
// order, never with locks held; for none before this node has applied all that
// was committed before it started. A zero Record says the ledger was discarded.
// fn may use the ledger but not close it.
func (l *Ledger) OnRecord(fn func(resource string, r Record)) {
	l.view.mu.Lock()
	defer l.view.mu.Unlock()
	l.cbMu.Lock()
	l.onRecord = append(l.onRecord, fn)
	l.cbMu.Unlock()
	for name, r := range l.view.records {
		if l.voter.caughtUp() {
			l.records.post("", func() { fn(name, r.Clone()) })
		}
	}
}

// OnLease has fn called at each renewal, and with a zero Until when the lease
// is lost or handed back; in order, the latest only when fn is slow.
func (l *Ledger) OnLease(fn func(lease.Lease)) {
	l.cbMu.Lock()
	defer l.cbMu.Unlock()
	l.onLease = append(l.onLease, fn)
}

func (l *Ledger) tellLease(t lease.Lease) {
	l.leases.post(t.Resource, func() {
		l.cbMu.Lock()
		fns := l.onLease
		l.cbMu.Unlock()
		for _, fn := range fns {
			fn(t)
		}
	})
}

// Turned is when renewals of leases last reached those who asked for them, or would
// have, on the ledger's clock. It asks for another turn of that loop.
func (l *Ledger) Turned() time.Duration {
	l.leases.post(keyTurned, func() { l.turned.Store(int64(l.cfg.Clock())) })
	return time.Duration(l.turned.Load())
}

// keyTurned is the name of no resource.
const keyTurned = "\x00turned"

func (l *Ledger) event(e Event) {
	e.Incarnation = l.view.inc()
	if l.cfg.Events != nil {
		l.records.post("", func() { l.cfg.Events(e) })
	}
}

// Record returns the local, applied view of a resource: the present one where CaughtUp.
func (l *Ledger) Record(resource string) (Record, bool) { return l.view.get(resource) }

// OwnWord returns what this node's own log said of a resource when it started,
// committed or not: all that is known while there is no quorum. It may be old.
func (l *Ledger) OwnWord(resource string) Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.own[resource].Clone()
}

// Records returns the local, applied view of all resources.
func (l *Ledger) Records() map[string]Record { return l.view.all() }

// diskFailed is called once the directory cannot be written any more.
func (l *Ledger) diskFailed(err error) {
	l.mu.Lock()
	first := l.diskErr == nil && !l.closed
	if first {
		l.diskErr = fmt.Errorf("%w: %w", ErrDisk, err)
	}
	g := l.grp
	l.mu.Unlock()
	if !first {
		return
	}
	l.log.Error("ledger disk failed: this node votes for no leader and keeps no log until it is restarted", zap.Error(err))
	l.event(Event{Kind: EventDisk, Because: "write failed", Err: err})
	if g != nil {
		g.shutdown()
	}
}

// stalled notes, once, that a leader has fallen silent for its disk's sake.
func (l *Ledger) stalled(d time.Duration) {
	l.mu.Lock()
	first := !l.stalledAt
	l.stalledAt = true
	l.mu.Unlock()
	if first {
		l.log.Error("ledger disk does not answer: letting another node lead", zap.Duration("since", d))
		l.event(Event{Kind: EventStall, Because: fmt.Sprintf("log write takes %v", d)})
	}
}

// Close stops at once: leases are left to run out.
func (l *Ledger) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	l.cancel()
	for c := range conns {
		c.Close() //nolint:errcheck // ends its server
	}
	for _, p := range l.others() {
		p.close()
	}
	l.hands.close()
	l.admin.Lock()
	l.stopGroup()
	l.admin.Unlock()
	l.wg.Wait()
	l.records.close()
	l.leases.close()
	return l.store.Close()
}
