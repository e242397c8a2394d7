package sim

import (
	"errors"
	"fmt"
	"slices"

	"hapair/mirror/engine"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// errUndecided is a ledger that nobody could ask in time.
var errUndecided = errors.New("the ledger does not decide")

// setRecord is a commit.
func (w *World) setRecord(r wire.Record) {
	r.InSync = slices.Clone(r.InSync)
	w.record = r
	w.past = append(w.past, r)
	w.logf("ledger: %+v", r)
}

// tell brings the ledger's record to a node that can hear it; sometimes one
// that is long past.
func (w *World) tell() {
	n := w.nodes[w.rng.IntN(2)]
	if n.up && !n.paused && w.one(8) {
		n.record(w.past[w.rng.IntN(len(w.past))])
		return
	}
	if w.one(w.lag) && w.quorum(n) && w.views[n.i] != w.record.Token {
		w.views[n.i] = w.record.Token
		n.record(w.record)
	}
}

// asked is a change of the in-sync set that a node asks for, and how the node was
// then: it may be another when that is decided.
type asked struct {
	change  engine.EffectKind
	who     string
	token   uint64
	broken  bool
	crashed bool
}

// changeInSync is one change of the in-sync set, decided now; the node hears
// of it later.
func (w *World) changeInSync(n *node, a asked) error {
	change, who := a.change, a.who
	if w.record.Token != a.token {
		return engine.ErrStaleToken
	}
	r := w.record
	in, include := slices.Contains(r.InSync, who), change == engine.LedgerInclude
	switch {
	case change == engine.LedgerGiveUp && in:
		if r.Primary != who || len(r.InSync) == 1 {
			return engine.ErrStaleToken
		}
		if !n.broken() {
			w.fail(fmt.Errorf("%s leaves the in-sync set with a good copy", n.name))
		}
		r.InSync = slices.DeleteFunc(slices.Clone(r.InSync), func(s string) bool { return s == who })
	case change == engine.LedgerLeave && in:
		if r.Primary == who {
			return engine.ErrStaleToken
		}
		if !n.dispensable() {
			return errUndecided // the good copy has got into trouble meanwhile: let nobody have been asked
		}
		n.bad = true // as good as given up
		r.InSync = slices.DeleteFunc(slices.Clone(r.InSync), func(s string) bool { return s == who })
	case include && !in:
		r.InSync = append(slices.Clone(r.InSync), who)
		slices.Sort(r.InSync)
		if who == n.name { // it was filled as Primary
			w.included(n.peer(), n)
		} else {
			w.included(n, n.peer())
		}
	case !include && in && who == r.Primary:
		return engine.ErrStaleToken // the ledger never takes the Primary out
	case !include && in:
		if len(r.InSync) == 1 {
			w.fail(fmt.Errorf("%s empties the in-sync set", n.name))
			return nil
		}
		r.InSync = slices.DeleteFunc(slices.Clone(r.InSync), func(s string) bool { return s == who })
		if p := n.peer(); n.broken() && a.broken && !p.broken() && !p.bad {
			w.fail(fmt.Errorf("%s, whose disk has failed, takes the healthy %s out of the set", n.name, p.name))
		}
		if p := n.peer(); n.crashed && a.crashed && !n.lossy && w.record.Primary != n.name && p.up && !p.crashed && !p.bad && !p.lossy && w.lacks(n, p) {
			w.fail(fmt.Errorf("%s came back from a crash and takes %s, which did not crash, out of the set", n.name, p.name))
		}
	default:
		return nil
	}
	r.Token++
	w.soon = w.forces && len(r.InSync) < len(w.record.InSync) && w.one(2)
	w.setRecord(r)
	return nil
}

// lacks: a copy has not all that its peer's has.
func (w *World) lacks(n, p *node) bool {
	for i := range n.vols {
		for _, s := range w.hists[i].Touched() {
			if n.holds(i, s) != p.holds(i, s) {
				return true
			}
		}
	}
	return false
}

// included: the target has everything that the source has.
func (w *World) included(source, target *node) {
	if source.lossy {
		w.rebase(source)
	}
	source.lost, source.crashed = false, false
	if source.session == 0 || source.session != target.session {
		return // it may have crashed since its last word; the next handshake tells
	}
	// Since its last word it may have been invalidated, or its disk may have failed.
	bad := target.up && target.anyDisk(func(d state.Disk) bool { return !d.CanServe() && d != state.Outdated })
	target.lossy, target.lost, target.bad, target.crashed = false, false, bad, false
	w.inLine(target)
	w.fork = nil
	w.logf("%s is in line with %s", target.name, source.name)
}
