package sim

import (
	"fmt"
	"time"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/engine"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// node is one box: what is on stable storage, and the engine while it is up.
type node struct {
	w    *World
	name string
	i    int

	disk  *disk
	super engine.Super
	ring  map[uint64]actlog.Transaction // ring block to transaction
	pages map[int][]byte

	up      bool
	paused  bool
	eng     *engine.Engine
	life    int // counts restarts; work of an earlier life is void
	session uint64
	pending []*work // at the disk or on the way to the ledger

	leaseTenure uint64
	wantPromote bool
	commanded   bool // a Promote, Demote or Abort runs
	promoting   uint64
	deposed     bool
	demoting    bool
	lossy       bool // was suspect when promoted
	judged      bool // its copy has been checked in this tenure
}

// work is an effect on its way; run carries it out, torn what a crash leaves.
type work struct {
	what string
	can  func() bool
	run  func()
	torn func()
}

func newNode(w *World, i int, name string) *node {
	n := &node{w: w, i: i, name: name, disk: newDisk(w.size), ring: map[uint64]actlog.Transaction{}, pages: map[int][]byte{}}
	n.super = engine.Super{Gen: genid.Set{Current: 77}, Disk: state.UpToDate, Clean: true}
	return n
}

func (n *node) peer() *node { return n.w.nodes[1-n.i] }

// start attaches the copy and brings the engine up.
func (n *node) start() {
	bits := dirty.New(n.w.size)
	for p, data := range n.pages {
		must(bits.LoadPage(p, data))
	}
	log := actlog.New(n.w.slots)
	var txs []actlog.Transaction
	for _, tx := range n.ring {
		txs = append(txs, tx)
	}
	must(log.Restore(txs))
	n.life++
	n.up, n.session, n.leaseTenure, n.commanded, n.deposed, n.demoting, n.promoting = true, 0, 0, false, false, false, 0
	n.eng = engine.New(engine.Config{Resource: "r", Self: n.name, Peer: n.peer().name, Record: n.w.record, NewID: n.w.newID,
		Volumes: []engine.VolumeConfig{{Number: 0, Super: n.super, Bitmap: bits, Log: log,
			Geometry: block.Geometry{SizeBytes: n.w.size, LogicalBlockBytes: 512, PhysicalBlockBytes: 4096, MaxTransferBytes: block.MaxTransferBytes, VolatileCache: true}}}})
	n.step(&engine.Event{Kind: engine.Tick})
}

// crash ends the engine; a power cut loses any part of the volatile cache.
func (n *node) crash(power bool) {
	n.w.logf("%s crashes (power %v)", n.name, power)
	for _, p := range n.pending {
		if p.torn != nil && n.w.rng.IntN(2) == 0 {
			p.torn()
		}
	}
	n.pending = nil
	n.up, n.eng = false, nil
	n.life++
	if power {
		n.disk.powerCut(n.w.rng)
		n.w.cacheLost(n)
	}
	n.w.sessionLost(n)
}

func (n *node) step(ev *engine.Event) {
	effects := n.eng.Step(n.w.now, ev, nil)
	for i := range effects {
		n.perform(&effects[i])
	}
}

// later queues a unit of work of this life.
func (n *node) later(p *work) { n.pending = append(n.pending, p) }

func (n *node) perform(f *engine.Effect) {
	switch f.Kind {
	case engine.LocalIO:
		r := f.Request
		n.later(&work{what: n.name + " " + r.String(), run: func() {
			n.disk.apply(r)
			n.step(&engine.Event{Kind: engine.LocalDone, Request: r})
		}, torn: func() { n.disk.tear(r, n.w.rng) }})
	case engine.PeerSend:
		if f.Session == n.session {
			n.w.sendTo(n, &f.Message)
		}
	case engine.Answer:
		n.w.answered(n, f.Request, f.Err)
	case engine.DropLink:
		n.w.logf("%s drops session %d: %v", n.name, f.Session, f.Err)
		if f.Session == n.session {
			n.w.endSession()
		}
	case engine.StandAlone:
		n.w.fail(fmt.Errorf("%s goes StandAlone: %w", n.name, f.Err))
	case engine.Deposed:
		n.deposed = true
	case engine.Reply:
		n.replied(f.Of, f.Err)
	case engine.Note:
		n.w.logf("%s: %s", n.name, f.Text)
	default:
		n.performMeta(f)
	}
}

// performMeta is what becomes durable on this node's metadata or in the ledger.
func (n *node) performMeta(f *engine.Effect) {
	switch f.Kind {
	case engine.WriteActivity:
		tx := f.Activity
		store := func() { n.ring[tx.Number%uint64(actlog.RingBlocks(n.w.slots))] = tx }
		n.later(&work{what: n.name + " activity", torn: store, run: func() {
			store()
			n.step(&engine.Event{Kind: engine.ActivityDone})
		}})
	case engine.WritePage:
		page, version, data := f.Page, f.Version, append([]byte(nil), f.Payload...)
		n.later(&work{what: n.name + " page", torn: func() { n.pages[page] = data }, run: func() {
			n.pages[page] = data
			n.step(&engine.Event{Kind: engine.PageDone, Page: page, Version: version})
		}})
	case engine.WriteSuper:
		super, version := *f.Super, f.Version
		n.later(&work{what: n.name + " super", torn: func() { n.super = super }, run: func() {
			n.super = super
			n.step(&engine.Event{Kind: engine.SuperDone, Version: version})
		}})
	case engine.LedgerExclude, engine.LedgerInclude:
		who, token, include := f.Node, f.Token, f.Kind == engine.LedgerInclude
		n.later(&work{what: n.name + " ledger", can: func() bool { return n.w.quorum(n) },
			torn: func() { n.w.changeInSync(n, who, token, include) },
			run: func() {
				err := n.w.changeInSync(n, who, token, include)
				n.step(&engine.Event{Kind: engine.LedgerDone, Record: n.w.copyRecord(), Err: err})
			}})
	default:
		n.w.fail(fmt.Errorf("unknown effect %d", f.Kind))
	}
}

// holdsPen reports whether the node would answer now.
func (n *node) holdsPen() bool {
	if !n.up {
		return false
	}
	v := n.eng.View()
	return v.Role == state.Primary && !v.Deposed && v.Tenure != 0 && n.w.now < v.LeaseTo
}

func (n *node) replied(of engine.EventKind, err error) {
	n.w.logf("%s: reply to %d: %v", n.name, of, err)
	n.commanded = false
	switch of {
	case engine.Promote:
		n.promoting = 0
	case engine.Demote:
		n.demoting = false
		if err == nil {
			n.w.demoted(n)
		}
	}
}

func (n *node) record(r wire.Record) {
	if n.up {
		n.step(&engine.Event{Kind: engine.LedgerRecord, Record: r})
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
