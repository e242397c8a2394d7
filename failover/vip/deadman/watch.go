package deadman

import (
	"slices"
	"time"
)

// watch is what the helper knows; it is pure.
type watch struct {
	held []guarded
}

// guarded is an address with what has become of it.
type guarded struct {
	holding
	gone  time.Duration // the deadline at which it was taken away; armed again by any other
	taken bool          // gone is valid
}

// again is how long after an attempt that failed, or while something is gone
// that a new lease would arm again, the helper looks anew.
const again = 50 * time.Millisecond

func (w *watch) hold(h holding) {
	w.release(h)
	w.held = append(w.held, guarded{holding: h})
}

func (w *watch) release(h holding) {
	w.held = slices.DeleteFunc(w.held, func(g guarded) bool { return g.holding == h })
}

// due names what has to go now, by index; armed reports whether anything may
// still have to go later, and wait for how long there is nothing to do.
func (w *watch) due(now time.Duration, until func(slot int) time.Duration) (gone []int, armed bool, wait time.Duration) {
	wait = time.Hour
	for i := range w.held {
		g := &w.held[i]
		end := until(g.Slot)
		if g.taken && g.gone == end {
			wait = min(wait, again)
			continue
		}
		g.taken, armed = false, true
		if left := end - Lead - now; left > 0 {
			wait = min(wait, left)
		} else {
			gone = append(gone, i)
		}
	}
	return gone, armed, wait
}

// back has what was taken away, and is there again under the same lease, be taken once more,
// but for some; it says whether there is any.
func (w *watch) back(but []int, until func(slot int) time.Duration, there func(Held) bool) (some bool) {
	for i := range w.held {
		g := &w.held[i]
		if g.taken && g.gone == until(g.Slot) && !slices.Contains(but, i) && there(g.Held) {
			g.taken, some = false, true
		}
	}
	return some
}

// took notes that an address was taken away at a deadline.
func (w *watch) took(i int, end time.Duration) { w.held[i].taken, w.held[i].gone = true, end }
