package engine

// What a peer's Primary asks is done as it comes, side by side; but for a flush,
// or a write with FUA, that is Ordered: it waits for all that came before it, and all
// that comes after waits for it, on whichever volume. So a copy that loses its power, having
// been given writes that its Primary had made durable without waiting, shows no later one
// without those.

// enterPeer hands a request of the peer to the disk, or lets it wait its turn.
func (e *Engine) enterPeer(o *op) {
	if e.parked.n > 0 || e.barrier || o.ordered && e.peerOps > 1 {
		e.parked.push(o)
		return
	}
	e.barrier = o.ordered
	e.emitLocal(o)
}

// drainParked goes on with what waited.
func (e *Engine) drainParked() {
	for o := e.parked.head; o != nil && !e.barrier; o = e.parked.head {
		if o.ordered && e.peerOps > e.parked.n {
			return // something is at the disk
		}
		e.parked.remove(o)
		e.barrier = o.ordered
		e.emitLocal(o)
	}
}

// dropParked forgets what waited: the disk has failed, and this copy counts for
// nothing until it has been compared anew.
func (e *Engine) dropParked() {
	for o := e.parked.head; o != nil; o = e.parked.head {
		e.parked.remove(o)
		if o.buf != nil {
			o.buf.Put()
			o.buf = nil
		}
		e.peerOps--
		e.pool.put(o)
	}
}
