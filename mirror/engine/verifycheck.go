package engine

import (
	"bytes"
	"fmt"

	"hapair/mirror/wire"
)

// check is one look at one range: here and at the peer.
type check struct {
	look
	run, round   uint64
	mine, theirs []byte // digests
	err          error  // of the read here
	status       wire.Status
	bad          int64 // blocks that are not equal
	repairing    bool  // the range is being written at the peer
}

// beginCheck reads here and asks the peer, both at once. A locked range stays
// locked until the check ends.
func (e *Engine) beginCheck(o *op) {
	x := &e.verify
	if e.staleCheck(o) || !e.conclusive(o) {
		// It holds nothing that others wait for.
		if !e.staleCheck(o) {
			x.again = append(x.again, o.check.look)
		}
		x.flight--
		e.freeChunk(o)
		return
	}
	if o.check.locked {
		o.vol.active.push(o)
	} else {
		x.unlocked.push(o)
	}
	if o.owed = owedLocal | owedPeer; o.check.locked {
		o.sentAt = e.now // an application may wait for it
	}
	e.send(wire.Message{Kind: wire.Verify, Volume: o.vol.num, ID: o.id, Token: e.writerToken(), Offset: uint64(o.disk.Offset), Length: uint64(o.disk.Length)})
	e.emitLocal(o)
}

// staleCheck: its session or its run is over; where it was will be compared
// again, or need not be.
func (e *Engine) staleCheck(o *op) bool {
	return o.session != e.session.id || o.check.run != e.verify.run
}

// conclusive: nothing has happened since it began that could make equal copies
// look different: with a write of the peer on its way the lock here holds nothing.
func (e *Engine) conclusive(o *op) bool {
	return o.check.round == e.verify.round && e.verifyWaits(e.verify.order.Repair) == ""
}

func (e *Engine) checkRead(o *op, err error) {
	o.owed &^= owedLocal
	if o.check.err = err; err != nil || e.staleCheck(o) {
		e.checkPaid(o)
		return
	}
	o.owed |= owedDigest
	e.emit(Effect{Kind: Digest, Volume: o.vol.index, Request: &o.disk})
}

// digested brings the digests of a range that was read for a verify.
func (e *Engine) digested(o *op, sums []byte) {
	if o.kind == opAnswer {
		e.answerVerify(o, sums)
		return
	}
	o.owed &^= owedDigest
	o.check.mine = sums
	switch {
	case o.kind == opVerify:
		e.checkPaid(o)
	case o.session != e.session.id || !e.replicating():
		e.dropChunk(o)
	default:
		e.chunkKnown(o)
	}
}

// onVerified takes the peer's digests.
func (e *Engine) onVerified(m *wire.Message) {
	o := e.pool.find(m.ID)
	if o == nil || o.check == nil || o.owed&owedPeer == 0 || o.check.repairing {
		return
	}
	o.owed &^= owedPeer
	o.check.theirs, o.check.status = append([]byte(nil), m.Data...), m.Status
	if o.kind == opResync {
		e.chunkKnown(o)
	} else {
		e.checkPaid(o)
	}
}

// checkPaid goes on with a check whose digests, or errors, are all there.
func (e *Engine) checkPaid(o *op) {
	c := o.check
	switch {
	case o.owed != 0:
		return
	case e.staleCheck(o):
		e.endCheck(o)
	case !e.conclusive(o):
		e.lookAgain(o, false)
	case c.err != nil:
		e.notRead(o, unreadHere)
	case c.status == wire.IOError:
		e.notRead(o, unreadThere)
	case c.status != wire.OK:
		e.verify.rest = e.now + verifyRestAfter
		e.lookAgain(o, false)
	case len(c.theirs) != len(c.mine):
		e.refuseSession(&RefusedError{Status: wire.BadMessage, Text: fmt.Sprintf("%d bytes of digests for %s, expected %d", len(c.theirs), &o.disk, len(c.mine))})
		e.lookAgain(o, false)
	default:
		e.compare(o)
	}
	e.pumpVerify()
}

// compare judges two sets of digests. What differs without the lock is looked
// at again under it; so is, for a repair, what is marked already.
func (e *Engine) compare(o *op) {
	c, x := o.check, &e.verify
	marked := func(s span) bool { return x.order.Repair && o.vol.bits.Any(s.offset, s.length) }
	if c.locked {
		e.confirmed(o, c.runs(func(_ span, equal bool) bool { return !equal }), marked(c.span))
		return
	}
	for _, s := range c.runs(func(s span, equal bool) bool { return !equal || marked(s) }) {
		x.again = append(x.again, look{s, true})
	}
	e.endCheck(o)
}

// runs lists the runs of blocks that want chooses.
func (c *check) runs(want func(s span, equal bool) bool) (out []span) {
	for i := 0; i*wire.DigestBytes < len(c.mine); i++ {
		a := i * wire.DigestBytes
		s := span{c.offset + int64(i)*wire.VerifyBlockBytes, 0}
		s.length = min(wire.VerifyBlockBytes, c.offset+c.length-s.offset)
		if !want(s, bytes.Equal(c.mine[a:a+wire.DigestBytes], c.theirs[a:a+wire.DigestBytes])) {
			continue
		}
		if n := len(out); n > 0 && out[n-1].offset+out[n-1].length == s.offset {
			out[n-1].length += s.length
		} else {
			out = append(out, s)
		}
	}
	return out
}

// notRead narrows down what cannot be read, to one block.
func (e *Engine) notRead(o *op, which difference) {
	c, x := o.check, &e.verify
	if c.length > wire.VerifyBlockBytes {
		half := max(c.length/2/wire.VerifyBlockBytes, 1) * wire.VerifyBlockBytes
		x.again = append(x.again, look{span{c.offset, half}, c.locked}, look{span{c.offset + half, c.length - half}, c.locked})
		e.endCheck(o)
		return
	}
	if !c.locked {
		e.lookAgain(o, true)
		return
	}
	if which == unreadHere && e.heals(c) {
		e.heal(o)
		return
	}
	if which == unreadHere {
		// Not marked: as the source of a resync this copy could not send it.
		e.foundDiffering(o.vol, c.span, unreadHere)
		e.tellDifferences()
		e.endCheck(o)
	} else {
		e.foundDiffering(o.vol, c.span, unreadThere)
		c.bad = blocksOf(c.span)
		e.mark(o, c.span, x.order.Repair)
	}
	e.verifyFails()
}

// lookAgain ends a check that proved nothing; its range comes again.
func (e *Engine) lookAgain(o *op, locked bool) {
	if !e.staleCheck(o) {
		e.verify.again = append(e.verify.again, look{o.check.span, locked})
	}
	e.endCheck(o)
}

// endCheck lets go of a check and its range.
func (e *Engine) endCheck(o *op) {
	v := o.vol
	if o.in != nil {
		o.in.remove(o)
	}
	e.verify.flight--
	e.freeChunk(o)
	e.wake(v)
}

// abandonVerify: the session is over. What had not been compared or flushed
// then is compared again.
func (e *Engine) abandonVerify() {
	x := &e.verify
	if x.flush != nil {
		e.pool.put(x.flush)
		x.flush = nil
	}
	if x.state == VerifyRunning {
		x.cursor = x.reached(e)
	}
	x.again, x.written = nil, nil
	x.run++ // what is still at the disk proves nothing
	lists := []*opList{&x.unlocked}
	for _, v := range e.vols {
		lists = append(lists, &v.active, &v.waiting)
	}
	for _, l := range lists {
		for o := l.head; o != nil; {
			next := o.next
			if o.kind == opVerify {
				if o.owed &= owedLocal | owedDigest; o.owed == 0 {
					l.remove(o)
					x.flight--
					e.freeChunk(o)
				}
			}
			o = next
		}
	}
}
