package sim

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/state"
)

// patience is how long a Primary waits for its peer in a world that hangs.
const patience = 500 * time.Millisecond

// errHangs is what the layer above a disk that was given up says for it.
var errHangs = fmt.Errorf("no answer for 30s: %w", block.ErrNoAnswer)

// NewHang makes a world whose disks hang as well: they answer nothing for a
// while, or until the engine has given them up. What they were given then they
// still have, and do at any later time, or never.
func NewHang(seed uint64, keepLog bool) *World {
	w := New(seed, keepLog)
	w.hangs, w.used, w.patience = true, map[int64][][]byte{}, patience
	for _, n := range w.nodes { // again, as impatient ones
		n.stop()
		n.start()
	}
	return w
}

// hangTrouble is what may come between any two steps of such a world.
func (w *World) hangTrouble() {
	w.send()
	n := w.nodes[w.rng.IntN(2)]
	switch {
	case !n.up:
	case w.one(3*w.every) && w.happens("hang"):
		n.hung = !n.hung
		w.logf("%s's disks hang %v", n.name, n.hung)
	case n.hung && w.one(w.every/3) && w.happens("give-up"):
		n.stalled()
	case len(n.ghosts) > 0 && w.one(200):
		n.exorcise()
	}
}

// stalled tells the engine of a disk that has something to answer and does not.
func (n *node) stalled() {
	if n.paused || n.peer().bad && n.eng.Replication() == state.Established {
		return // its peer has just given its copy up, and this node has not heard: two failures
	}
	for _, p := range n.pending {
		if p.disk && p.fail != nil {
			n.w.logf("%s: the disk of volume %d does not answer", n.name, p.volume)
			n.step(&engine.Event{Kind: engine.DiskStalled, Volume: p.volume, Err: errors.New("no answer for 30s")})
			return
		}
	}
}

// abandon answers for a disk what it has not answered. The disk has it yet.
func (n *node) abandon(volume int) {
	n.w.logf("%s: the disk of volume %d is given up", n.name, volume)
	n.given[volume] = true
	var left []*work
	n.pending = slices.DeleteFunc(n.pending, func(p *work) bool {
		mine := p.disk && p.volume == volume && p.fail != nil
		if mine {
			left = append(left, p)
		}
		return mine
	})
	n.unwritten(left)
	life := n.life
	for _, p := range left {
		n.ghosts = append(n.ghosts, p.ghost())
		if n.life == life {
			p.fail(errHangs)
		}
	}
}

// exorcise lets a disk do one of the things it had been given, or forget it.
func (n *node) exorcise() {
	i := n.w.rng.IntN(len(n.ghosts))
	land := n.ghosts[i]
	n.ghosts = slices.Delete(n.ghosts, i, i+1)
	if n.w.one(2) {
		n.w.logf("%s: a disk that was given up does what it had been told", n.name)
		land()
	}
}

// exorciseAll: nobody opens a disk before it has let go of everything.
func (n *node) exorciseAll() {
	for len(n.ghosts) > 0 {
		n.exorcise()
	}
	clear(n.given)
}

// ghost is a request in the hands of a disk that was given up: with the memory
// it came with, whatever has become of that.
func (n *node) ghost(v *volume, r *block.Request) func() func() {
	return func() func() {
		d, left := v.disk, *r
		r.Kept = len(r.Data) > 0
		return func() {
			if left.Op == block.Read {
				fill(left.Data, 1<<61)
				return
			}
			d.tear(&left, n.w.rng)
		}
	}
}

// memory is what the application has its requests in: where disks hang, used
// again and again.
func (w *World) memory(n int64) []byte {
	if used := w.used[n]; len(used) > 0 {
		w.used[n] = used[:len(used)-1]
		return used[len(used)-1]
	}
	return make([]byte, n)
}

// release is the application's end of a request: its memory is used for other
// things, unless a disk has it. What was read is looked at once more a little
// later, as a front end does that sends it.
func (w *World) release(r *block.Request, err error) {
	kept := r.Kept
	r.Kept = false
	if !w.hangs {
		fill(r.Data, 1<<60) // whoever still reads it reads nonsense
		return
	}
	p := parcel{what: r.String(), data: r.Data, kept: kept}
	if r.Op == block.Read && err == nil {
		p.want = slices.Clone(r.Data)
	}
	w.parcels = append(w.parcels, p)
}

// parcel is what the application has been answered and a front end still sends.
type parcel struct {
	what       string
	data, want []byte
	kept       bool
}

// send ends one of the parcels.
func (w *World) send() {
	if len(w.parcels) == 0 || !w.one(10) {
		return
	}
	p := w.parcels[0]
	w.parcels = w.parcels[1:]
	if p.want != nil && !bytes.Equal(p.want, p.data) {
		w.fail(fmt.Errorf("%s is answered, and its data change before they are sent", p.what))
	}
	if p.kept && p.want == nil || len(p.data) == 0 {
		return // a disk has it; what a read was given instead is nobody's
	}
	fill(p.data, 1<<60)
	w.used[int64(len(p.data))] = append(w.used[int64(len(p.data))], p.data)
}
