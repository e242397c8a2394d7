package sim

import (
	"errors"
	"fmt"
	"slices"

	"hapair/mirror/engine"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/test/check"
)

// fork is what an operator's force leaves behind, until the two copies are in line
// again: what was answered before is on one of them, and the other goes on without it.
type fork struct {
	left  *node            // it was left behind
	hists []*check.History // by volume, what was answered and only it has; nil: nothing
	given bool             // it may be overwritten
	bare  bool             // it was forced itself, and has answered nothing
}

// NewForce makes a world in which operators promote by force copies that are not
// current, while the one that is cannot be reached, and make up their mind later about
// which of the two is given up.
func NewForce(seed uint64, keepLog bool) *World {
	w := New(seed, keepLog)
	w.forces = true
	return w
}

// forceTrouble is what may come between any two steps of such a world.
func (w *World) forceTrouble() {
	if w.one(8) {
		w.keeps()
	}
	n := w.nodes[w.rng.IntN(2)]
	switch {
	case !n.up || n.paused || n.command != 0 || n.eng.Role() != state.Secondary:
	case w.one(w.every/4+1) && w.mayForce(n) && w.happens("force"):
		w.force(n)
	case (w.soon && w.one(4) || w.one(w.every)) && w.fork == nil && w.behind(n) && w.happens("disaster"):
		w.disaster(n.peer())
	case w.one(w.every) && w.forcedInVain(n):
		w.grant(n, true)
	case w.fork != nil && n == w.fork.left && w.one(4*w.every) && w.happens("discard"):
		n.step(&engine.Event{Kind: engine.DiscardData})
	}
}

// mayForce: an operator would think of it. The copy is not current, and holds data; the
// other is out of reach, does not serve, and is sound.
func (w *World) mayForce(n *node) bool {
	p := n.peer()
	apart := n.session == 0 && (!w.ab || !p.up || p.paused)
	holder := w.leaseHolder == p.i && w.now < w.leaseUntil
	sound := !p.bad && !p.lost && !p.lossy && !p.broken() && !p.old
	holds := !n.bad && !n.old && !n.broken() && !slices.ContainsFunc(n.vols, func(v *volume) bool { return v.super.Gen == genid.New() })
	return apart && !holder && sound && holds && w.quorum(n) && !slices.Contains(w.record.InSync, n.name) && (w.fork == nil || !w.fork.given)
}

// behind: only the peer's copy is current.
func (w *World) behind(n *node) bool {
	return len(w.record.InSync) == 1 && w.record.InSync[0] == n.peer().name
}

// disaster takes the only current copy out of reach, for long.
func (w *World) disaster(p *node) {
	w.soon = false
	w.ab, w.witness, w.aw[1-p.i], w.aw[p.i] = false, true, true, false
	w.endSession()
	if p.up && w.one(2) {
		p.crash(false)
	}
	w.now += leaseFor
	w.logf("%s is out of reach", p.name)
}

// force is hactl promote --force: the ledger is told that this copy alone counts.
func (w *World) force(n *node) {
	w.logf("%s is promoted by force", n.name)
	n.record(w.record) // who is forced has heard that it is not current
	r := w.record
	r.Token++
	r.Primary, r.InSync = "", []string{n.name}
	w.setRecord(r)
	var kept []*check.History
	if w.fork != nil && !n.lost {
		kept = w.fork.hists
	}
	w.fork, n.forced = &fork{left: n.peer(), bare: n.peer().forced}, true
	n.lossy, n.lost, n.crashed, n.mine, n.peer().forced = false, false, false, kept, false
	w.grant(n, true)
}

// atDisk: something is on its way to a disk of the node, from the session before.
func (n *node) atDisk() bool {
	return len(n.parked) > 0 || slices.ContainsFunc(n.pending, func(p *work) bool { return p.request != nil && p.request.Op.Changes() })
}

// part: what n has counts from now on, and what its peer has is kept. Nothing was
// answered since it was promoted.
func (w *World) part(n *node) {
	n.forced = false
	if w.fork == nil || w.fork.left == n {
		return // the two are in line again
	}
	whole := w.lacking(n) == nil
	hists := n.mine // it was left behind once, and has what it had
	if hists == nil || n.lost {
		hists, n.lost, n.crashed, n.lossy = nil, false, false, false
		for i, h := range w.hists {
			hists = append(hists, h.Fork(func(sector int) check.Version { return n.vols[i].disk.at(sector) }))
		}
	}
	for i, h := range w.hists {
		hists[i].After(h) // no version is given twice
	}
	if !whole && !w.fork.bare { // else nothing is left behind; what was flushed is so on the other only
		w.fork.hists = w.hists
	}
	w.hists, w.order, n.mine = hists, w.order.On(hists), nil
	w.fork.given = w.fork.given || !n.byForce // it died in between, and its copy has not heard of the force: the other may be overwritten
	w.logf("what %s has is kept, what %s has counts", w.fork.left.name, n.name)
	w.troubles["parted"]++
}

// keeps is the law of this world: what was answered before a force is on the copy that
// has it, until somebody gives that up.
func (w *World) keeps() {
	f := w.fork
	if f == nil || f.given || f.hists == nil {
		return
	}
	if n := f.left; n.bad || n.lost || n.broken() {
		w.logf("%s has had trouble of its own", n.name)
		f.given = true // two failures: what it may have lost is another world's matter
		return
	}
	for i, h := range f.hists {
		for _, s := range h.Touched() {
			if err := h.Check(s, f.left.holds(i, s)); err != nil {
				w.fail(fmt.Errorf("%s was left behind by a force, and is overwritten though nobody gave it up: volume %d: %w", f.left.name, i, err))
				return
			}
		}
	}
}

// split reports whether a node may stand alone for a split brain.
func (w *World) split(err error) bool {
	if w.fork == nil || !errors.Is(err, engine.ErrSplitBrain) {
		return false
	}
	w.troubles["split"]++
	return true
}

// discarded: an operator's word that a side may be overwritten was taken, or not.
func (w *World) discarded(n *node, err error) {
	if err != nil || w.fork == nil || n != w.fork.left {
		return
	}
	w.fork.given = true
	for _, n := range w.nodes {
		n.standAlone = false // hactl connect
	}
}

// forcedInVain: it died between the ledger's word and its own.
func (w *World) forcedInVain(n *node) bool {
	return n.forced && w.quorum(n) && w.record.Primary != n.peer().name && slices.Contains(w.record.InSync, n.name)
}

// resolve ends the split brain of a world that heals.
func (w *World) resolve() {
	if w.fork == nil || !w.one(50) {
		return
	}
	if n := w.fork.left.peer(); n.up && !n.paused && n.command == 0 && n.eng.Role() == state.Secondary && w.forcedInVain(n) {
		w.grant(n, true)
		return
	}
	if n := w.fork.left; n.up && n.command == 0 && n.eng.Role() == state.Secondary {
		n.step(&engine.Event{Kind: engine.DiscardData})
	}
}
