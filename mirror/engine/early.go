package engine

import (
	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// Protocols A and B: an application is answered before the peer's disk has its
// write. Beside that nothing is different: the op stays where it is until the
// peer has acknowledged it, with its range, its extents and a copy of its data,
// so that whatever happens to the peer finds it in flight. What is in flight is
// overtaken by nothing that overlaps it, a read neither: what a read shows, both
// copies have.

// early is what was answered before the peer's disk had it.
type early struct {
	ops    int   // in flight, flushes included
	bytes  int64 // of volumes, that they change
	behind ids   // the window is full: answered as soon as there is room, in order
}

// ids is a queue of ops by their ids; an op that has ended is found no more.
type ids struct {
	at      [applicationOpsMax]uint64
	head, n int
}

func (q *ids) first() uint64 { return q.at[q.head] }

func (q *ids) push(id uint64) {
	if q.n == len(q.at) { // full of those that have ended; what is lost is answered by its ack
		q.head, q.n = (q.head+1)%len(q.at), q.n-1
	}
	q.at[(q.head+q.n)%len(q.at)] = id
	q.n++
}

func (q *ids) pop() { q.head, q.n = (q.head+1)%len(q.at), q.n-1 }

// configure has other settings count. The peer is told of another protocol.
func (e *Engine) configure(s Settings) {
	was := e.set.Protocol
	e.set = s
	if s.Protocol != was {
		e.sendState()
	}
	e.drainBehind()
	e.frozenTick()
}

// protocol is what this session's writes are answered by: the stricter of what
// the two nodes are configured for, C with a peer that knows no other.
func (e *Engine) protocol() state.Protocol {
	s := &e.session
	if s.theirs == nil || s.theirs.Features&wire.FeatureProtocols == 0 {
		return state.ProtocolC
	}
	return e.set.Protocol.Stricter(s.theirs.Protocol)
}

// sendChange sends a changing op to the peer; one that may be answered before
// the peer has it on disk is taken a copy of first: an application that has
// been answered does other things with its memory.
func (e *Engine) sendChange(o *op) {
	m := writeMessage(o, e.tenure)
	switch p := e.protocol(); {
	case p == state.ProtocolB && o.disk.Flags&block.FUA == 0:
		m.Flags |= wire.Memory
		o.takeCopy()
	case p == state.ProtocolA:
		if o.disk.Flags&block.FUA != 0 {
			m.Flags |= wire.Ordered // answered before the peer has it: what comes later may not be there without it
		}
		o.takeCopy()
	}
	m.Data = o.disk.Data
	e.send(m)
}

func (o *op) takeCopy() {
	if o.copied {
		return
	}
	o.copied = true
	if n := len(o.disk.Data); n > 0 {
		o.buf = block.GetBuffer(n)
		copy(o.buf.Bytes(n), o.disk.Data)
		o.disk.Data = o.buf.Bytes(n)
	}
}

// inMemory is the peer's word that it has what o changes, in its memory.
func (e *Engine) inMemory(o *op) {
	if o != nil && o.kind == opApplication && o.copied {
		o.heard = true
		e.answerEarly(o)
	}
}

// mayBeEarly reports whether an op that owes the peer's ack alone may be answered
// now. A flush may in A: the local disk has flushed, and the peer does it in its
// place among the writes.
func (e *Engine) mayBeEarly(o *op) bool {
	if o.owed != owedPeer || o.kind != opApplication || o.early || !o.sent || o.err != nil || e.forward.on || e.aborting != nil ||
		e.session.phase != agreed || e.session.closing || e.session.resync.ending || e.anyFailed() || !e.hasLease() {
		return false
	}
	switch e.protocol() {
	case state.ProtocolB:
		return o.copied && o.heard
	case state.ProtocolA:
		return o.copied || o.disk.Op == block.Flush && o.ordered
	default: // C
		return false
	}
}

// answerEarly answers an op that both copies will have, if its protocol lets it
// and there is room in the window.
func (e *Engine) answerEarly(o *op) {
	if !e.mayBeEarly(o) {
		return
	}
	switch {
	case e.hasRoom(o):
	case o.disk.Op != block.Flush && o.disk.Length > e.set.CongestionFill:
		return // no window takes it, however empty: it is answered when the peer has it
	default:
		if !e.pullAhead() {
			e.early.behind.push(o.id)
		}
		return
	}
	o.early, o.epoch = true, o.vol.epoch
	e.early.ops++
	if o.disk.Op != block.Flush {
		e.early.bytes += o.disk.Length
		o.vol.early++
	}
	e.count(o, nil)
	e.emit(Effect{Kind: Answer, Request: o.req})
	o.req = nil
}

// hasRoom reports whether the window takes o: what may be lost with this node, and
// the memory that it takes, are bounded.
func (e *Engine) hasRoom(o *op) bool {
	return e.early.ops < earlyOpsMax && (o.disk.Op == block.Flush || e.early.bytes+o.disk.Length <= e.set.CongestionFill)
}

// drainBehind answers what waited for room in the window.
func (e *Engine) drainBehind() {
	for q := &e.early.behind; q.n > 0; q.pop() {
		o := e.pool.find(q.first())
		if o == nil || !e.mayBeEarly(o) {
			continue
		}
		if !e.hasRoom(o) {
			return
		}
		e.answerEarly(o)
	}
}

// endEarly ends an op whose application has been answered long ago.
func (e *Engine) endEarly(o *op) {
	v := o.vol
	e.early.ops--
	if o.disk.Op != block.Flush {
		e.early.bytes -= o.disk.Length
		v.early--
		e.unfence(v, o.epoch)
	}
	e.free(o)
	e.drainBehind()
	if e.early.ops == 0 {
		e.pumpSync()
	}
	e.controlProgress()
}

// free takes an application's op back.
func (e *Engine) free(o *op) {
	if o.buf != nil {
		o.buf.Put()
		o.buf = nil
	}
	e.pool.put(o)
	e.appOps--
	if len(e.held) > 0 {
		e.drainHeld()
	}
}

// beginFlush starts a flush of an application. What it was answered before counts
// as written, and is to be durable on both when the flush is answered: so it
// waits for the acks of what was answered early. In A it need not: the peer keeps
// the order.
func (e *Engine) beginFlush(o *op) {
	v := o.vol
	if v.early == 0 || e.replicating() && e.protocol() == state.ProtocolA {
		e.startFlush(o)
		return
	}
	v.epoch++
	o.epoch, o.fenced = v.epoch, v.early
	v.fences.push(o)
}

// unfence counts an op of an epoch off the flushes that wait for it.
func (e *Engine) unfence(v *volume, epoch uint64) {
	for o := v.fences.head; o != nil; {
		next := o.next
		if epoch < o.epoch {
			o.fenced--
		}
		if o.fenced == 0 {
			v.fences.remove(o)
			e.startFlush(o)
		}
		o = next
	}
}

// failFences ends the flushes that wait for writes: authority is lost.
func (e *Engine) failFences(v *volume, why error) {
	for v.fences.head != nil {
		o := v.fences.head
		v.fences.remove(o)
		o.err = why
		e.answer(o)
	}
}
