package engine

import (
	"fmt"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

type phase uint8

const (
	ended     phase = iota // no session
	greeting               // hellos are exchanged
	preparing              // agreed who is source; exclusion, SyncStart, bitmaps
	agreed                 // repl says what flows
)

// session is everything that ends with the connection.
type session struct {
	id      uint64
	phase   phase
	since   time.Duration
	path    string
	sent    bool            // our hello is out
	mine    *wire.HelloBody // as it was sent
	theirs  *wire.HelloBody // the latest
	greeted bool            // theirs has arrived
	repl    state.Replication
	plan    decision
	resync  resync
	// confirmed: the ledger has said, after the handshake, that the peer is not in
	// the in-sync set; only then is its copy overwritten
	confirmed bool
	starting  bool // the source prepares SyncStart
	begun     bool // it is out
	telling   telling
	keeping   bool // this node prepares to keep the data for a Primary without a copy
	closing   bool // it was dropped here: nothing is obeyed any more
	refused   bool // one side said why it ended it
	// proven: until then a session that followed another at once may end as well,
	// and nobody is taken out of the set for its sake
	proven time.Duration
}

func (e *Engine) send(m wire.Message) {
	e.emit(Effect{Kind: PeerSend, Session: e.session.id, Message: m})
}

// replicating reports whether a write goes to the peer as it happens.
func (e *Engine) replicating() bool {
	if e.session.phase != agreed {
		return false
	}
	switch e.session.repl {
	case state.Established, state.SyncSource, state.PausedSyncS:
		return true
	case state.Forwarding:
		return e.filling()
	default: // off, or the peer is the one that sends
		return false
	}
}

// negotiating: where a write would go is just being decided, and it would cost
// an exclusion to go on without the answer.
func (e *Engine) negotiating() bool { return e.session.phase == greeting && e.peerInSync() }

// writerToken is what our frames carry: the tenure of a Primary, else the highest one
// seen in this life, as of a resync between two Secondaries: the ledger is asked before
// that, and tells it. Until it has told anything only questions are sent.
func (e *Engine) writerToken() uint64 {
	switch {
	case e.role == state.Primary:
		return e.tenure
	case e.record.Token == 0:
		return e.highest()
	}
	return e.seen
}

func (e *Engine) linkUp(id uint64, path string) {
	e.session = session{id: id, phase: greeting, since: e.now, path: path}
	if x := &e.resize; x.alone && x.v.fitTo == 0 {
		e.endResize(fmt.Errorf("%s is back and has to grow as well; again: %w", e.peer, ErrBadState))
	}
	if e.role == state.Secondary && e.anyFailed() {
		e.leaveFailed()
		return
	}
	for _, v := range e.vols { // a disk may have grown since
		v.measuring = v.disk.HasData()
		if v.measuring {
			e.emit(Effect{Kind: MeasureDisk, Volume: v.index})
		}
	}
	e.tryHello()
}

// dropSession asks the link to end the session, once; LinkDown will say so.
func (e *Engine) dropSession(why error) {
	if e.session.phase != ended && !e.session.closing {
		e.session.closing = true
		e.emit(Effect{Kind: DropLink, Session: e.session.id, Err: why})
	}
}

// refuseSession tells the peer why, and ends the session; for good when trying
// again cannot help.
func (e *Engine) refuseSession(r *RefusedError) {
	e.send(wire.Message{Kind: wire.Refuse, Status: r.Status, Token: r.Token, Data: []byte(r.Text)})
	e.endSession(r)
}

func (e *Engine) endSession(r *RefusedError) {
	kind := DropLink
	if r.lasting() {
		kind = StandAlone
	}
	e.session.closing, e.session.refused = true, true
	e.note(fmt.Sprintf("connection to %s ends: %v", e.peer, r))
	e.emit(Effect{Kind: kind, Session: e.session.id, Err: r})
}

// linkDown: nobody touches our buffers any more, and no ack of this session
// will come. Whatever the peer may lack becomes dirty (R3, R6).
func (e *Engine) linkDown(id uint64, why error, ago time.Duration) {
	if id != e.session.id || e.session.phase == ended {
		return
	}
	e.note(fmt.Sprintf("connection to %s: was %s, now ended, because %v", e.peer, e.session.repl, why))
	if o := e.session.resync.flush; o != nil && o.kind == opFlush {
		e.pool.put(o)
	}
	if e.session.phase == preparing && (e.role == state.Secondary || !e.ledger.inFlight) {
		e.excluding = false // only the resync that was being prepared wanted it; what owes the ledger asks again
	}
	e.abandonVerify()
	if !e.resize.alone {
		e.endResize(e.resizeApart())
	}
	if e.forward.lost {
		e.loseCopies()
	}
	e.endedAt = e.now - ago // the link has given the peer time already
	e.session = session{id: id, phase: ended, since: e.endedAt, refused: e.session.refused}
	for _, v := range e.vols {
		e.abandonSync(v)
		e.forward.owed[v.index] = e.forward.owed[v.index] || v.unflushed.n > 0
		v.unflushed.drain(func(off, length int64) { v.bits.Set(off, length) })
		e.unsend(v)
	}
	e.unsendFlushes()
	e.unsendReads()
	if !e.excluding && e.owesLedger() {
		e.missPeer()
	}
	e.drainHeld()
	for _, v := range e.vols {
		e.wake(v)
		if len(v.cold) > 0 {
			e.prepareActivity(v)
		}
	}
	e.controlProgress()
	e.demoteApart()
}

// unsend turns the application ops that were sent into one-sided ones.
func (e *Engine) unsend(v *volume) {
	for o := v.active.head; o != nil; {
		next := o.next
		switch {
		case o.kind == opApplication && o.mends:
			e.unmend(o)
		case o.kind == opApplication && o.sent:
			o.sent = false
			v.bits.Set(o.disk.Offset, o.disk.Length)
			if o.owed&owedPeer != 0 && !e.forwards() {
				e.goesAlone(o)
			}
		}
		o = next
	}
}

func (e *Engine) unsendFlushes() {
	for _, o := range append([]*op(nil), e.flushes...) {
		sent := o.sent
		o.sent = false // an answer of this session covers nothing that it lost
		if !sent || o.owed&owedPeer == 0 {
			continue
		}
		if o.kind == opApplication && e.forwards() {
			continue
		}
		o.owed &^= owedPeer
		if o.kind == opApplication && !o.early {
			e.oneSided(o)
		} else if e.forward.on {
			o.mark, o.err = 0, errForward // who has the data has not flushed
		} else if e.peerInSync() {
			o.mark = 0
		}
		if o.owed == 0 {
			e.flushSettled(o)
		}
	}
}

// received dispatches one message of the peer.
func (e *Engine) received(id uint64, m *wire.Message) {
	if id != e.session.id || e.session.phase == ended || e.session.closing && m.Kind != wire.Refuse {
		releaseBuffer(m)
		return
	}
	switch m.Kind {
	case wire.Write, wire.WriteZeroes, wire.Discard, wire.Flush, wire.Read:
		e.peerRequest(m)
		return
	case wire.Ack:
		e.acked(m)
	case wire.Data:
		e.onData(m)
	case wire.Hello:
		e.onHello(m)
	case wire.State:
		e.onState(m)
	case wire.SyncStart:
		e.onSyncStart(m)
	case wire.Bitmap:
		e.onBitmap(m)
	case wire.BitmapDone:
		e.onBitmapDone()
	case wire.SyncDone:
		e.onSyncDone(m)
	case wire.InSync:
		e.onInSync(m)
	case wire.Verify:
		e.onVerify(m)
	case wire.Verified:
		e.onVerified(m)
	case wire.Refuse:
		e.onRefuse(m)
	default:
		e.refuseSession(&RefusedError{Status: wire.BadMessage, Text: fmt.Sprintf("message kind %d was not expected", m.Kind)})
	}
	releaseBuffer(m)
}

func releaseBuffer(m *wire.Message) {
	if m.Buffer != nil {
		m.Buffer.Put()
		m.Buffer, m.Data = nil, nil
	}
}

func (e *Engine) onRefuse(m *wire.Message) {
	r := &RefusedError{Status: m.Status, Token: m.Token, ByPeer: true, Text: string(m.Data)}
	if m.Status == wire.StaleToken && m.Token > e.seen {
		e.seen = m.Token
		if e.role == state.Primary && m.Token > e.tenure {
			e.depose(r)
		}
	}
	if m.Status == wire.Congested {
		e.pulled = true
	}
	if m.Status == wire.IOError {
		e.problem(fmt.Sprintf("%s left: %s", e.peer, r.Text))
		e.forward.lost = e.forward.on
	}
	e.endSession(r)
}

// acked takes the peer's answer to something we sent.
func (e *Engine) acked(m *wire.Message) {
	switch m.ID {
	case idSyncDone:
		e.syncDoneAcked(m)
		return
	case idForward:
		e.keeperReady()
		return
	case idFilled:
		e.onFilled()
		return
	}
	o := e.pool.find(m.ID)
	if m.Flags&wire.Memory != 0 {
		e.inMemory(o)
		return
	}
	if o == nil || o.owed&owedPeer == 0 || o.kind == opApplication && e.forward.on && !e.flowing() {
		return // ended, or to be sent again to the keeper
	}
	if o.disk.Op == block.Read && (o.kind == opApplication || o.kind == opFill) {
		e.readRefused(o)
		return
	}
	if m.Status != wire.OK {
		// The peer's copy lacks it now: end the session, which marks it dirty.
		e.dropSession(fmt.Errorf("volume %d: %s answered %s with status %d: %w", o.vol.num, e.peer, (&o.disk).String(), m.Status, block.ErrIO))
		return
	}
	switch {
	case o.kind == opResync:
		if o.check == nil { // else it is not sent yet
			e.chunkAcked(o)
		}
	case o == e.session.resync.flush:
		e.targetFlushed(o)
	case o.kind == opVerify:
		if o.check.repairing {
			e.repairAcked(o)
		}
	case o == e.verify.flush:
		e.repairFlushed(o)
	default:
		e.paid(o, owedPeer)
	}
}
