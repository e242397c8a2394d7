// Package sim is a seeded world for the mirror engine: two data nodes with
// volatile disks that fail, a witness, links that break, a ledger whose
// replicas lag, operators at bad moments, crashes between any two events. The
// same seed gives the same run. The laws are checked at every step (package
// check); then the world heals and liveness is demanded.
package sim

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/genid"
	"hapair/mirror/wire"
	"hapair/test/check"
)

const (
	leaseFor = 400 * time.Millisecond
	// healSteps is how long a healed world may take to settle.
	healSteps = 60000
)

// World is one run.
type World struct {
	rng   *rand.Rand
	now   time.Duration
	sizes []int64 // of the volumes
	slots int
	every int // steps between faults, on average
	mends int // steps until one of them is mended
	lag   int // of the nodes' replicas of the ledger
	ids   genid.ID
	nodes [2]*node

	// the witness and the links; ab is the data link, aw[i] node i to witness
	witness bool
	ab      bool
	aw      [2]bool

	record      wire.Record
	past        []wire.Record // every record there was
	leaseHolder int           // node index, -1
	leaseUntil  time.Duration
	views       [2]uint64 // token of the record each node has been told

	sessions uint64
	alive    uint64 // session that carries messages, 0 none
	doomed   bool   // one end wants it to be over; it still carries for a while
	queue    [2][]*wire.Message

	hists     []*check.History
	order     *check.Order // across all volumes
	pen       check.Pen
	inflight  map[*block.Request]*request
	healing   bool
	verifies  bool                     // operators verify
	checks    int                      // then: steps between two, on average
	grows     bool                     // they make volumes larger
	downUntil time.Duration            // then: and keep the resource down, to make one smaller
	shown     []int64                  // the most a volume has shown
	cuts      []int64                  // what it was cut to, until the copies have met with one size; 0: nothing
	blank     map[rotten]check.Version // what was shown of it before anybody wrote there
	soon      bool                     // then: the only copy that is current goes out of reach at once
	forces    bool                     // operators promote by force
	fork      *fork                    // then: what that has left behind
	told      *told                    // applications are told of errors
	givesUp   bool                     // somebody gives up sides for no reason
	hangs     bool                     // disks do not answer
	early     *early                   // applications are answered by another protocol than C
	used      map[int64][][]byte       // then: memory that the application has done with
	parcels   []parcel
	rotted    map[rotten]check.Version // what rotted; nil while nothing has
	sores     map[rotten]bool          // what could not be read, on either node
	troubles  map[string]int           // how often each kind came
	without   map[string]bool          // kinds that do not come in this run
	answers   int
	wide      bool          // the volume has several pages of the bitmap
	reading   bool          // the application reads more than it writes, and in few places
	play      *Scripted     // what goes wrong is a script's; nil: the dice's
	patience  time.Duration // with a peer; 0: without end
	err       error
	log       []string
	keepLog   bool
}

// New makes the world of a seed: both copies equal, both in sync.
func New(seed uint64, keepLog bool) *World {
	w := &World{rng: rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)), witness: true, ab: true, aw: [2]bool{true, true},
		leaseHolder: -1, troubles: map[string]int{}, inflight: map[*block.Request]*request{}, keepLog: keepLog, ids: 100, reading: seed%7 == 6}
	w.slots, w.lag = 2+w.rng.IntN(3), 1+w.rng.IntN(6)
	w.every, w.mends = 30+w.rng.IntN(200), 20+w.rng.IntN(150)
	for range 1 + w.rng.IntN(2) {
		// Neither whole extents nor whole blocks.
		w.sizes = append(w.sizes, 20<<20-int64(w.rng.IntN(3))*(1<<20+3*block.SectorBytes))
	}
	w.setRecord(wire.Record{Token: 1, Tenure: 0, InSync: []string{"alpha", "beta"}})
	for _, size := range w.sizes {
		w.hists = append(w.hists, check.NewHistory(size))
	}
	w.order = check.NewOrder(w.hists)
	w.nodes[0], w.nodes[1] = newNode(w, 0, "alpha"), newNode(w, 1, "beta")
	for _, n := range w.nodes {
		n.start()
	}
	return w
}

func (w *World) newID() genid.ID { w.ids++; return w.ids }

func (w *World) one(in int) bool { return w.rng.IntN(in) == 0 }

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

func (w *World) judge(err error) {
	if err != nil {
		w.fail(err)
	}
}

// Without has kinds of trouble not come. The dice fall as before, so that what
// else happens is much the same.
func (w *World) Without(kinds ...string) {
	w.without = map[string]bool{}
	for _, k := range kinds {
		w.without[k] = true
	}
}

// Troubles is how often each kind of trouble came.
func (w *World) Troubles() map[string]int { return w.troubles }

// Answers is how many requests were answered with success.
func (w *World) Answers() int { return w.answers }

// Run takes steps under faults, then heals, then demands liveness.
func (w *World) Run(steps int) error {
	return w.guarded(func() { w.run(steps) })
}

// guarded turns a panic into what broke.
func (w *World) guarded(fn func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			w.fail(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
		err = w.err
	}()
	fn()
	return nil
}

func (w *World) run(steps int) {
	for i := 0; i < steps && w.err == nil; i++ {
		w.step()
	}
	w.heal()
	w.settle()
}

// settle lets things happen until all is well, which must not take too long.
func (w *World) settle() {
	for i := 0; i < healSteps && w.err == nil; i++ {
		w.step()
		if w.settled() {
			w.final()
			return
		}
	}
	if w.err == nil {
		w.fail(fmt.Errorf("liveness: not settled after healing: record %+v, alpha %+v, beta %+v, %d unanswered",
			w.record, w.nodes[0].view(), w.nodes[1].view(), len(w.inflight)))
	}
}

// step lets one thing happen.
func (w *World) step() {
	w.now += time.Duration(w.rng.IntN(2_000_000))
	switch {
	case w.healing:
		w.resolve()
	case w.play != nil:
		w.play.trouble()
	default:
		w.trouble()
		if w.verifies {
			w.verifyTrouble()
		}
		if w.hangs {
			w.hangTrouble()
		}
		if w.told != nil {
			w.quorumTrouble()
		}
		if w.forces {
			w.forceTrouble()
		}
		if w.grows {
			w.growTrouble()
		}
		if w.early != nil {
			w.earlyTrouble()
		}
	}
	switch r := w.rng.IntN(200); {
	case r < 50:
		w.work(w.nodes[w.rng.IntN(2)])
	case r < 100:
		w.deliver(w.rng.IntN(2))
	case r < 120:
		w.govern(w.nodes[w.rng.IntN(2)])
	case r < 136:
		if w.play == nil || w.play.load {
			w.submit()
		}
	case r < 144:
		w.connect()
	case r < 152:
		w.tell()
	case r < 160:
		if n := w.nodes[w.rng.IntN(2)]; n.up && !n.paused {
			n.step(&engine.Event{Kind: engine.Tick})
		}
	default:
		w.work(w.nodes[w.rng.IntN(2)])
	}
	w.laws()
}

// work finishes one of a node's pending units, in any order.
func (w *World) work(n *node) {
	if !n.up || n.paused || len(n.pending) == 0 {
		return
	}
	if n.slow && !w.one(12) {
		return
	}
	i := w.rng.IntN(len(n.pending))
	p := n.pending[i]
	if p.can != nil && !p.can() || p.disk && n.hung {
		return
	}
	last := len(n.pending) - 1
	n.pending[i] = n.pending[last]
	n.pending[last] = nil
	n.pending = n.pending[:last]
	w.logf("%s", p.what)
	p.run()
}

// extent is the activity-log extent of a sector.
func extent(sector int) uint32 { return uint32(int64(sector) * block.SectorBytes / actlog.ExtentBytes) }
