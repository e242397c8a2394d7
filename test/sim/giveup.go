package sim

import (
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// NewGiveUp is a world in which a Secondary is told again and again to give up what
// only it has, though there is no split brain: where it has something that counts,
// the ledger has to keep it.
func NewGiveUp(seed uint64, keepLog bool) *World {
	w := New(seed, keepLog)
	w.givesUp = true
	return w
}

func (w *World) giveUp() {
	n := w.nodes[w.rng.IntN(2)]
	if n.up && !n.paused && n.command == 0 && n.eng.Role() == state.Secondary && w.happens("give-up") {
		n.step(&engine.Event{Kind: engine.DiscardData})
	}
}
