package engine

import (
	"fmt"

	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// tellResize is what a Hello or State says of a resize.
func (e *Engine) tellResize(h *wire.HelloBody) {
	for i, v := range e.vols {
		h.Volumes[i].FloorBytes, h.Volumes[i].RoomBytes = v.floor, v.room
	}
	x := &e.resize
	if !x.runs() || x.alone || e.session.phase != agreed {
		return
	}
	step := x.step
	if step == wire.ResizeGrow && !x.lead { // which its leader says
		step = wire.ResizeOffer
	}
	h.Resize = wire.Resize{Step: step, Round: x.round, Volume: x.v.num, SizeBytes: x.size, Trusted: x.trusted, Text: x.text}
}

// peerResize takes what the peer says of a resize.
func (e *Engine) peerResize(r *wire.Resize) {
	x := &e.resize
	if e.session.phase != agreed || e.session.closing {
		return
	}
	switch {
	case x.lead && !x.alone:
		e.leadOn(r)
	case r.Step == wire.ResizeAsk && (!x.runs() || x.round != r.Round):
		e.follow(r)
	case x.runs() && r.Step == wire.NoResize:
		e.endResize(nil) // its leader has ended it
	case r.Step == wire.ResizeGrow && x.step == wire.ResizeOffer && x.round == r.Round:
		e.followTo(r)
	}
}

// leadOn is the leader's next step.
func (e *Engine) leadOn(r *wire.Resize) {
	x := &e.resize
	switch {
	case r.Step == wire.ResizeAsk || r.Step == wire.ResizeGrow:
		e.endResize(fmt.Errorf("a resize was begun on %s as well: %w", e.peer, ErrBadState))
	case r.Round != x.round || r.Step == wire.NoResize:
	case r.Step == wire.ResizeRefused:
		e.endResize(fmt.Errorf("%s refuses: %s: %w", e.peer, r.Text, ErrRefusedThere))
	case r.Step == wire.ResizeOffer && x.step == wire.ResizeAsk:
		e.resizeTo(r.SizeBytes)
	case r.Step == wire.ResizeGrown && x.step == wire.ResizeGrow && e.session.theirs.Volumes[x.v.index].SizeBytes == x.size:
		x.grown = true
		if x.shrinks() && !x.marked {
			e.beginCut()
			return
		}
		e.resizeOn()
	}
}

// follow begins a resize that the peer leads.
func (e *Engine) follow(r *wire.Resize) {
	x := &e.resize
	v := e.byNumber(r.Volume)
	if v == nil {
		return // the handshake has compared the volumes
	}
	busy := ""
	if !x.runs() {
		busy = e.resizeBusy(v)
	}
	*x = resize{number: x.number + 1, step: wire.ResizeAsk, round: r.Round, v: v}
	switch {
	case e.role == state.Primary:
		busy = e.self + " is Primary: it has to lead"
	case e.session.repl != state.Established:
		busy = fmt.Sprintf("replication is %s", e.session.repl)
	case busy == "":
		e.emit(Effect{Kind: MeasureDisk, Volume: v.index})
		return
	}
	e.resizeFailed(fmt.Errorf("%s: %w", busy, ErrBadState))
}

// followTo makes the copy as large, or as small, as the leader says.
func (e *Engine) followTo(r *wire.Resize) {
	x := &e.resize
	v := x.v
	if r.SizeBytes < v.geo.SizeBytes {
		e.followCut(r.SizeBytes)
		return
	}
	x.size, x.trusted = r.SizeBytes, r.Trusted
	if r.SizeBytes > v.room || r.SizeBytes < v.floor || r.SizeBytes <= v.geo.SizeBytes {
		e.resizeFailed(noRoom(v.num, e.self, max(v.floor, v.geo.SizeBytes), v.room, r.SizeBytes))
		return
	}
	x.step = wire.ResizeGrow
	e.beginZero()
}
