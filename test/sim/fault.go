package sim

import (
	"slices"
	"time"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/genid"
	"hapair/mirror/state"
)

// trouble is what may come between any two steps.
func (w *World) trouble() {
	switch {
	case w.givesUp && w.one(w.every):
		w.giveUp()
	case w.one(w.every):
		w.fault()
	case w.one(2 * w.every):
		w.operate()
	case w.one(w.mends):
		w.mend()
	}
}

// mend puts right most of what is broken.
func (w *World) mend() {
	for _, n := range w.nodes {
		if !n.up && w.one(2) {
			n.start()
		}
		n.paused, n.standAlone, n.slow = n.paused && w.one(2), n.standAlone && w.one(3), n.slow && w.one(2)
		w.aw[n.i] = w.aw[n.i] || w.one(2)
	}
	w.ab, w.witness = w.ab || !w.one(3), w.witness || w.one(2)
}

// The kinds of trouble, by the dice that choose them.
var (
	faultNames   = [14]string{"crash", "crash", "start", "start", "start", "data-link", "witness-link", "witness", "pause", "ill", "time", "slow", "sore", "sore"}
	operateNames = [11]string{"invalidate", "pause-sync", "resume-sync", "detach", "disconnect", "drop-session", "lose-lease", "detach", "exchange", "attach", "attach"}
)

// happens counts a kind of trouble, unless this run goes without it.
func (w *World) happens(kind string) bool {
	if w.without[kind] {
		return false
	}
	w.troubles[kind]++
	return true
}

// fault breaks something, or mends it.
func (w *World) fault() {
	n := w.nodes[w.rng.IntN(2)]
	k := w.rng.IntN(len(faultNames))
	if !w.happens(faultNames[k]) {
		return
	}
	switch k {
	case 0, 1:
		if n.up { // a broken disk here and a lost cache there are two failures
			n.crash(!n.peer().bad && w.rng.IntN(3) > 0)
		}
	case 2, 3, 4:
		if !n.up {
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
	case 9:
		n.ill = n.up && !n.ill
		w.logf("%s's disks are ill %v", n.name, n.ill)
	case 10:
		w.now += time.Duration(w.rng.IntN(5000)) * time.Millisecond // leases and handshakes run out
		w.logf("time passes")
	case 11:
		n.slow = !n.slow
		w.logf("%s's disks are slow %v", n.name, n.slow)
	case 12, 13:
		for _, n := range w.nodes { // where it is felt: at the Primary
			if n.up && n.eng.Role() == state.Primary {
				n.ill, n.sore = w.one(2), !n.sore
				w.logf("%s's disks are ill %v, sore %v", n.name, n.ill, n.sore)
			}
		}
	}
}

// ail decides whether a request at a disk fails. What changes a copy fails only
// while the other copy is good; a read may always.
func (n *node) ail(op block.Op) error {
	switch {
	case n.dead && !n.w.healing:
		n.bad = n.bad || op != block.Read
		return block.ErrIO
	case n.w.healing, !n.ill && !n.sore || !n.w.one(4):
		return nil
	case op == block.Read:
		return block.ErrIO
	case !n.ill || !n.dispensable():
		return nil
	}
	n.w.logf("%s: a disk fails", n.name)
	n.bad = true
	n.w.doomed = n.w.doomed || n.w.alive != 0 && n.w.one(3)
	return block.ErrIO
}

// dispensable: everything answered is in good hands without this node.
func (n *node) dispensable() bool {
	p := n.peer()
	return p.serves() && !p.bad && !p.lossy && !p.crashed && !p.eng.View().Suspect && !n.eng.View().Excluding && n.asking == 0 &&
		slices.Contains(n.w.record.InSync, p.name) && p.asking == 0
}

// operate is a person with a keyboard.
func (w *World) operate() {
	n := w.nodes[w.rng.IntN(2)]
	if !n.up || n.paused {
		return
	}
	secondary := n.eng.Role() == state.Secondary && n.command == 0
	k := w.rng.IntN(len(operateNames))
	if !w.happens(operateNames[k]) {
		return
	}
	switch k {
	case 9, 10:
		if n.broken() && n.command == 0 {
			n.attach()
		}
	case 8:
		if secondary && n.dispensable() {
			n.exchange()
		}
	case 0:
		if secondary && n.dispensable() {
			w.invalidate(n)
		}
	case 1:
		n.step(&engine.Event{Kind: engine.Pause})
	case 2:
		n.step(&engine.Event{Kind: engine.Configure, Settings: w.settings(n)})
		n.step(&engine.Event{Kind: engine.Resume})
	case 3, 7:
		if secondary {
			n.run(&engine.Event{Kind: engine.Detach})
		}
	case 4:
		n.standAlone = !n.standAlone
		w.doomed = w.doomed || w.alive != 0
		w.logf("%s stands alone %v", n.name, n.standAlone)
	case 5:
		w.doomed = w.doomed || w.alive != 0
	case 6:
		if n.leaseTenure != 0 {
			w.logf("%s: the lease is lost", n.name)
			n.renew(0)
		}
	}
}

func (w *World) invalidate(n *node) {
	n.counted = slices.Contains(n.eng.View().Record.InSync, n.name)
	if w.fork != nil && n == w.fork.left {
		w.fork.given = true
	}
	n.run(&engine.Event{Kind: engine.Invalidate})
	if n.up && n.anyDisk(func(d state.Disk) bool { return d == state.Inconsistent }) {
		n.bad = true
	}
}

// exchange gives a node new disks, as large as the old ones or larger, or those
// that it had before.
func (n *node) exchange() {
	n.w.logf("%s: other disks", n.name)
	n.stop()
	n.bad, n.lost = true, false
	before := n.drawer
	n.drawer = nil
	for _, v := range n.vols {
		v.disk.flush()
		kept := *v
		n.drawer = append(n.drawer, &kept)
	}
	if n.old = before != nil && n.w.one(2); n.old {
		n.w.logf("%s has disks that it had once", n.name)
		n.vols, n.crashed = before, true
		return
	}
	for i, v := range n.vols {
		size := n.w.sizes[i] + int64(n.w.rng.IntN(3))*(3<<20+block.SectorBytes)
		v.disk = newDisk(size)
		if n.w.grows {
			size, v.disk = n.room[i], n.newDisk(i)
		}
		v.lay(size, engine.Super{Gen: genid.New(), Disk: state.Inconsistent, Clean: true})
	}
}

// attach puts disks in the place of those that have failed, into a running node:
// blank ones, or the same that work again.
func (n *node) attach() {
	if err := n.eng.MayAttach(); err != nil {
		n.w.logf("%s: attach: %v", n.name, err)
		return
	}
	n.exorciseAll()
	same := n.w.hangs && !n.dispensable() // nobody throws the only copy away
	disks := make([]*engine.VolumeConfig, len(n.vols))
	for i, v := range n.eng.View().Volumes {
		if v.Disk.HasData() {
			continue
		}
		vol := n.vols[i]
		if !same && n.w.one(2) {
			n.bad = true
			vol.disk = n.newDisk(i)
			vol.lay(vol.size, engine.Super{Gen: genid.New(), Disk: state.Inconsistent, Clean: true})
		}
		c := n.config(i)
		disks[i] = &c
	}
	n.ill, n.sore, n.standAlone, n.hung = false, false, false, false
	if n.eng.Role() == state.Secondary { // as after a crash
		n.crashed = true
		n.w.bothCrashed()
	}
	n.w.logf("%s: attach", n.name)
	n.run(&engine.Event{Kind: engine.Attach, Disks: disks})
}

// lay makes metadata that say nothing but super.
func (v *volume) lay(size int64, super engine.Super) {
	v.size, v.super, v.ring, v.pages = size, super, map[uint64]actlog.Transaction{}, map[int][]byte{}
}

// detachedNow: the process ends in order; sometimes the power goes as well.
func (n *node) detachedNow() {
	broken := n.broken()
	n.stop()
	if n.w.play != nil {
		return
	}
	if n.w.one(2) {
		n.w.logf("%s: power off", n.name)
		for _, v := range n.vols {
			v.disk.powerCut(n.w.rng)
		}
		if broken {
			n.w.cacheLost(n)
		}
	} else if n.w.one(2) {
		n.start() // it was a restart
	}
}

// cacheLost: the only copy in the set may lose what was never flushed, and so
// may two that crash one after the other.
func (w *World) cacheLost(n *node) {
	n.lost = true
	if len(w.record.InSync) == 1 && w.record.InSync[0] == n.name && !n.forced {
		w.rebase(n)
		n.crashed = true
		for _, q := range w.inflight {
			q.gone = q.gone || q.node != n
		}
	}
}

// bothCrashed: nobody is left who knows everything.
func (w *World) bothCrashed() {
	a, b := w.nodes[0], w.nodes[1]
	if a.crashed && b.crashed {
		a.lossy, b.lossy = true, true
	}
}

func (w *World) heal() {
	w.healing, w.ab, w.witness, w.aw = true, true, true, [2]bool{true, true}
	w.logf("the world heals")
	if w.early != nil {
		w.early.pull = false // whoever pulls ahead again and again is never in line
	}
	for _, n := range w.nodes {
		n.paused, n.standAlone, n.ill, n.sore, n.slow, n.hung, n.restTo = false, false, false, false, false, false, 0
		if n.broken() {
			n.crash(false)
		}
		if !n.up {
			n.start()
		}
		if w.early != nil { // those that went on pull ahead by what they were told before
			n.step(&engine.Event{Kind: engine.Configure, Settings: w.settings(n)})
		}
		n.step(&engine.Event{Kind: engine.Resume})
	}
}
