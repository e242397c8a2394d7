package sim

import (
	"encoding/binary"
	"fmt"
	"slices"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/state"
	"hapair/mirror/wire"
	"hapair/test/check"
)

// Rot is a world in which operators verify. With trouble, nothing rots, and a
// verify may report no difference, whatever happens around it. Then sectors of
// the Secondary rot: a verify finds those and no others, and a repair makes the
// copies equal.

// rotten is a sector that was changed behind the mirror's back.
type rotten struct{ vol, sector int }

const blockSectors = wire.VerifyBlockBytes / check.SectorBytes

// NewRot makes the world of a seed with verifies in it.
func NewRot(seed uint64, keepLog bool) *World {
	w := New(seed, keepLog)
	w.verifies, w.checks = true, 25
	w.every, w.mends = 3*w.every, w.mends/2 // the copies have to be in line for a while
	return w
}

// RunRot takes steps under faults, heals, lets sectors rot, and demands that
// they are found and repaired.
func (w *World) RunRot(steps int) error {
	if err := w.Run(steps); err != nil {
		return err
	}
	return w.guarded(w.rot)
}

// verifyTrouble is an operator at a bad moment.
func (w *World) verifyTrouble() {
	n := w.nodes[w.rng.IntN(2)]
	if !w.one(w.checks) || !n.up || n.paused || !w.happens("verify") {
		return
	}
	if w.one(40) {
		n.step(&engine.Event{Kind: engine.VerifyStop})
		return
	}
	n.verify(w.rng.IntN(len(w.sizes)+1)-1, w.one(2))
}

// verify orders one, at any pace, perhaps where the last was stopped.
func (n *node) verify(volume int, repair bool) {
	o := engine.VerifyOrder{Volume: volume, Repair: repair, Rate: []int64{0, 0, 64 << 20}[n.w.rng.IntN(3)], Resume: n.w.one(3)}
	o.From = n.eng.View().Verify.Position
	n.w.logf("%s: verify %+v", n.name, o)
	n.step(&engine.Event{Kind: engine.Verify, Verify: o})
}

// falseAlarm: nothing has rotted, so nothing differs.
func (n *node) falseAlarm() {
	if !n.up || n.w.rotted != nil {
		return
	}
	if v := n.eng.View().Verify; v.Differing != 0 {
		n.w.fail(fmt.Errorf("%s reports a difference where there is none: %+v", n.name, v.Found))
	}
}

// digest computes what a verify compares, like everything else at any time.
func (n *node) digest(f *engine.Effect) {
	r := f.Request
	n.later(&work{what: n.name + " digests " + r.String(), run: func() {
		n.step(&engine.Event{Kind: engine.Digested, Request: r, Payload: digests(r.Data)})
	}})
}

// digests tell blocks apart as wire.AppendDigests does, by all that this world's
// sectors hold: SHA-256 took half the time of a run.
func digests(data []byte) (out []byte) {
	for len(data) > 0 {
		n := min(len(data), wire.VerifyBlockBytes)
		var sum [wire.DigestBytes]byte
		for at := 0; at < n; at += check.SectorBytes {
			version := binary.LittleEndian.Uint64(data[at:])
			for i := 0; i < len(sum); i += 8 {
				h := binary.LittleEndian.Uint64(sum[i:]) ^ version
				h = (h ^ h>>29) * (0x9e3779b97f4a7c15 + uint64(2*i)) // odd
				binary.LittleEndian.PutUint64(sum[i:], h^h>>32)
			}
		}
		out, data = append(out, sum[:]...), data[n:]
	}
	return out
}

// primary is the node that serves, nil when none does.
func (w *World) primary() *node {
	for _, n := range w.nodes {
		if n.up && n.eng.Role() == state.Primary && n.holdsPen() {
			return n
		}
	}
	return nil
}

// rot lets sectors rot, has them found and repaired.
func (w *World) rot() {
	p := w.primary()
	if p == nil {
		return
	}
	if w.early != nil { // nobody pulls ahead any more, see heal
		for _, n := range w.nodes {
			n.step(&engine.Event{Kind: engine.Configure, Settings: w.settings(n)})
		}
	}
	if v := p.eng.View().Verify; v.State == engine.VerifyRunning {
		p.step(&engine.Event{Kind: engine.VerifyStop})
	}
	if !w.until("rest", func() bool { return w.settled() && w.verifyRests(p) }) {
		return
	}
	p = w.primary()
	w.plant(p.peer())
	w.plantUnreadable(p)
	w.plantUnreadable(p.peer())
	if w.one(2) {
		w.judgeFound(p, w.verified(p, false))
	}
	if w.err == nil {
		w.judgeFound(p, w.verified(p, true))
		w.readable()
		w.until("all is flushed", w.settled)
		w.rotted = nil
		w.final()
		w.markless()
	}
}

// verifyRests: nothing of a verify is in flight at p.
func (w *World) verifyRests(p *node) bool {
	return w.primary() == p && p.eng.View().Verify.State != engine.VerifyRunning
}

// sectors is how many a volume has.
func (n *node) sectors(vol int) int {
	if !n.w.grows {
		return n.w.hists[vol].Sectors()
	}
	return int(n.vols[vol].size / check.SectorBytes)
}

// plant changes sectors of a copy, some to what they held before, anywhere.
func (w *World) plant(n *node) {
	w.rotted, w.sores = map[rotten]check.Version{}, map[rotten]bool{}
	for range 1 + w.rng.IntN(6) {
		vol := w.rng.IntN(len(w.sizes))
		s := w.rng.IntN(n.sectors(vol))
		if t := w.hists[vol].Touched(); len(t) > 0 && w.one(2) {
			if written := t[w.rng.IntN(len(t))]; written < n.sectors(vol) { // or it was, before the volume shrank
				s = written
			}
		}
		d := n.vols[vol].disk
		v := d.at(s)/2 + 1<<50
		if d.at(s) != 0 && w.one(2) {
			v = d.at(s) - 1 // what it held before
		}
		d.stable[s] = v
		d.forget(s)
		w.rotted[rotten{vol, s}] = v
		w.logf("%s: sector %d of volume %d rots to %d", n.name, s, vol, v)
	}
}

// verified is what one verify of everything finds, with an application beside
// it, and some sessions that end: where they do for ever, and volumes have grown, a
// resync between two takes all the time there is.
func (w *World) verified(p *node, repair bool) engine.VerifyView {
	started, ends := false, 6
	w.until("verified", func() bool {
		if w.one(3000) && w.primary() == p && ends > 0 && w.alive != 0 && !w.doomed {
			w.doomed, ends = true, ends-1
		}
		if v := p.eng.View(); !started && v.Verify.State != engine.VerifyRunning && w.primary() == p && v.Replication == state.Established {
			p.step(&engine.Event{Kind: engine.Verify, Verify: engine.VerifyOrder{Volume: engine.AllVolumes, Repair: repair}})
			started = p.eng.View().Verify.State == engine.VerifyRunning
		}
		return started && w.verifyRests(p)
	})
	return p.eng.View().Verify
}

// judgeFound: what is still rotten was found, and nothing else was.
func (w *World) judgeFound(p *node, v engine.VerifyView) {
	if w.err != nil {
		return
	}
	if v.State != engine.VerifyDone {
		w.fail(fmt.Errorf("the verify of %s ended: %+v", p.name, v))
	}
	for r, v0 := range w.rotted {
		mine, theirs := p.vols[r.vol].disk.at(r.sector), p.peer().vols[r.vol].disk.at(r.sector)
		if theirs != v0 || mine == v0 || v.Repair {
			continue // written since (also with the same: zeros), or resynced, or repaired
		}
		at := int64(r.sector) * check.SectorBytes
		if !slices.ContainsFunc(v.Found, func(d engine.Difference) bool {
			return int(d.Volume) == r.vol && d.Offset <= at && at < d.Offset+d.Length
		}) {
			w.fail(fmt.Errorf("sector %d of volume %d rotted at %s and is not among %+v", r.sector, r.vol, p.peer().name, v.Found))
		}
	}
	for _, d := range v.Found {
		for s := int(d.Offset / check.SectorBytes); s < int((d.Offset+d.Length)/check.SectorBytes); s += blockSectors {
			if !w.rottenBlock(int(d.Volume), s) && !w.soreBlock(int(d.Volume), s) {
				w.fail(fmt.Errorf("the block of sector %d of volume %d is equal and was reported: %+v", s, d.Volume, v.Found))
			}
		}
	}
}

func (w *World) rottenBlock(vol, sector int) bool {
	for r := range w.rotted {
		if r.vol == vol && r.sector/blockSectors == sector/blockSectors {
			return true
		}
	}
	return false
}

// rottenNear: a request that touches the sector may touch one that has rotted: a
// Primary that cannot read the one takes both from its peer.
func (w *World) rottenNear(vol, sector int) bool {
	for r := range w.rotted {
		if r.vol == vol && max(r.sector-sector, sector-r.sector) < 32 {
			return true
		}
	}
	return false
}

// plantUnreadable has sectors of a copy not be readable any more, where the other
// copy is good.
func (w *World) plantUnreadable(n *node) {
	n.unread = map[rotten]bool{}
	for range w.rng.IntN(4) {
		vol := w.rng.IntN(len(w.sizes))
		s := w.rng.IntN(n.sectors(vol))
		if w.rottenNear(vol, s) || w.soreBlock(vol, s) {
			continue
		}
		n.unread[rotten{vol, s}], w.sores[rotten{vol, s}] = true, true
		w.logf("%s: sector %d of volume %d cannot be read", n.name, s, vol)
	}
}

// latent: a read of a sector that cannot be read fails; a write mends it. Where a
// resync needs it, no other copy could: then it is read at the second attempt, or
// the copies would be in line only when the application happens to write there.
func (n *node) latent(vol int, r *block.Request) (err error) {
	for x := range n.unread {
		switch at := int64(x.sector) * check.SectorBytes; {
		case x.vol != vol || at < r.Offset || at >= r.End():
		case r.Op == block.Read:
			err = block.ErrIO
			if n.eng.Replication() == state.SyncSource {
				delete(n.unread, x)
			}
		case r.Op.Changes():
			delete(n.unread, x)
		}
	}
	return err
}

func (w *World) soreBlock(vol, sector int) bool {
	for r := range w.sores {
		if r.vol == vol && r.sector/blockSectors == sector/blockSectors {
			return true
		}
	}
	return false
}

// readable: after a repair everything can be read on both nodes.
func (w *World) readable() {
	for _, n := range w.nodes {
		for x := range n.unread {
			if w.err == nil {
				w.fail(fmt.Errorf("%s still cannot read sector %d of volume %d after a repair", n.name, x.sector, x.vol))
			}
		}
	}
}

// markless: what a repair has made equal is not marked any more.
func (w *World) markless() {
	for _, n := range w.nodes {
		for _, v := range n.eng.View().Volumes {
			if v.DirtyBytes != 0 {
				w.fail(fmt.Errorf("%s still marks %d bytes of volume %d", n.name, v.DirtyBytes, v.Number))
			}
		}
	}
}

// until lets things happen until something holds.
func (w *World) until(what string, holds func() bool) bool {
	for i := 0; i < healSteps && w.err == nil; i++ {
		w.step()
		if w.err == nil && holds() {
			return true
		}
	}
	if w.err == nil {
		w.fail(fmt.Errorf("liveness: never %s: %+v, %+v", what, w.nodes[0].view(), w.nodes[1].view()))
	}
	return false
}
