package engine

import (
	"fmt"

	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// keep prepares this Secondary to have the only copy while its peer is Primary:
// everything is marked as lacking over there, and the generation that begins is
// one which the copy given up never had, so that whatever becomes of either
// node, that copy is only ever a target, and all of it.
func (e *Engine) keep() {
	e.session.keeping = true
	for _, v := range e.vols {
		// Marks of something else become these; a generation that was begun for
		// this, and has not been shared since, serves again.
		v.unused = v.gen.Rebased() && v.bits.DirtyBytes() == v.geo.SizeBytes
		v.bits.SetAll()
	}
	e.keepProgress()
}

// keepProgress: the marks are on disk before the generation that they belong to.
func (e *Engine) keepProgress() {
	s := &e.session
	if !s.keeping || s.closing || e.anyFailed() {
		return
	}
	if !e.pagesSaved(s.plan.full) {
		return
	}
	s.keeping = false
	e.beginGenerations(s.plan.full)
	e.inSessionAfterSupers(preparing, func() {
		s.phase, s.repl = agreed, state.Forwarding
		e.noteOn(OnDisk, fmt.Sprintf("%s is Primary without a copy of its own: this one serves it", e.peer))
		e.sendState()
		e.send(wire.Message{Kind: wire.Ack, ID: idForward})
		e.established()
	})
}
