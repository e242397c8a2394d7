package engine

import "hapair/mirror/wire"

// A resync asks what the target has before it sends: after a crash whole extents
// are marked of which little differs, and a copy that was away for long may be
// old only in parts. The question goes out while the chunk is read here; its
// range is locked all the time, so what is equal stays equal. Where most of what
// was asked about differed, only now and then a chunk is asked about.

const (
	// askScale is a ratio of 1 in resync.equalRatio.
	askScale = 256
	// askLeast is the ratio of equal bytes below which asking does not pay: the
	// target reads for nothing, and the chunk waits for a round trip.
	askLeast = askScale / 8
	// askEvery is how many chunks go unasked then, before one is asked about.
	askEvery = 16
	// askMemory is how many chunks the ratio remembers, roughly.
	askMemory = 8
)

// asks reports whether the next chunk is to be asked about.
func (e *Engine) asks() bool {
	r := &e.session.resync
	if e.session.theirs.Features&wire.FeatureVerify == 0 {
		return false
	}
	if r.equalRatio >= askLeast {
		return true
	}
	r.unasked++
	if r.unasked < askEvery {
		return false
	}
	r.unasked = 0
	return true
}

// askTarget asks what the target has where o is about to read.
func (e *Engine) askTarget(o *op) {
	o.check = &check{look: look{span: span{o.disk.Offset, o.disk.Length}, locked: true}}
	o.owed, o.sentAt = o.owed|owedPeer, e.now
	e.send(wire.Message{Kind: wire.Verify, Volume: o.vol.num, ID: o.id, Token: e.writerToken(), Offset: uint64(o.disk.Offset), Length: uint64(o.disk.Length)})
}

// chunkKnown goes on with a chunk of which both digests are there. What could
// not be compared is sent.
func (e *Engine) chunkKnown(o *op) {
	if o.owed != 0 {
		return
	}
	c := o.check
	o.check = nil
	send := []span{c.span}
	if len(c.theirs) == len(c.mine) && c.status == wire.OK {
		send = c.runs(func(_ span, equal bool) bool { return !equal })
	}
	r := &e.session.resync
	if len(send) == 0 {
		e.noteEqual(c.length, c.length)
		r.equal += c.length
		e.chunkAcked(o)
		return
	}
	last := send[len(send)-1]
	different := span{send[0].offset, last.offset + last.length - send[0].offset}
	e.noteEqual(c.length-different.length, c.length)
	r.equal += c.length - different.length
	e.sendChunk(o, different)
}

// noteEqual takes one answer into the ratio.
func (e *Engine) noteEqual(equal, of int64) {
	r := &e.session.resync
	r.equalRatio += (equal*askScale/of - r.equalRatio) / askMemory
}
