package engine

import (
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// onVerify answers the peer's question what this copy has in a range. What does
// not fit the state is answered so and ends no session: roles change while
// questions are on their way.
func (e *Engine) onVerify(m *wire.Message) {
	v, status := e.judgeVerify(m)
	var o *op
	if status == wire.OK && e.answering < 2*verifyOpsMax {
		o = e.pool.get(opAnswer, v)
	}
	if o == nil {
		if status == wire.OK {
			status = wire.BadState
		}
		e.send(wire.Message{Kind: wire.Verified, ID: m.ID, Status: status})
		return
	}
	e.answering++
	o.session, o.peerID = e.session.id, m.ID
	o.reads(int64(m.Offset), int64(m.Length))
	e.emitLocal(o)
}

func (e *Engine) judgeVerify(m *wire.Message) (*volume, wire.Status) {
	v := e.byNumber(m.Volume)
	switch {
	case v == nil, m.Offset >= uint64(v.geo.SizeBytes), m.Length > uint64(v.geo.SizeBytes)-m.Offset:
		return nil, wire.BadMessage
	case m.Token < e.highest():
		return nil, wire.StaleToken
	case !e.mayAnswerVerify() || !v.disk.HasData():
		return nil, wire.BadState
	}
	return v, wire.OK
}

// mayAnswerVerify: a Primary's copy changes without the asker's lock. The target
// of a resync is asked what it has already.
func (e *Engine) mayAnswerVerify() bool {
	s := &e.session
	answers := s.repl == state.Established || s.repl == state.SyncTarget || s.repl == state.PausedSyncT
	return s.phase == agreed && answers && e.role != state.Primary
}

func (e *Engine) answerRead(o *op, err error) {
	if err != nil || o.session != e.session.id {
		e.endAnswer(o, wire.IOError, nil)
		return
	}
	e.emit(Effect{Kind: Digest, Volume: o.vol.index, Request: &o.disk})
}

func (e *Engine) answerVerify(o *op, sums []byte) {
	if e.mayAnswerVerify() {
		e.endAnswer(o, wire.OK, sums)
	} else {
		e.endAnswer(o, wire.BadState, nil)
	}
}

func (e *Engine) endAnswer(o *op, s wire.Status, sums []byte) {
	if o.session == e.session.id && e.session.phase == agreed {
		e.send(wire.Message{Kind: wire.Verified, ID: o.peerID, Status: s, Data: sums})
	}
	e.answering--
	e.freeChunk(o)
	if e.answering == 0 {
		e.controlProgress()
	}
}
