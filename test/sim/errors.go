package sim

import (
	"time"

	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// frozenFor is what a throw of the dice lets pass while I/O is frozen: longer than
// it waits for a lease, mirror/engine's frozenMax.
const frozenFor = 11 * time.Second

// told is a world in which applications are told of errors instead of waiting or
// not noticing. Nodes lose their quorum, most with the peer, for longer than frozen
// I/O waits: with on_no_quorum: error it fails then, and so does what comes, until
// there is a lease again. An operator changes his mind about that now and then. In
// every second seed on_io_error is pass-on as well.
type told struct {
	failFrozen [2]bool // by node
	passOn     bool
}

// NewErrors makes such a world.
func NewErrors(seed uint64, keepLog bool) *World {
	w := New(seed, keepLog)
	w.told = &told{failFrozen: [2]bool{true, true}, passOn: seed%2 == 1}
	for _, n := range w.nodes { // again, by these settings
		n.stop()
		n.start()
	}
	return w
}

// quorumTrouble is what may come between any two steps of such a world.
func (w *World) quorumTrouble() {
	n := w.nodes[w.rng.IntN(2)]
	switch {
	case !n.up || n.paused || n.eng.Role() != state.Primary:
	case w.one(w.every) && w.happens("no-quorum"):
		w.witness = false
		if w.ab = w.one(4); !w.ab { // else its peer is its quorum, and only the lease was lost
			w.endSession()
		}
		n.renew(0)
		w.logf("%s has no quorum (data link up %v)", n.name, w.ab)
	case !n.holdsPen() && w.one(20) && w.happens("frozen"):
		w.now += frozenFor
		n.step(&engine.Event{Kind: engine.Tick})
	case w.one(4*w.every) && w.happens("on-no-quorum"):
		w.told.failFrozen[n.i] = !w.told.failFrozen[n.i]
		w.logf("%s is configured to fail what is frozen: %v", n.name, w.told.failFrozen[n.i])
		n.step(&engine.Event{Kind: engine.Configure, Settings: w.settings(n)})
	}
}
