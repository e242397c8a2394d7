package mirror

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/genid"
	"hapair/mirror/link"
	"hapair/mirror/wire"
)

// tickEvery paces the engine's own timers; nothing waits for it on the way of
// a request.
const tickEvery = 50 * time.Millisecond

// Config is one replicated resource on one node.
type Config struct {
	Cluster, Resource, Self, Peer string
	Release                       string // of this program, for people
	Volumes                       []VolumeConfig
	Record                        wire.Record // what the ledger holds now; may be zero

	Ledger   Ledger
	Dialer   Dialer
	Clock    Clock
	Observer Observer
	Logger   *zap.Logger

	Aside        AsideConfig
	PassOn       bool          // a Primary whose disk fails hands the error on, instead of going on through its peer
	Settings     Settings      // until the first Configure
	OpenWithin   time.Duration // that Open waits for disks; 0 is its default, that of an Attach
	TakeBack     time.Duration // pause before a disk that hung and answers again is attached; 0 is its default
	PingInterval time.Duration // of the link; 0 is its default
	Silence      time.Duration // after which the link is given up; 0 is its default
	Spread       bool          // go over several paths at once, where the peer does, too; see SpreadPaths
}

// Resource is one replicated data set: volumes that share a peer, a role and a
// write order. It is safe for concurrent use.
type Resource struct {
	cfg  Config
	log  *zap.Logger
	vols []*volume
	link *link.Link
	sink sink

	standAlone  atomic.Bool                // no session is wished for
	diskTimeout atomic.Int64               // of the Settings, as a time.Duration
	rest        atomic.Pointer[time.Timer] // ends the rest of a peer that was too slow
	why         atomic.Pointer[error]      // why there is no session; nil while there is one

	mu struct {
		sync.Mutex
		eng     *engine.Engine
		free    [][]engine.Effect // scratch for Step, one per concurrent caller
		replies map[engine.EventKind]chan error
	}

	plug struct {
		sync.Mutex
		answered block.Answers // front ends that have answers and were not told
	}

	back        takeBack
	turned      atomic.Int64 // when tick came round, as a time.Duration on the Clock
	takenBackAt atomic.Int64 // when a disk is attached by itself, as a time.Duration; 0: none is about to be

	admin    sync.Mutex  // one command at a time
	opening  atomic.Bool // an Attach opens disks, or one that hangs is let go of yet
	undoing  atomic.Bool // what was given up is being put back
	settings atomic.Pointer[Settings]
	abortMu  sync.Mutex
	verifyMu sync.Mutex // one command to the verify at a time
	resizeMu sync.Mutex // one resize at a time
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup
	done     func(*block.Request, error)
}

// Settings are what may be changed while a resource runs.
type Settings struct {
	engine.Settings
	// DiskTimeout is after how long a disk that does not answer is given up, if
	// somebody can go on with the data; 0: never.
	DiskTimeout time.Duration
}

// Configure has other settings count from now on.
func (r *Resource) Configure(s Settings) {
	r.settings.Store(&s)
	r.configure()
}

// configure tells the engine, with what this node knows by itself.
func (r *Resource) configure() {
	s := *r.settings.Load()
	r.diskTimeout.Store(int64(s.DiskTimeout))
	s.PutBack = r.undone()
	r.step(&engine.Event{Kind: engine.Configure, Settings: s.Settings})
}

// wall is the time of day, for people.
func wall() int64 { return time.Now().Unix() }

// newID returns a random generation identifier; the small values are DRBD's
// special ones.
func newID() genid.ID {
	var b [8]byte
	for {
		rand.Read(b[:]) // never fails
		if id := genid.ID(binary.LittleEndian.Uint64(b[:])); id > 0xff {
			return id
		}
	}
}

// Start begins to connect to the peer.
func (r *Resource) Start() {
	r.running.Add(1)
	go r.tick()
	r.step(&engine.Event{Kind: engine.Tick})
	if r.interrupted() {
		r.running.Add(1)
		go r.resumeUndo()
		return
	}
	r.link.Start()
}

// tick steps the engine's timers, and watches the disks, until Close.
func (r *Resource) tick() {
	defer r.running.Done()
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			r.watchDisks()
			r.takeBackDisks()
			r.step(&engine.Event{Kind: engine.Tick, Queued: r.link.Queued()})
			r.turned.Store(int64(r.cfg.Clock()))
		case <-r.ctx.Done():
			return
		}
	}
}

// Turned is when the loop behind all timers of the resource last came round, on the
// Clock.
func (r *Resource) Turned() time.Duration { return time.Duration(r.turned.Load()) }

// watchDisks tells the engine of disks that do not answer.
func (r *Resource) watchDisks() {
	for i, v := range r.vols {
		waiting := time.Duration(v.on.Load().waiting()) * tickEvery
		if limit := time.Duration(r.diskTimeout.Load()); limit > 0 && waiting >= limit {
			r.step(&engine.Event{Kind: engine.DiskStalled, Volume: i, Err: v.stalled(limit)})
		}
	}
}

// Close detaches in order: the peer is told, the bitmap saved, the superblocks
// say "clean". The resource must be Secondary.
func (r *Resource) Close(ctx context.Context) error {
	err := r.command(ctx, &engine.Event{Kind: engine.Detach})
	// Closing the disks would wait for what they do not answer.
	defer context.AfterFunc(ctx, func() { r.abandonDisks(context.Cause(ctx)) })()
	if rest := r.rest.Load(); rest != nil {
		rest.Stop()
	}
	err = errors.Join(err, r.link.Stop(ctx))
	r.cancel()
	r.running.Wait()
	return errors.Join(err, r.abortKept(ctx), r.closeDisks())
}

func (r *Resource) abandonDisks(why error) {
	for _, v := range r.vols {
		v.on.Load().abandon(why)
	}
}

func (r *Resource) closeDisks() error {
	var errs []error
	for _, v := range r.vols {
		errs = append(errs, v.close())
	}
	return errors.Join(errs...)
}

// SetRecord brings what the ledger has committed; nothing before it has applied all that was
// committed when this node began.
func (r *Resource) SetRecord(rec wire.Record) {
	r.step(&engine.Event{Kind: engine.LedgerRecord, Record: rec, Current: true})
}

// SetLease brings a renewal of the lease of a tenure; until is on the Clock,
// 0 says that it is lost.
func (r *Resource) SetLease(tenure uint64, until time.Duration) {
	r.step(&engine.Event{Kind: engine.LeaseRenewed, Tenure: tenure, Until: until})
}
