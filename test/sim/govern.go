package sim

import (
	"fmt"
	"slices"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// govern does for a node what plan and lease do: renew, promote, step down.
func (w *World) govern(n *node) {
	if w.play != nil && !w.healing {
		w.play.govern(n)
		return
	}
	if w.healing && !n.up {
		n.start()
	}
	if !n.up || n.paused {
		return
	}
	role := n.eng.Role()
	switch {
	case n.command == engine.Abort:
	case n.deposed, role == state.Primary && n.broken() && w.one(100):
		n.deposed, n.leaseTenure = false, 0
		n.run(&engine.Event{Kind: engine.Abort, Err: block.ErrNotPrimary})
	case n.command != 0:
		w.renew(n)
	case role == state.Primary:
		w.renew(n)
		if n.broken() && w.one(20) {
			n.attach()
			return
		}
		if v := n.eng.View(); w.one(60) && !w.healing && v.InFlight+v.Waiting == 0 {
			n.run(&engine.Event{Kind: engine.Demote})
			w.downUntil = w.now + time.Second
		}
	case n.broken() && w.one(10):
		n.crash(false) // somebody changes the cable and starts it again
	case w.grows && w.now < w.downUntil && !w.healing: // its operator wants it down
	default:
		w.promote(n)
	}
}

// run gives a node a command.
func (n *node) run(ev *engine.Event) {
	n.w.logf("%s: command %d", n.name, ev.Kind)
	n.command = ev.Kind
	n.step(ev)
}

func (n *node) replied(of engine.EventKind, err error) {
	n.w.logf("%s: reply to %d: %v", n.name, of, err)
	if p := n.w.play; p != nil && p.reply != nil {
		p.reply(n, of, err)
	}
	if of == engine.DiscardData && n.w.forces {
		n.w.discarded(n, err)
	}
	if of == engine.Pause || of == engine.Resume || of != n.command {
		return
	}
	n.command = 0
	switch {
	case of == engine.Abort && n.broken(), of == engine.Demote && err == nil:
		n.w.demoted(n)
	case of == engine.Invalidate && err == nil:
		n.standAlone = false
	case of == engine.Detach && err == nil:
		n.detachedNow()
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
	w.judge(w.pen.Granted(w.now, n.name, w.leaseUntil))
	if n.forced && n.atDisk() {
		return // what it will have is not known yet
	}
	if !n.judged && n.command == 0 {
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
	if !w.quorum(n) || !slices.Contains(w.record.InSync, n.name) || !w.one(4) || w.mayNot(n) != "" {
		return
	}
	n.lossy = n.lossy || n.eng.View().Suspect
	w.grant(n, false)
}

// grant has the ledger name a node that then takes its place, by force or not.
func (w *World) grant(n *node, force bool) {
	n.judged, n.byForce = false, force
	r := w.record
	r.Token++
	r.Tenure, r.Primary = r.Token, n.name
	w.leaseHolder, w.leaseUntil = n.i, w.now
	w.pen.Returned(n.name) // of an earlier tenure, which it knows to be over
	n.leaseTenure, n.answers = r.Tenure, false
	w.setRecord(r)
	if !w.one(3) { // else the node hears of its promotion before its replica shows it
		w.views[n.i] = r.Token
		n.record(r)
	}
	n.run(&engine.Event{Kind: engine.Promote, Tenure: r.Tenure, Force: force})
	n.fence.Told(n.eng.View().Seen)
}

// mayNot says what keeps a node with a quorum that is in the set from being
// promoted, "" if nothing does.
func (w *World) mayNot(n *node) string {
	p, v := n.peer(), n.eng.View()
	switch {
	case w.leaseHolder >= 0 && w.leaseHolder != n.i && w.now < w.leaseUntil:
		return "a lease still runs"
	case w.healing && w.record.Primary == p.name && p.leaseTenure != 0:
		return "its peer is about to be Primary"
	case !n.serves() || n.old && n.bad && w.lacking(n) != nil || v.Replication == state.SyncTarget:
		return "its copy cannot serve"
	case v.Suspect && w.ab && p.serves() && slices.Contains(w.record.InSync, p.name) && !p.eng.View().Suspect:
		return "it crashed, and its peer is healthy"
	}
	return ""
}

// judgePrimary looks at the copy that is about to be served. One that came back
// from a crash with nobody healthy in reach may have lost what was not flushed.
func (w *World) judgePrimary(n *node) {
	if n.broken() {
		return // it failed while it was promoted: nothing of it is served
	}
	if n.forced {
		w.part(n)
		return
	}
	if !n.lossy {
		w.inOrder(n, true)
	}
	w.cut(n)
	if n.lossy {
		w.rebase(n)
		return
	}
	w.checkCopy(n, "is Primary")
}

func (w *World) demoted(n *node) {
	if w.quorum(n) && w.record.Primary == n.name {
		r := w.record
		r.Token++
		r.Primary = ""
		w.setRecord(r)
		if w.leaseHolder == n.i {
			w.leaseUntil = w.now
			w.pen.Returned(n.name)
		}
	}
	n.leaseTenure = 0
}

// recount: a flush that waits cannot cover what is lost already.
func (w *World) recount() {
	for _, q := range w.inflight {
		if q.before != nil {
			q.before = w.hists[q.vol].Snapshot()
		}
	}
}

// rebase accepts what no mirror of two can keep: after a double failure, what
// was answered and never flushed.
func (w *World) rebase(n *node) {
	n.lossy, n.lost, n.crashed = false, false, false
	defer w.recount()
	w.logf("what %s has counts", n.name)
	w.inOrder(n, false)
	for i, v := range n.vols {
		for _, s := range w.hists[i].Touched() {
			if err := w.hists[i].Rebase(s, v.disk.at(s)); err != nil {
				w.fail(fmt.Errorf("%s, volume %d: %w", n.name, i, err))
				return
			}
		}
	}
}
