package engine

import (
	"fmt"

	"hapair/mirror/block"
	"hapair/mirror/wire"
)

// What a verify cannot read here, and its peer can, is mended as for a read of an
// application (mend.go), if the verify is to repair: fetched under its range and a
// hot extent, and written again. The check gives its range back first: a write
// that waited for it goes ahead, and does the mending by itself.

// heals tells of a check whose read has failed here whether it is to be mended.
func (e *Engine) heals(c *check) bool {
	return e.verify.order.Repair && c.status == wire.OK && e.mendable()
}

// heal ends a check whose block could not be read, and has the block mended.
func (e *Engine) heal(o *op) {
	c, v := o.check, o.vol
	m := e.pool.get(opApplication, v)
	if m == nil {
		e.lookAgain(o, true)
		return
	}
	m.req = &block.Request{Op: block.Read, Offset: c.offset, Length: c.length, Data: block.Aligned(int(c.length))}
	m.disk.Op, m.disk.Offset, m.disk.Length, m.disk.Data = block.Read, c.offset, c.length, m.req.Data
	m.heals, m.mends, m.cause, m.mark, m.began = true, true, c.err, c.run, e.now
	e.verify.mending++
	e.endCheck(o)
	e.enter(m)
}

// healed is the end of it, well or not: nobody but the verify waits. What a broken
// session ended is compared again.
func (e *Engine) healed(o *op) {
	x, v := &e.verify, o.vol
	s, well := span{o.disk.Offset, o.disk.Length}, o.mends && o.err == nil && v.disk.HasData()
	current := o.mark == x.run
	x.mending--
	e.pool.put(o)
	if current {
		e.foundDiffering(v, s, unreadHere)
		if well {
			x.found.healed(v.num, s)
		} else {
			e.tellDifferences()
			e.verifyFails()
		}
	}
	e.controlProgress()
	e.pumpVerify()
}

// verifyFails gives up on a disk that can hardly be read.
func (e *Engine) verifyFails() {
	f := &e.verify.found
	if e.verify.state == VerifyRunning && f.blocks[unreadHere]-f.here+f.blocks[unreadThere] >= verifyFailuresMax {
		e.verifyEnds(VerifyFailed, fmt.Sprintf("%d blocks cannot be read", verifyFailuresMax))
	}
}

// healed notes a range that was fetched from the peer and written again here.
func (f *findings) healed(volume uint16, s span) {
	f.repaired += blocksOf(s)
	f.here += blocksOf(s)
	for i := range f.list {
		if d := &f.list[i]; d.Volume == volume && d.kind == unreadHere && d.Offset == s.offset {
			d.Repaired = true
		}
	}
}
