package engine

import "hapair/mirror/state"

// A tenure begins not knowing how the peer's copy ended the one before: a write
// that was never answered may be on either. As long as both are in the set, a
// failover may serve the other next, so what a read shows here might be gone
// there. Such a tenure answers no read alone before the peer is out of the set,
// as it answers no write (R10). What ends that is a handshake that found the
// copies equal, a resync, or the former Primary's word that it went in order.

// mayDiffer reports whether the peer may come to be promoted with other contents
// than this copy has, beside writes in flight.
func (e *Engine) mayDiffer() bool {
	e.alike = e.alike || !e.peerInSync() // it comes back into the set by a resync
	return !e.alike
}

// inherited: the session is that of the tenure before, and the former Primary has
// not said how it ended. It says so, or the session ends.
func (e *Engine) inherited() bool {
	return e.session.phase == agreed && e.session.repl == state.Established && !e.alike
}

// handedOver: the peer was Primary in this session, and is no more; nothing of it is
// in flight.
func (e *Engine) handedOver() bool {
	s := &e.session
	return s.phase == agreed && s.repl == state.Established && !s.closing && s.theirs.Role != state.Primary
}

// readAlone makes a read owe what its answer takes where the copies may differ.
func (e *Engine) readAlone(o *op) {
	if !e.mayDiffer() && !e.unshared(o) {
		return
	}
	if e.anyFailed() {
		o.err = errDiskFailed
		return
	}
	o.owed |= owedLedger
	e.missPeer()
}

// unshared: what a read asks for may have been changed with an error for an answer,
// because a node with a dead disk does not ask for its peer's removal. The peer may
// lack it, and still be promoted.
func (e *Engine) unshared(o *op) bool {
	return e.anyFailed() && e.peerInSync() && !e.replicating() && o.vol.bits.Any(o.disk.Offset, o.disk.Length)
}

// backInTime: the peer that a read waited for is here, with an equal copy.
func (e *Engine) backInTime() {
	if !e.alike {
		return
	}
	for _, v := range e.vols {
		e.payReads(v, nil)
	}
}

// payReads takes the ledger's debt off the reads at the disk.
func (e *Engine) payReads(v *volume, err error) {
	for o := v.reads.head; o != nil; {
		next := o.next
		if o.owed&owedLedger != 0 {
			if err != nil {
				o.err = err
			}
			e.paid(o, owedLedger)
		}
		o = next
	}
}
