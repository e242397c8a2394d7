package sim

import (
	"time"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/engine"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
	"hapair/test/check"
)

// volume is what a node has of one volume on stable storage, and its disk.
type volume struct {
	size  int64 // as its metadata say
	disk  *disk
	super engine.Super
	ring  map[uint64]actlog.Transaction // ring block to transaction
	pages map[int][]byte
}

// node is one box: its volumes, and the engine while it is up.
type node struct {
	w    *World
	name string
	i    int
	vols []*volume
	room []int64 // of its disks, by volume

	up      bool
	paused  bool
	slow    bool // its disks
	eng     *engine.Engine
	life    int // counts restarts
	session uint64
	taking  *wire.Message  // the frame being handed over
	parked  []wire.Message // changes that were taken and wait for an ordered flush; Token is their version
	pending []*work        // at the disk or on the way to the ledger
	fence   *check.Fence

	leaseTenure uint64
	answers     bool             // something in this tenure
	command     engine.EventKind // Promote, Demote, Abort, Invalidate or Detach that runs, 0 none
	deposed     bool
	detached    bool // replied: the copy is closed
	standAlone  bool

	// what an observer from outside knows
	asking  int              // changes of the ledger that are on their way
	crashed bool             // it crashed and was not brought in line since
	lossy   bool             // it may lack answered writes, and nobody better was in reach
	lost    bool             // its cache was lost and it was not brought in line since
	bad     bool             // its disk failed or it was invalidated, and it was not brought in line since
	unread  map[rotten]bool  // sectors that cannot be read until they are written
	counted bool             // when it was told to give its copy up, it knew itself in the set
	ill     bool             // its disk may fail any moment
	sore    bool             // its disk has sectors that cannot be read
	dead    bool             // its disk does nothing any more
	old     bool             // its disks had been taken out and were put back
	drawer  []*volume        // the disks it had before
	byForce bool             // this promotion was
	forced  bool             // it was promoted by force, and has answered nothing yet
	mine    []*check.History // then: what it had when it was left behind before
	judged  bool             // its copy has been checked in this tenure
	hung    bool             // its disks do not answer
	given   map[int]bool     // the volumes whose disk was given up because of that
	ghosts  []func()         // what such disks may still do
	restTo  time.Duration    // it leaves its peer alone until then
}

// work is an effect on its way; run carries it out, torn what a crash leaves.
type work struct {
	what string
	can  func() bool
	run  func()
	torn func()

	disk    bool // of the disk of volume
	volume  int
	request *block.Request // that it has
	fail    func(error)    // answers for a disk that does not
	ghost   func() func()  // what remains of it then
}

func newNode(w *World, i int, name string) *node {
	n := &node{w: w, i: i, name: name, given: map[int]bool{}}
	n.room = append(n.room, w.sizes...)
	for _, size := range w.sizes {
		n.vols = append(n.vols, &volume{size: size, disk: newDisk(size), ring: map[uint64]actlog.Transaction{}, pages: map[int][]byte{},
			super: engine.Super{Gen: genid.Set{Current: 77}, Disk: state.UpToDate, Clean: true}})
	}
	return n
}

func (n *node) peer() *node { return n.w.nodes[1-n.i] }

// start attaches the copies and brings the engine up. Its replica of the
// ledger may lag.
func (n *node) start() {
	c := engine.Config{Resource: "r", Self: n.name, Peer: n.peer().name, NewID: n.w.newID, Record: n.w.past[n.w.rng.IntN(len(n.w.past))]}
	c.Settings, c.PassOn = n.w.settings(n), n.w.told != nil && n.w.told.passOn
	n.fence = check.NewFence(n.name)
	for i, v := range n.vols {
		c.Volumes = append(c.Volumes, n.config(i))
		n.fence.Told(v.super.Tenure)
	}
	n.fence.Told(c.Record.Tenure)
	n.w.logf("%s starts with record %+v", n.name, c.Record)
	n.life++
	n.w.views[n.i] = 0
	n.up, n.session, n.leaseTenure, n.command, n.deposed, n.detached, n.standAlone, n.ill, n.sore = true, 0, 0, 0, false, false, false, false, false
	n.eng = engine.New(c)
	n.step(&engine.Event{Kind: engine.Tick})
}

// config is what an attach finds of a volume.
func (n *node) config(i int) engine.VolumeConfig {
	v, log := n.vols[i], actlog.New(n.w.slots)
	must(log.Restore(v.transactions()))
	return engine.VolumeConfig{Number: uint16(i), Super: v.super, Bitmap: v.bitmap(), Log: log, Room: max(n.room[i], v.size),
		Geometry: block.Geometry{SizeBytes: v.size, LogicalBlockBytes: 512, PhysicalBlockBytes: 4096, MaxTransferBytes: block.MaxTransferBytes, VolatileCache: true}}
}

func (v *volume) transactions() (txs []actlog.Transaction) {
	for _, tx := range v.ring {
		txs = append(txs, tx)
	}
	return txs
}

func (v *volume) bitmap() *dirty.Bitmap {
	bits := dirty.New(v.size)
	for p, data := range v.pages {
		must(bits.LoadPage(p, data))
	}
	return bits
}

// crash ends the engine; a power cut loses any part of the volatile caches.
func (n *node) crash(power bool) {
	n.w.logf("%s crashes (power %v)", n.name, power)
	n.crashed = true
	for _, p := range n.pending {
		if p.torn != nil && n.w.one(2) {
			p.torn()
		}
	}
	n.memoryLost()
	n.stop()
	if power {
		for _, v := range n.vols {
			v.disk.powerCut(n.w.rng)
		}
		n.w.cacheLost(n)
	}
	n.w.bothCrashed()
}

// stop ends the engine as the end of its process does.
func (n *node) stop() {
	n.w.failRequests(n)
	n.exorciseAll()
	n.hung, n.restTo = n.hung && n.w.one(2), 0
	n.pending, n.asking, n.parked = nil, 0, nil
	n.up, n.paused, n.eng = false, false, nil
	n.life++
	n.w.sessionLost(n)
}

func (n *node) step(ev *engine.Event) {
	effects := n.eng.Step(n.w.now, ev, nil)
	life := n.life
	for i := range effects {
		if n.life != life {
			return
		}
		n.perform(&effects[i])
	}
	if n.life == life && len(n.parked) > 0 && n.eng.PeerOps() == 0 {
		n.parked = nil // dropped with the disk, which has failed
	}
	if n.w.verifies && n.life == life {
		n.falseAlarm()
	}
}

// later queues a unit of work of this life.
func (n *node) later(p *work) { n.pending = append(n.pending, p) }

func (n *node) view() any {
	if n.eng == nil {
		return "down"
	}
	return n.eng.View()
}

// holdsPen reports whether the node would answer now.
func (n *node) holdsPen() bool {
	if !n.up {
		return false
	}
	tenure, until := n.eng.Pen()
	return tenure != 0 && n.w.now < until
}

// broken reports whether a disk of the running engine has failed.
func (n *node) broken() bool {
	return n.up && n.anyDisk(func(d state.Disk) bool { return !d.HasData() })
}

// serves reports whether the node is up with copies that may be promoted.
func (n *node) serves() bool {
	return n.up && !n.anyDisk(func(d state.Disk) bool { return !d.CanServe() })
}

func (n *node) anyDisk(is func(state.Disk) bool) bool {
	for i := range n.vols {
		if is(n.eng.Disk(i)) {
			return true
		}
	}
	return false
}

func (n *node) record(r wire.Record) {
	if n.up {
		n.fence.Told(r.Tenure)
		n.step(&engine.Event{Kind: engine.LedgerRecord, Record: r, Current: r.Token == n.w.record.Token})
	}
}

func (n *node) renew(until time.Duration) {
	n.step(&engine.Event{Kind: engine.LeaseRenewed, Tenure: n.leaseTenure, Until: until})
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
