package sim

import (
	"errors"
	"fmt"
	"slices"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/engine"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// perform carries out one effect, or queues it.
func (n *node) perform(f *engine.Effect) {
	switch f.Kind {
	case engine.LocalIO:
		n.localIO(f)
	case engine.PeerSend:
		if f.Session == n.session {
			if m := &f.Message; m.Flags&wire.Resync == 0 && m.Kind.Changes() {
				n.covered(m)
				n.w.sends(n, m)
			}
			n.w.sendTo(n, &f.Message)
		}
	case engine.Answer:
		n.w.answered(n, f.Request, f.Err)
	case engine.DropLink:
		n.w.logf("%s drops session %d: %v", n.name, f.Session, f.Err)
		n.w.doomed = n.w.doomed || f.Session == n.w.alive && f.Session != 0
	case engine.RestLink:
		n.w.logf("%s leaves its peer alone for %v: %v", n.name, f.For, f.Err)
		n.restTo = n.w.now + f.For/20
		n.w.doomed = n.w.doomed || f.Session == n.w.alive && f.Session != 0
	case engine.AbandonDisk:
		n.abandon(f.Volume)
	case engine.StandAlone:
		n.goStandAlone(f)
	case engine.Deposed:
		n.w.logf("%s is deposed: %v", n.name, f.Err)
		n.deposed = true
	case engine.Reply:
		if f.Of == engine.Resize {
			n.w.resized(n, f.Err)
			return
		}
		n.replied(f.Of, f.Err)
	case engine.Digest:
		n.digest(f)
	case engine.Proven:
		n.w.logf("%s: volume %d is equal in %d+%d", n.name, f.Volume, f.Offset, f.Size)
	case engine.Note, engine.Problem:
		n.w.logf("%s: %s", n.name, f.Text)
	default:
		n.performMeta(f)
	}
}

// goStandAlone: in this world only a detach and a failed disk are reasons, and
// a disk that was in a drawer for too long.
func (n *node) goStandAlone(f *engine.Effect) {
	for _, stranger := range n.w.nodes {
		if stranger.old && stranger.up && errors.Is(f.Err, engine.ErrUnrelated) {
			n.w.logf("%s is a stranger", stranger.name)
			stranger.drawer = nil
			stranger.exchange()
			return
		}
	}
	if n.command != engine.Detach && !n.broken() && !n.w.split(f.Err) {
		n.w.fail(fmt.Errorf("%s goes StandAlone: %w", n.name, f.Err))
	}
	n.standAlone = true
	n.w.doomed = n.w.doomed || f.Session == n.w.alive && f.Session != 0
}

func (n *node) localIO(f *engine.Effect) {
	r, v := f.Request, n.vols[f.Volume]
	behind := n.behind(v, r)
	if r.Op.Changes() && !behind {
		if n.fills(r) {
			if v.super.Disk != state.Inconsistent || !v.super.FullSync {
				n.w.fail(fmt.Errorf("mark law: %s fills a copy that is %s on disk", n.name, v.super.Disk))
			}
		} else if n.unpark(f.Volume, r) {
		} else if n.taking == nil || !n.taking.Kind.Changes() {
			n.hot(f.Volume, r.Offset, r.Length, r.String())
		} else {
			n.w.judge(n.fence.Takes(n.taking.Token, r.String()))
		}
	}
	fail := func(err error) { n.step(&engine.Event{Kind: engine.LocalDone, Request: r, Err: err}) }
	if n.given[f.Volume] {
		n.later(&work{what: n.name + " is refused " + r.String(), run: func() { fail(errHangs) }})
		return
	}
	n.later(&work{what: fmt.Sprintf("%s %d %s", n.name, f.Volume, r), disk: true, volume: f.Volume, request: r, fail: fail, ghost: n.ghost(v, r), run: func() {
		if behind && !n.behind(v, r) {
			n.w.fail(fmt.Errorf("%s zeroes %s, which has come to be of the volume", n.name, r))
		}
		err := n.ail(r.Op)
		if err == nil {
			err = n.latent(f.Volume, r)
		}
		if err == nil {
			v.disk.apply(r)
			n.w.done(n, f.Volume, r)
		} else {
			v.disk.spoil(r, n.w.rng)
		}
		n.step(&engine.Event{Kind: engine.LocalDone, Request: r, Err: err})
	}, torn: func() { v.disk.tear(r, n.w.rng) }})
}

// done notes that the disk of a node has done what an application asked it for.
func (w *World) done(n *node, vol int, r *block.Request) {
	for asked, q := range w.inflight {
		if q.node == n && q.vol == vol && asked.Op == r.Op && asked.Offset == r.Offset && asked.Length == r.Length {
			q.here = true
		}
	}
}

// fills: the node writes what it was just given because it lacks it, as a Primary.
func (n *node) fills(r *block.Request) bool {
	m := n.taking
	return m != nil && m.Kind == wire.Data && uint64(r.Offset) == m.Offset && uint64(r.Length) == m.Length && n.eng.Replication() == state.Forwarding
}

// covered: what is about to change at the peer is marked somewhere that a crash
// leaves alone: in the activity log here, or at the peer, which has the only copy.
func (n *node) covered(m *wire.Message) {
	// Once the ledger counts a copy that was filled, the peer's marks go, and the
	// sender may not know yet; its own log has what it sends.
	counted := !n.broken() && n.vols[m.Volume].super.Disk == state.UpToDate && slices.Contains(n.w.record.InSync, n.name)
	if n.eng.Replication() != state.Forwarding || counted {
		n.hot(int(m.Volume), int64(m.Offset), int64(m.Length), "sends "+m.Kind.String())
		return
	}
	marked := n.peer().marked(int(m.Volume))
	for off := m.Offset; off < m.Offset+m.Length; off += block.SectorBytes {
		if !marked(int(off / block.SectorBytes)) {
			n.w.fail(fmt.Errorf("mark law: %s has %s done by %s alone, and sector %d is not marked there", n.name, m, n.peer().name, off/block.SectorBytes))
			return
		}
	}
}

// hot is the first half of the mark law.
func (n *node) hot(vol int, offset, length int64, what string) {
	v := n.vols[vol]
	extents, err := actlog.Hotset(v.transactions(), n.w.slots)
	n.w.judge(err)
	for e := offset / actlog.ExtentBytes; e <= (offset+length-1)/actlog.ExtentBytes; e++ {
		found := false
		for _, h := range extents {
			found = found || int64(h) == e
		}
		if !found {
			n.w.fail(fmt.Errorf("mark law: %s %s of volume %d before extent %d is durably hot", n.name, what, vol, e))
		}
	}
}

// performMeta is what becomes durable on this node's metadata or in the ledger.
func (n *node) performMeta(f *engine.Effect) {
	var v *volume
	if f.Volume < len(n.vols) {
		v = n.vols[f.Volume]
	}
	vol := f.Volume
	switch f.Kind {
	case engine.WriteActivity:
		tx := f.Activity
		n.meta("activity", func(bool) { v.ring[tx.Number%uint64(actlog.RingBlocks(n.w.slots))] = tx }, engine.Event{Kind: engine.ActivityDone, Volume: vol})
	case engine.WritePages:
		n.writePages(v, f)
	case engine.WriteSuper:
		super := *f.Super
		if n.command == engine.Invalidate && n.counted && super.FullSync && !v.super.FullSync && slices.Contains(n.w.record.InSync, n.name) {
			n.w.fail(fmt.Errorf("%s gives its copy up, and is in the in-sync set", n.name))
		}
		n.meta("super", func(bool) { v.super = super }, engine.Event{Kind: engine.SuperDone, Volume: vol, Version: f.Version})
	case engine.FitSize:
		super, size := *f.Super, f.Size
		n.meta("fit", func(bool) { v.lay(size, super) }, engine.Event{Kind: engine.SizeFitted, Volume: vol})
	case engine.RemakeMeta:
		n.remake(f)
	case engine.MeasureDisk:
		run := func() {
			n.step(&engine.Event{Kind: engine.Measured, Volume: vol, Room: max(n.room[vol], v.size), Ceiling: n.ceiling(vol)})
		}
		if !n.w.grows {
			run() // no dice: the stories of other worlds stay what they were
			return
		}
		n.later(&work{what: n.name + " measures", run: run})
	case engine.LedgerExclude, engine.LedgerInclude, engine.LedgerGiveUp, engine.LedgerLeave:
		n.ledger(f.Kind, f.Node, f.Token)
	default:
		n.w.fail(fmt.Errorf("unknown effect %d", f.Kind))
	}
}

// writePages is a write of neighbours: when it is cut off, each of them may be there.
func (n *node) writePages(v *volume, f *engine.Effect) {
	first, data := f.Page, append([]byte(nil), f.Payload...)
	n.meta("pages", func(cut bool) {
		for i := range len(data) / dirty.PageBytes {
			if len(data) == dirty.PageBytes || !cut || n.w.one(2) {
				v.pages[first+i] = data[i*dirty.PageBytes:][:dirty.PageBytes]
			}
		}
	}, engine.Event{Kind: engine.PagesDone, Volume: f.Volume})
}

// meta has store carried out, in part when it is cut off, and done told.
func (n *node) meta(what string, store func(cut bool), done engine.Event) {
	fail := func(err error) {
		done.Err = err
		n.step(&done)
	}
	if n.given[done.Volume] {
		n.later(&work{what: n.name + " is refused " + what, run: func() { fail(errHangs) }})
		return
	}
	n.later(&work{what: fmt.Sprintf("%s %d %s", n.name, done.Volume, what), torn: func() { store(true) }, disk: true, volume: done.Volume, fail: fail,
		ghost: func() func() { return func() { store(true) } }, run: func() {
			if done.Err = n.ail(block.Write); done.Err == nil || n.w.one(2) {
				store(done.Err != nil)
			}
			n.step(&done)
		}})
}

// ledger asks for a change; when it is decided, the answer travels on its own.
func (n *node) ledger(change engine.EffectKind, who string, token uint64) {
	n.asking++
	a := asked{change, who, token, n.broken(), n.crashed}
	what := fmt.Sprintf("%s ledger: change %d of %s at %d", n.name, change, who, token)
	n.later(&work{what: what, can: func() bool { return n.w.quorum(n) },
		torn: func() { n.w.judgeLater(n.w.changeInSync(n, a)) },
		run: func() {
			n.asking--
			err := n.w.changeInSync(n, a)
			r := n.w.record
			n.later(&work{what: n.name + " hears of it", can: func() bool { return n.w.one(6) }, run: func() {
				n.fence.Told(r.Tenure)
				n.step(&engine.Event{Kind: engine.LedgerDone, Record: r, Err: err})
			}})
		}})
}

// judgeLater: who asked is gone, so nobody minds a lost race.
func (w *World) judgeLater(err error) {
	if err != nil {
		w.logf("too late: %v", err)
	}
}
