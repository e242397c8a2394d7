package engine

import (
	"fmt"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// peerRequest is a write, discard, write-zeroes or flush of the peer.
func (e *Engine) peerRequest(m *wire.Message) {
	v, refused := e.refusePeer(m)
	if refused != nil {
		releaseBuffer(m)
		e.refuseSession(refused)
		return
	}
	o := e.pool.get(opPeer, v)
	if o == nil {
		releaseBuffer(m)
		e.refuseSession(&RefusedError{Status: wire.BadState, Text: fmt.Sprintf("more than %d requests in flight", peerOpsMax)})
		return
	}
	e.seen = max(e.seen, m.Token)
	e.peerOps++
	if m.Kind != wire.Flush {
		e.verify.round++
	}
	o.session, o.peerID = e.session.id, m.ID
	o.disk.Op, o.disk.Flags = peerOp(m)
	o.disk.Offset, o.disk.Length = int64(m.Offset), int64(m.Length)
	if m.Kind == wire.Flush {
		o.disk.Offset, o.disk.Length = 0, 0
	}
	o.disk.Data, o.buf = m.Data, m.Buffer
	m.Buffer = nil
	e.emit(Effect{Kind: LocalIO, Volume: v.index, Request: &o.disk})
}

func peerOp(m *wire.Message) (op block.Op, flags block.Flags) {
	switch m.Kind {
	case wire.WriteZeroes:
		op = block.WriteZeroes
	case wire.Discard:
		op = block.Discard
	case wire.Flush:
		op = block.Flush
	default:
		op = block.Write
	}
	if m.Flags&wire.FUA != 0 {
		flags |= block.FUA
	}
	if m.Flags&wire.NoUnmap != 0 {
		flags |= block.NoUnmap
	}
	return op, flags
}

// refusePeer judges a request of the peer. The token comes first: whoever has
// seen a higher one refuses a lower one (R12).
func (e *Engine) refusePeer(m *wire.Message) (*volume, *RefusedError) {
	refuse := func(s wire.Status, format string, args ...any) (*volume, *RefusedError) {
		return nil, &RefusedError{Status: s, Token: e.seen, Text: fmt.Sprintf(format, args...)}
	}
	if m.Token < e.seen {
		return refuse(wire.StaleToken, "%s carries token %d, %s has seen %d", e.peer, m.Token, e.self, e.seen)
	}
	if e.role == state.Primary {
		return refuse(wire.BadState, "%s is Primary itself (token %d, the frame carries %d)", e.self, e.tenure, m.Token)
	}
	receiving := e.session.repl == state.Established || e.session.repl == state.SyncTarget || e.session.repl == state.PausedSyncT
	if e.session.phase != agreed || !receiving {
		return refuse(wire.BadState, "%s is not taking writes: replication is %s", e.self, e.session.repl)
	}
	v := e.byNumber(m.Volume)
	if v == nil {
		return refuse(wire.BadMessage, "there is no volume %d", m.Volume)
	}
	if m.Kind != wire.Flush {
		size, off, length := uint64(v.geo.SizeBytes), m.Offset, m.Length
		if length == 0 || off > size || length > size-off {
			return refuse(wire.BadMessage, "bytes %d+%d are not on volume %d of %d bytes", off, length, v.num, size)
		}
		if m.Kind == wire.Write && uint64(len(m.Data)) != length {
			return refuse(wire.BadMessage, "a write of %d bytes carries %d", length, len(m.Data))
		}
	}
	if !v.disk.HasData() {
		return refuse(wire.IOError, "the disk of volume %d is %s", v.num, v.disk)
	}
	return v, nil
}

func (e *Engine) byNumber(n uint16) *volume {
	for _, v := range e.vols {
		if v.num == n {
			return v
		}
	}
	return nil
}

// peerLocalDone acknowledges what our disk has done for the peer. What it could
// not do ends the session, with the reason.
func (e *Engine) peerLocalDone(o *op, err error) {
	if o.buf != nil {
		o.buf.Put()
		o.buf = nil
	}
	if err == nil && o.session == e.session.id && e.session.phase != ended {
		e.send(wire.Message{Kind: wire.Ack, ID: o.peerID})
	}
	v := o.vol
	e.peerOps--
	e.pool.put(o)
	if err != nil {
		e.diskFailed(v, err)
	}
	if e.peerOps == 0 {
		e.tryHello()
		e.controlProgress()
	}
}
