// Package sim is a seeded world for the mirror engine: two data nodes with
// volatile disks, a witness, links that break, a ledger, crashes between any
// two events. The same seed gives the same run. The laws are checked at every
// step (package check); then the world heals and liveness is demanded.
package sim

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
	"hapair/test/check"
)

const leaseFor = 400 * time.Millisecond

// World is one run.
type World struct {
	rng   *rand.Rand
	now   time.Duration
	size  int64
	slots int
	ids   genid.ID
	nodes [2]*node

	// the witness and the links; ab is the data link, aw[i] node i to witness
	witness bool
	ab      bool
	aw      [2]bool

	record      wire.Record
	leaseHolder int // node index, -1
	leaseUntil  time.Duration
	views       [2]uint64 // token of the record each node has been told

	sessions uint64
	alive    uint64 // session that carries messages, 0 none
	queue    [2][]*wire.Message

	hist     *check.History
	inflight map[*block.Request]*request
	healing  bool
	answers  int
	err      error
	log      []string
	keepLog  bool
}

type request struct {
	version check.Version
	before  []check.Version
	node    *node
	life    int
}

// New makes the world of a seed: both copies equal, both in sync.
func New(seed uint64, keepLog bool) *World {
	w := &World{rng: rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)), size: 20 << 20, witness: true, ab: true, aw: [2]bool{true, true},
		leaseHolder: -1, inflight: map[*block.Request]*request{}, keepLog: keepLog, ids: 100}
	w.slots = 2 + w.rng.IntN(2)
	w.record = wire.Record{Token: 1, Tenure: 0, InSync: []string{"alpha", "beta"}}
	w.hist = check.NewHistory(w.size)
	w.nodes[0], w.nodes[1] = newNode(w, 0, "alpha"), newNode(w, 1, "beta")
	for _, n := range w.nodes {
		n.start()
	}
	return w
}

func (w *World) newID() genid.ID { w.ids++; return w.ids }

func (w *World) logf(format string, args ...any) {
	if w.keepLog {
		w.log = append(w.log, fmt.Sprintf("%8s ", w.now)+fmt.Sprintf(format, args...))
	}
}

// Log is what happened, when the world keeps it.
func (w *World) Log() string { return strings.Join(w.log, "\n") }

func (w *World) fail(err error) {
	if w.err == nil {
		w.err = err
		w.logf("VIOLATION: %v", err)
	}
}

// Run takes steps under faults, then heals, then demands liveness.
func (w *World) Run(steps int) error {
	for i := 0; i < steps && w.err == nil; i++ {
		w.step()
	}
	w.heal()
	for i := 0; i < 60000 && w.err == nil; i++ {
		w.step()
		if w.settled() {
			return w.final()
		}
	}
	if w.err == nil {
		w.fail(fmt.Errorf("liveness: not settled after healing: record %+v, alpha %+v, beta %+v, %d unanswered",
			w.record, w.nodes[0].view(), w.nodes[1].view(), len(w.inflight)))
	}
	return w.err
}

func (n *node) view() any {
	if n.eng == nil {
		return "down"
	}
	return n.eng.View()
}

func (w *World) quorum(n *node) bool {
	p := n.peer()
	return n.up && !n.paused && ((w.ab && p.up && !p.paused) || (w.aw[n.i] && w.witness))
}

// step lets one thing happen.
func (w *World) step() {
	w.now += time.Duration(w.rng.IntN(2_000_000))
	switch r := w.rng.IntN(100); {
	case r < 3 && !w.healing:
		w.fault()
	case r < 25:
		w.work(w.nodes[w.rng.IntN(2)])
	case r < 50:
		w.deliver(w.rng.IntN(2))
	case r < 60:
		w.govern(w.nodes[w.rng.IntN(2)])
	case r < 68:
		w.submit()
	case r < 72:
		w.connect()
	case r < 76:
		w.tell()
	case r < 80:
		if n := w.nodes[w.rng.IntN(2)]; n.up && !n.paused {
			n.step(&engine.Event{Kind: engine.Tick})
		}
	default:
		w.work(w.nodes[w.rng.IntN(2)])
	}
	if w.nodes[0].holdsPen() && w.nodes[1].holdsPen() {
		w.fail(fmt.Errorf("pen law: both nodes hold the pen"))
	}
	w.compare()
}

// work finishes one of a node's pending units, in any order.
func (w *World) work(n *node) {
	if !n.up || n.paused || len(n.pending) == 0 {
		return
	}
	i := w.rng.IntN(len(n.pending))
	p := n.pending[i]
	if p.can != nil && !p.can() {
		return
	}
	n.pending = slices.Delete(n.pending, i, i+1)
	p.run()
}

// deliver hands over the oldest message to node i, or the end of the session.
func (w *World) deliver(i int) {
	n := w.nodes[i]
	if !n.up || n.paused || n.session == 0 {
		return
	}
	if n.session != w.alive {
		id := n.session
		n.session = 0
		n.step(&engine.Event{Kind: engine.LinkDown, Session: id, Err: fmt.Errorf("connection lost")})
		return
	}
	if len(w.queue[i]) == 0 || !w.ab {
		return
	}
	m := w.queue[i][0]
	w.queue[i] = w.queue[i][1:]
	n.step(&engine.Event{Kind: engine.Received, Session: n.session, Message: m})
}

func (w *World) sendTo(from *node, m *wire.Message) {
	if from.session != w.alive {
		return
	}
	if err := wire.Check(m, len(m.Data)); err != nil {
		w.fail(fmt.Errorf("%s sends what the wire refuses: %w", from.name, err))
	}
	c := *m
	c.Data = append([]byte(nil), m.Data...)
	w.queue[1-from.i] = append(w.queue[1-from.i], &c)
}

func (w *World) endSession() { w.alive = 0; w.queue = [2][]*wire.Message{} }

func (w *World) sessionLost(n *node) {
	if n.session == w.alive {
		w.endSession()
	}
	n.session = 0
}

// connect begins a session once both ends have noticed the end of the last.
func (w *World) connect() {
	a, b := w.nodes[0], w.nodes[1]
	if !w.ab || !a.up || !b.up || a.paused || b.paused || a.session != 0 || b.session != 0 {
		return
	}
	w.sessions++
	w.alive = w.sessions
	a.session, b.session = w.alive, w.alive
	first, second := a, b
	if w.rng.IntN(2) == 0 {
		first, second = b, a
	}
	first.step(&engine.Event{Kind: engine.LinkUp, Session: w.alive, Path: "crossover"})
	if second.session != 0 {
		second.step(&engine.Event{Kind: engine.LinkUp, Session: second.session, Path: "crossover"})
	}
}

// tell brings the ledger's record to a node that can hear it.
func (w *World) tell() {
	n := w.nodes[w.rng.IntN(2)]
	if w.quorum(n) && w.views[n.i] != w.record.Token {
		w.views[n.i] = w.record.Token
		n.record(w.copyRecord())
	}
}

func (w *World) copyRecord() wire.Record {
	r := w.record
	r.InSync = slices.Clone(r.InSync)
	return r
}

func (w *World) changeInSync(n *node, who string, token uint64, include bool) error {
	if w.record.Token != token {
		return engine.ErrStaleToken
	}
	if include {
		if !slices.Contains(w.record.InSync, who) {
			w.record.InSync = append(slices.Clone(w.record.InSync), who)
			slices.Sort(w.record.InSync)
			w.record.Token++
			n.peer().lossy = false
		}
	} else if i := slices.Index(w.record.InSync, who); i >= 0 {
		if who == w.record.Primary {
			return engine.ErrStaleToken // the ledger never takes the Primary out
		}
		if len(w.record.InSync) == 1 {
			w.fail(fmt.Errorf("%s empties the in-sync set", n.name))
		}
		w.record.InSync = slices.Delete(slices.Clone(w.record.InSync), i, i+1)
		w.record.Token++
	}
	w.logf("%s: ledger now %+v", n.name, w.record)
	return nil
}

// submit lets the Primary's application do something. Overlapping requests of
// one application are made one after the other.
func (w *World) submit() {
	n := w.nodes[w.rng.IntN(2)]
	if !n.up || n.paused || len(w.inflight) > 12 {
		return
	}
	if v := n.eng.View(); v.Role != state.Primary || n.demoting || n.promoting != 0 {
		return
	}
	r := &block.Request{}
	q := &request{node: n, life: n.life}
	spot := int64(w.rng.IntN(10)) * (2 << 20)
	r.Offset = spot + int64(w.rng.IntN(24))*512
	r.Length = int64(1+w.rng.IntN(20)) * 512
	switch k := w.rng.IntN(20); {
	case k < 2:
		r.Op, r.Offset, r.Length = block.Flush, 0, 0
		q.before = w.hist.Snapshot()
	case k < 6:
		r.Op, r.Data = block.Read, make([]byte, r.Length)
	case k < 8:
		r.Op = block.WriteZeroes
		if k == 7 {
			r.Op = block.Discard
		}
		q.version = w.hist.Submit(r.Offset, r.Length, true)
	default:
		r.Op, r.Data = block.Write, make([]byte, r.Length)
		q.version = w.hist.Submit(r.Offset, r.Length, false)
		for i := int64(0); i < r.Length; i += 512 {
			binary.LittleEndian.PutUint64(r.Data[i:], uint64(q.version))
		}
		if w.rng.IntN(8) == 0 {
			r.Flags = block.FUA
		}
	}
	w.inflight[r] = q
	n.step(&engine.Event{Kind: engine.Submitted, Request: r})
}

// answered judges what an application is told.
func (w *World) answered(n *node, r *block.Request, err error) {
	q, ok := w.inflight[r]
	if !ok {
		w.fail(fmt.Errorf("%s answers %s twice", n.name, r))
		return
	}
	delete(w.inflight, r)
	if err != nil {
		return
	}
	w.answers++
	if !n.holdsPen() {
		w.fail(fmt.Errorf("pen law: %s answers %s without a lease", n.name, r))
	}
	switch r.Op {
	case block.Read:
		for i := int64(0); i < r.Length; i += 512 {
			found := check.Version(binary.LittleEndian.Uint64(r.Data[i:]))
			if e := w.hist.Check(int((r.Offset+i)/512), found); e != nil {
				w.fail(fmt.Errorf("%s answers %s: %w", n.name, r, e))
			}
		}
	case block.Flush:
		w.hist.Flushed(q.before)
	default:
		w.hist.Acked(q.version)
	}
}
