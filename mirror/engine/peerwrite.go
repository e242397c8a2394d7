package engine

import (
	"bytes"
	"fmt"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// peerRequest is a read, write, discard, write-zeroes or flush of the peer.
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
	if e.session.repl == state.Forwarding {
		e.suspect = false // the Primary has taken this copy as it is
	}
	e.peerOps++
	if m.Kind.Changes() {
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
	if m.Kind == wire.Read {
		o.reads(o.disk.Offset, o.disk.Length)
	}
	if m.Flags&wire.Memory != 0 {
		e.send(wire.Message{Kind: wire.Ack, ID: m.ID, Flags: wire.Memory})
	}
	o.ordered = m.Flags&wire.Ordered != 0
	e.enterPeer(o)
}

func peerOp(m *wire.Message) (op block.Op, flags block.Flags) {
	switch m.Kind {
	case wire.WriteZeroes:
		op = block.WriteZeroes
	case wire.Discard:
		op = block.Discard
	case wire.Flush:
		op = block.Flush
	case wire.Read:
		op = block.Read
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
	if m.Token < e.highest() {
		return refuse(wire.StaleToken, "%s carries token %d, %s has seen %d", e.peer, m.Token, e.self, e.highest())
	}
	if e.role == state.Primary {
		return refuse(wire.BadState, "%s is Primary itself (token %d, the frame carries %d)", e.self, e.tenure, m.Token)
	}
	if e.session.phase != agreed || !e.receives(m.Kind) {
		return refuse(wire.BadState, "%s takes no %s: replication is %s", e.self, m.Kind, e.session.repl)
	}
	v := e.byNumber(m.Volume)
	if v == nil {
		return refuse(wire.BadMessage, "there is no volume %d", m.Volume)
	}
	if m.Kind != wire.Flush {
		size, off, length := uint64(e.holds(v)), m.Offset, m.Length
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

// receives reports whether the session is one in which the peer may ask for it:
// a copy that is being filled is not read.
func (e *Engine) receives(k wire.Kind) bool {
	switch e.session.repl {
	case state.Established, state.Forwarding:
		return true
	case state.SyncTarget, state.PausedSyncT:
		return k != wire.Read
	default:
		return false
	}
}

func (e *Engine) byNumber(n uint16) *volume {
	for _, v := range e.vols {
		if v.num == n {
			return v
		}
	}
	return nil
}

// answerPeer says what came of a request. What the link sends it keeps until it
// is sent: data go in memory of their own.
func (e *Engine) answerPeer(o *op, err error) {
	switch {
	case err == nil && o.disk.Op == block.Read:
		e.send(wire.Message{Kind: wire.Data, ID: o.peerID, Volume: o.vol.num, Offset: uint64(o.disk.Offset), Length: uint64(o.disk.Length), Data: bytes.Clone(o.disk.Data)})
	case err == nil:
		e.send(wire.Message{Kind: wire.Ack, ID: o.peerID})
	case o.disk.Op == block.Read:
		e.send(wire.Message{Kind: wire.Ack, ID: o.peerID, Status: wire.IOError})
	}
}

// peerLocalDone acknowledges what our disk has done for the peer. What it could
// not do ends the session, with the reason.
func (e *Engine) peerLocalDone(o *op, err error) {
	if o.session == e.session.id && e.session.phase != ended {
		e.answerPeer(o, err)
	}
	if o.buf != nil {
		o.buf.Put()
		o.buf = nil
	}
	v := o.vol
	if o.disk.Op == block.Read && err != nil {
		e.unreadable(v, err) // everything else of it may still be read
		err = nil
	}
	e.peerOps--
	e.barrier = e.barrier && !o.ordered
	e.pool.put(o)
	if err != nil {
		e.diskFailed(v, err)
	}
	e.drainParked()
	if e.peerOps == 0 {
		e.drainHeld()
		e.tryHello()
		e.controlProgress()
	}
}
