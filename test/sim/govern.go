package sim

import (
	"fmt"
	"slices"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// govern does for a node what plan and lease do: renew, promote, step down.
func (w *World) govern(n *node) {
	if !n.up || n.paused {
		return
	}
	v := n.eng.View()
	switch {
	case n.deposed && !(n.commanded && n.promoting == 0 && !n.demoting):
		n.deposed, n.commanded, n.promoting, n.demoting = false, true, 0, false
		n.leaseTenure = 0
		n.step(&engine.Event{Kind: engine.Abort, Err: block.ErrNotPrimary})
	case n.commanded:
		w.renew(n)
	case v.Role == state.Primary:
		w.renew(n)
		if w.rng.IntN(60) == 0 && !w.healing && v.InFlight+v.Waiting == 0 {
			n.commanded, n.demoting = true, true
			n.step(&engine.Event{Kind: engine.Demote})
		}
	default:
		w.promote(n)
	}
}

// renew extends the lease of the ledger's Primary while it has a quorum; it is
// counted from the instant the renewal was sent.
func (w *World) renew(n *node) {
	if n.leaseTenure == 0 || !w.quorum(n) || w.record.Primary != n.name || w.record.Tenure != n.leaseTenure {
		return
	}
	if w.leaseHolder != n.i && w.now < w.leaseUntil {
		return
	}
	w.leaseHolder, w.leaseUntil = n.i, w.now+leaseFor
	if !n.judged && !n.commanded {
		n.judged = true
		w.judgePrimary(n)
	}
	if !n.judged {
		return // it serves only once the promotion is complete
	}
	n.renew(w.leaseUntil)
}

// promote follows R2, R8 and the ledger.
func (w *World) promote(n *node) {
	if !w.quorum(n) || !slices.Contains(w.record.InSync, n.name) || w.rng.IntN(4) != 0 {
		return
	}
	if w.leaseHolder >= 0 && w.leaseHolder != n.i && w.now < w.leaseUntil {
		return // a lease still runs
	}
	if w.healing && w.record.Primary != "" && w.record.Primary != n.name && w.nodes[1-n.i].holdsPen() {
		return
	}
	v, p := n.eng.View(), n.peer()
	for _, vol := range v.Volumes {
		if !vol.Disk.CanServe() {
			return
		}
	}
	healthyPeer := p.up && w.ab && slices.Contains(w.record.InSync, p.name) && !p.eng.View().Suspect
	if v.Suspect && healthyPeer || v.Replication == state.SyncTarget {
		return
	}
	n.lossy, n.judged = n.lossy || v.Suspect, false
	w.record.Token++
	w.record.Tenure, w.record.Primary = w.record.Token, n.name
	w.leaseHolder, w.leaseUntil = n.i, w.now
	n.leaseTenure, n.promoting, n.commanded = w.record.Tenure, w.record.Tenure, true
	w.logf("%s: promoted in the ledger: %+v", n.name, w.record)
	w.views[n.i] = w.record.Token
	tenure := n.leaseTenure
	n.record(w.copyRecord())
	n.step(&engine.Event{Kind: engine.Promote, Tenure: tenure})
}

// judgePrimary looks at the copy that is about to be served. One that came back
// from a crash with nobody healthy in reach may have lost what was not flushed.
func (w *World) judgePrimary(n *node) {
	if n.lossy {
		n.lossy = false
		w.rebase(n)
		return
	}
	for s := range n.disk.stable {
		if err := w.hist.Check(s, n.disk.at(s)); err != nil {
			w.fail(fmt.Errorf("%s is Primary: %w", n.name, err))
			return
		}
	}
}

func (w *World) demoted(n *node) {
	if w.quorum(n) && w.record.Primary == n.name && w.record.Tenure == n.leaseTenure {
		w.record.Token++
		w.record.Primary = ""
		if w.leaseHolder == n.i {
			w.leaseUntil = w.now
		}
	}
	n.leaseTenure = 0
}

// cacheLost: the only copy in the set may lose what was never flushed.
func (w *World) cacheLost(n *node) {
	if len(w.record.InSync) == 1 && w.record.InSync[0] == n.name {
		w.rebase(n)
	}
}

func (w *World) rebase(n *node) {
	defer func() { // a flush that waits cannot cover what is lost already
		for _, q := range w.inflight {
			if q.before != nil {
				q.before = w.hist.Snapshot()
			}
		}
	}()
	for s := range n.disk.stable {
		if err := w.hist.Rebase(s, n.disk.at(s)); err != nil {
			w.fail(fmt.Errorf("%s: %w", n.name, err))
			return
		}
	}
}

// fault breaks something, or mends it.
func (w *World) fault() {
	n := w.nodes[w.rng.IntN(2)]
	switch w.rng.IntN(9) {
	case 0, 1:
		if n.up {
			w.failRequests(n)
			n.crash(w.rng.IntN(3) > 0)
			n.paused = false
		}
	case 2, 3, 4:
		if !n.up {
			w.logf("%s starts", n.name)
			n.start()
		}
	case 5:
		w.ab = !w.ab
		w.logf("data link up %v", w.ab)
		if !w.ab {
			w.endSession()
		}
	case 6:
		w.aw[n.i] = !w.aw[n.i]
		w.logf("%s-witness up %v", n.name, w.aw[n.i])
	case 7:
		w.witness = !w.witness
		w.logf("witness up %v", w.witness)
	case 8:
		n.paused = !n.paused && n.up
		w.logf("%s paused %v", n.name, n.paused)
	}
}

// failRequests forgets the requests of a node that dies: nobody is told.
func (w *World) failRequests(n *node) {
	for r, q := range w.inflight {
		if q.node == n {
			delete(w.inflight, r)
		}
	}
}

func (w *World) heal() {
	w.healing, w.ab, w.witness, w.aw = true, true, true, [2]bool{true, true}
	w.logf("the world heals")
	for _, n := range w.nodes {
		n.paused = false
		if !n.up {
			n.start()
		}
	}
}

// quiet: both copies say they are equal and nothing is on its way.
func (w *World) quiet() bool {
	for _, n := range w.nodes {
		if !n.up || len(n.pending) > 0 || n.session == 0 || n.session != w.alive || len(w.queue[n.i]) > 0 {
			return false
		}
		v := n.eng.View()
		if v.Replication != state.Established || v.InFlight > 0 || v.Excluding {
			return false
		}
	}
	return len(w.record.InSync) == 2
}

// compare: copies that say they are equal are equal.
func (w *World) compare() {
	if w.rng.IntN(8) != 0 || !w.quiet() {
		return
	}
	a, b := w.nodes[0].disk, w.nodes[1].disk
	for s := range a.stable {
		if a.at(s) != b.at(s) {
			w.fail(fmt.Errorf("copies differ while both say Established: sector %d is %d and %d", s, a.at(s), b.at(s)))
			return
		}
	}
}

// settled: one Primary with a lease, both copies in sync, everything answered.
func (w *World) settled() bool {
	return w.quiet() && len(w.inflight) == 0 && (w.nodes[0].holdsPen() || w.nodes[1].holdsPen())
}

func (w *World) final() error {
	for _, n := range w.nodes {
		for s := range n.disk.stable {
			if err := w.hist.Check(s, n.disk.at(s)); err != nil {
				w.fail(fmt.Errorf("at the end, %s: %w", n.name, err))
				return w.err
			}
		}
	}
	return w.err
}

// Answers is how many requests were answered with success.
func (w *World) Answers() int { return w.answers }
