package engine

import (
	"time"

	"hapair/mirror/actlog"
	"hapair/mirror/aftersplit"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// VolumeConfig is one volume as its metadata was read at attach.
type VolumeConfig struct {
	Number   uint16
	Geometry block.Geometry
	Super    Super
	Bitmap   *dirty.Bitmap
	// Log is the activity log as its ring restored it; its extents count when
	// the copy was not detached in order.
	Log *actlog.Log
	// Floor and Room are the sizes that the volume can be given on its disks.
	Floor, Room int64
}

// Config is what an engine starts from.
type Config struct {
	Resource, Self, Peer string
	Release              string // of this program, for people; what is beyond wire.MaxNameBytes is not told
	Volumes              []VolumeConfig
	Record               wire.Record // what the ledger holds now; may be zero
	// NewID returns a random generation identifier, never one returned before.
	NewID func() genid.ID
	// Wall is the time of day in seconds since 1970, for people; nil: not known.
	Wall func() int64
	// PassOn: a Primary whose disk fails passes the error on to the application,
	// instead of going on through its peer.
	PassOn   bool
	Settings // until the first Configure
}

// Settings are what may be changed while the engine runs.
type Settings struct {
	// FailFrozen: a Primary that has been without a lease for a while fails its I/O
	// instead of letting it wait.
	FailFrozen bool
	// PeerTimeout is how long a peer may take for a request of the application
	// before the Primary goes on without it; 0: for ever.
	PeerTimeout time.Duration
	// Protocol is when a write is answered; the peer's counts where it is stricter.
	Protocol state.Protocol
	// CongestionFill is how much may be answered, in protocols A and B, that the
	// peer's disk does not have yet, in bytes of the volumes.
	CongestionFill int64
	// PullAhead: when that is reached in protocol A, the Primary goes on without the
	// peer, instead of letting answers wait.
	PullAhead bool
	// AfterSplit are the policies for a split brain; zero leaves it to an operator.
	AfterSplit aftersplit.Policies
	// PutBack: what this copy gave up once was put back, and nobody has said yet
	// that the choice is made: no policy decides.
	PutBack bool
}

// volume is the engine's side of one volume.
type volume struct {
	index int
	num   uint16
	geo   block.Geometry

	disk   state.Disk
	failed error // why disk is Failed
	hung   bool  // that is because it did not answer
	fitTo  int64 // the size that the metadata are being laid out for, else 0
	fresh  bool  // then: they are to say nothing, the copy holds nothing
	gen    genid.Set
	last   bool // LastPrimary
	assume bool
	full   bool // FullSync
	parted parted
	doubt  bool // the ledger counts this copy again, and did not before
	unused bool // gen is of a full resync of which no target has been told

	bits *dirty.Bitmap
	al   *actlog.Log

	floor, room int64    // the sizes that its disks allow, as last measured
	ceiling     int64    // of a smaller size
	measuring   bool     // they are being looked at, before our hello
	zeroing     bool     // a piece of what lies behind the volume is being zeroed
	fitMark     bool     // of a remake: what is new is out of sync
	fitFrom     []uint64 // versions of the bitmap's pages that were handed over
	remaking    bool     // it has been asked for

	super struct {
		wanted, written uint64 // versions
		inFlight        bool
		gen             genid.Set // as of the last that is durable
		next            genid.Set // as of the one in flight
	}
	activity struct {
		inFlight bool
		tx       actlog.Transaction
	}
	page struct {
		inFlight bool
		first    int      // of those in flight
		versions []uint64 // of those in flight
		urgent   []int    // pages that something waits for
		lastSave time.Duration
	}

	active  opList // changing application ops and resync chunks; each holds its range
	reads   opList // application reads at the disk
	waiting opList // wait for an overlap in active or reads, or before them in waiting
	cold    []*op  // in active, wait for the activity log
	warm    []*op  // empty: the memory of the last ones
	atDisk  int    // requests that the local disk has
	fences  opList // flushes that wait for writes which were answered early
	early   int    // writes that were answered early, in flight
	epoch   uint64 // number of flushes that waited so far
	waking  bool   // waiting is being looked through
	woken   uint64 // how often that was asked for

	settled   uint64                          // number of settled writes
	flushes   struct{ started, ended uint64 } // local flushes; ended is the start number of the latest that succeeded
	durable   uint64                          // every write up to this one is durable on every in-sync copy
	unflushed ring                            // answered by the peer, not yet flushed there (rule R6)
	flushing  *op                             // the engine's own flush
	sync      syncState
	stats     Stats
	stalled   time.Duration // when it was last told that the disk does not answer; 0: never
	unread    struct {      // reads that failed while no other copy was current
		count int
		told  time.Duration
	}
}

// Engine is the state of one resource on one node.
type Engine struct {
	name, self, peer string
	version          string
	vols             []*volume
	newID            func() genid.ID
	wall             func() int64
	passOn           bool
	set              Settings
	out              []Effect // effects of the Step that runs
	now              time.Duration
	pool             opPool

	role      state.Role
	suspect   bool   // came back from a crash and has not been brought in line (R8)
	tenure    uint64 // the writer token of this node while Primary
	seen      uint64 // highest tenure seen in this life (R12)
	before    uint64 // highest that the superblocks bring from another one, see otherlife.go
	record    wire.Record
	current   bool          // record is not older than this node's life
	leaseTo   time.Duration // the lease of tenure runs until then
	deposed   bool
	alike     bool          // this tenure knows that the peer's copy differs by writes in flight at most
	aborting  error         // why authority was lost, while Abort runs
	excluding bool          // the peer is to be taken out of the in-sync set
	missing   bool          // it will be, unless it comes back
	missedAt  time.Duration // missing: since when
	endedAt   time.Duration // when the last session ended
	lease     struct {
		tenure uint64
		until  time.Duration
	}
	frozen      bool          // there is no lease, as the tick saw it
	frozenSince time.Duration // frozen: since when
	slow        slow
	ahead       rests // of a peer that this node has pulled ahead of
	pulled      bool  // the last session ended because one node pulled ahead
	failing     bool  // I/O fails, because there has been none for too long
	detaching   bool

	held     []*block.Request // wait to be admitted; volume in heldVol
	heldVol  []int
	draining bool
	answers  opList // settled, wait for the lease
	appOps   int
	early    early
	peerOps  int
	parked   opList // requests of the peer that wait for an ordered one, or are one
	barrier  bool   // an ordered request of the peer is at the disk

	ledger struct {
		inFlight bool
		include  bool
		void     bool // the change in flight belongs to a ledger that was discarded
	}
	flushes   []*op    // application and own flushes in flight
	minting   bool     // a new generation is on its way to the superblocks
	minters   []uint64 // ops that wait for it
	including bool     // the ledger may have recorded the peer as in sync; until known it counts as in
	session   session
	forward   forward
	whole     wholeSync
	control   control
	afterSup  []superWait
	paused    bool
	rival     *Rival
	split     splitBrain
	verify    verify
	resize    resize
	answering int           // ranges that the peer's verify asks about, being read
	lastApp   time.Duration // when the latest application request was admitted
	toldOut   uint64        // the token under which the exclusion of the peer was told last
}

// New returns an engine whose copies have been attached. It emits its first
// effects (the superblock that says "not clean") at the first Step.
func New(c Config) *Engine {
	e := &Engine{name: c.Resource, self: c.Self, peer: c.Peer, version: c.Release[:min(len(c.Release), wire.MaxNameBytes)], newID: c.NewID, wall: c.Wall, passOn: c.PassOn, set: c.Settings, role: state.Secondary, record: c.Record}
	e.pool.init(opsMax)
	for i := range c.Volumes {
		e.vols = append(e.vols, e.attach(i, &c.Volumes[i]))
	}
	e.seen = max(e.seen, c.Record.Tenure)
	e.forward.owed = make([]bool, len(e.vols))
	e.judgeOwnCopy()
	// Nothing is promised to a peer before the superblocks say "not clean".
	versions := make([]uint64, len(e.vols))
	for i, v := range e.vols {
		versions[i] = v.super.wanted
	}
	e.afterSup = append(e.afterSup, superWait{versions: versions, fn: func() {}})
	return e
}

// attach takes one volume over from its metadata. After a crash every hot
// extent may differ from the peer (rule R3).
func (e *Engine) attach(i int, c *VolumeConfig) *volume {
	v := &volume{
		index: i, num: c.Number, geo: c.Geometry, disk: c.Super.Disk, gen: c.Super.Gen, last: c.Super.LastPrimary,
		assume: c.Super.AssumeClean, full: c.Super.FullSync, bits: c.Bitmap, al: c.Log, floor: c.Floor, room: c.Room,
		parted: parted{c.Super.Since, c.Super.Elder},
	}
	e.before = max(e.before, c.Super.Tenure)
	if !c.Super.Clean {
		e.suspect = true
		v.al.Hot(func(extent uint32) {
			from := int64(extent) * actlog.ExtentBytes
			if from < v.geo.SizeBytes {
				v.bits.Set(from, min(actlog.ExtentBytes, v.geo.SizeBytes-from))
			}
		})
	}
	v.unflushed.init()
	v.super.wanted, v.super.gen = 1, v.gen
	return v
}

// Step takes one event at an instant and appends the effects to out.
func (e *Engine) Step(now time.Duration, ev *Event, out []Effect) []Effect {
	e.out, e.now = out, now
	e.dispatch(ev)
	e.flushSupers()
	e.startRemakes()
	out = e.out
	e.out = nil
	return out
}

func (e *Engine) dispatch(ev *Event) {
	switch ev.Kind {
	case Submitted:
		e.submit(e.vols[ev.Volume], ev.Request)
	case LocalDone:
		e.localDone(ev.Request.Owner.(*op), ev.Err)
	case ActivityDone:
		e.activityDone(e.vols[ev.Volume], ev.Err)
	case PagesDone:
		e.pagesDone(e.vols[ev.Volume], ev.Err)
	case SuperDone:
		e.superDone(e.vols[ev.Volume], ev.Version, ev.Err)
	case SizeFitted:
		e.sizeFitted(e.vols[ev.Volume], ev.Err)
	case LinkUp:
		e.linkUp(ev.Session, ev.Path)
	case Received:
		e.received(ev.Session, ev.Message)
	case LinkDown:
		e.linkDown(ev.Session, ev.Err, ev.Ago)
	case LedgerRecord:
		if ev.Record.Token == 0 && e.record.Token != 0 {
			e.discardRecord()
		} else {
			e.current = e.current || ev.Current
			e.applyRecord(ev.Record)
		}
	case LedgerDone:
		e.ledgerDone(ev.Record, ev.Err)
	case LeaseRenewed:
		e.leaseRenewed(ev.Tenure, ev.Until)
	case Configure:
		e.configure(ev.Settings)
	case DiskStalled:
		e.diskStalled(e.vols[ev.Volume], ev.Err)
	case Tick:
		e.tick()
		if ev.Queued < queuedMax {
			e.tellPages()
		}
	case Digested:
		e.digested(ev.Request.Owner.(*op), ev.Payload)
	case Verify, VerifyStop:
		e.verifyEvent(ev)
	case Resize:
		e.resizeStart(ev.Resize)
	case Measured:
		e.measured(e.vols[ev.Volume], ev)
	default:
		e.controlEvent(ev)
	}
}

func (e *Engine) emit(f Effect) { e.out = append(e.out, f) }

func (e *Engine) note(text string) { e.emit(Effect{Kind: Note, Text: text}) }

func (e *Engine) problem(text string) { e.emit(Effect{Kind: Problem, Text: text}) }

func (e *Engine) noteOn(t Topic, text string) { e.emit(Effect{Kind: Note, Text: text, Topic: t}) }

// inSync reports whether the ledger counts node among the current copies.
func (e *Engine) inSync(node string) bool {
	for _, n := range e.record.InSync {
		if n == node {
			return true
		}
	}
	return false
}

// peerInSync reports whether an answer needs the peer or its removal. While an
// inclusion is undecided the peer counts as in.
func (e *Engine) peerInSync() bool { return e.including || e.inSync(e.peer) }

// hasLease is the pen law: asked again wherever a request is answered.
// A promotion counts only once its record has arrived: the record before it
// says something else about the peer.
func (e *Engine) hasLease() bool {
	return !e.deposed && e.tenure != 0 && e.now < e.leaseTo && e.record.Tenure == e.tenure && e.record.Primary == e.self
}

func (e *Engine) tick() {
	if e.session.phase == greeting && e.now-e.session.since > handshakeMax {
		e.dropSession(errHandshakeSlow)
	}
	e.missedPeer()
	e.provenTick()
	e.frozenTick()
	e.slowTick()
	e.syncTick()
	e.verifyTick()
	e.resizeTick()
	for _, v := range e.vols {
		if e.now-v.page.lastSave >= pageSaveInterval {
			v.page.lastSave = e.now
			e.savePages(v)
		}
	}
}
