package engine

import "hapair/mirror/block"

// blocks reports whether o must wait: a changing op that overlaps it is in
// flight, or waits before it. Overlapping writes are so applied in the same
// order on both copies; a read that comes after such a write waits too, so that
// it does not show data that a failover could still take back, and for the same
// reason a write that comes after such a read waits: the read might show it. A
// chunk of a resync or a verify does not change what a read here returns, and a
// copy that is being filled is not read.
func (v *volume) blocks(o *op) bool {
	return v.blockedBy(o, v.waiting.tail)
}

// blockedBy looks at active and at the waiting ops up to and including last.
func (v *volume) blockedBy(o *op, last *op) bool {
	reading := o.kind == opApplication && o.asks() == block.Read && !o.mends
	for p := v.active.head; p != nil; p = p.next {
		if o.overlaps(p) && !(reading && p.kind != opApplication) {
			return true
		}
	}
	for p := last; p != nil; p = p.prev {
		if o.overlaps(p) && (p.req == nil || p.req.Op != block.Read || p.mends || !reading) {
			return true
		}
	}
	return o.kind == opApplication && !reading && v.reads.overlaps(o)
}

// enter begins an op as soon as nothing blocks it.
func (e *Engine) enter(o *op) {
	if o.vol.blocks(o) {
		o.vol.waiting.push(o)
	} else {
		e.begin(o)
	}
}

// wake starts waiting ops that nothing blocks any more, in their order. One that
// ends as it begins wakes others: those are looked at in another round.
func (e *Engine) wake(v *volume) {
	v.woken++
	if v.waking {
		return
	}
	v.waking = true
	for round := v.woken - 1; round != v.woken; {
		round = v.woken
		for o := v.waiting.head; o != nil; {
			next := o.next
			if !v.blockedBy(o, o.prev) {
				v.waiting.remove(o)
				e.begin(o)
			}
			o = next
		}
	}
	v.waking = false
}
