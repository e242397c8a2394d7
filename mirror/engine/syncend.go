package engine

import (
	"fmt"

	"hapair/mirror/block"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// finishSync: the target has everything. From here on this copy carries what
// the target carries, durably so before the target may call itself UpToDate:
// whatever is lost now, the next write that is taken here alone begins another
// generation, and no two copies of one generation differ unmarked.
func (e *Engine) finishSync() {
	e.session.resync.ending = false
	for i, v := range e.vols {
		if v.bits.Count() > 0 { // a range that waited behind the cursor, or could not be read
			if v.sync.again(e.now) {
				e.session.resync.volume = i
				e.pumpSync()
			}
			return
		}
	}
	e.session.resync.ending = true
	if e.early.ops > 0 {
		return // nothing that only this copy has was answered under what the two will share
	}
	if !e.flushedBoth() {
		return
	}
	e.session.resync.told = true
	for _, v := range e.vols {
		v.gen = v.gen.Finish()
	}
	e.inSessionAfterSupers(agreed, e.sendSyncDone)
}

// flushedBoth reports whether a flush of both copies has ended that began when
// everything was there, and sees to it. The source as well: what it was given as
// a Secondary, and never flushed, is in nobody's activity log any more when the
// two are in line.
func (e *Engine) flushedBoth() bool {
	r := &e.session.resync
	if e.anyFailed() {
		return false
	}
	if r.flushs == nil {
		r.flushs = e.nextFlushes()
	}
	return e.flushedSince(r.flushs)
}

func (e *Engine) sendSyncDone() {
	data, err := wire.AppendHello(nil, e.hello())
	if err != nil {
		e.dropSession(fmt.Errorf("our own hello: %w", err))
		return
	}
	e.send(wire.Message{Kind: wire.SyncDone, ID: idSyncDone, Token: e.writerToken(), Data: data})
}

// onSyncDone: the target adopts the source's generation, durably, then says so.
func (e *Engine) onSyncDone(m *wire.Message) {
	h := e.parseHello(m)
	if h == nil {
		return
	}
	if e.filling() && e.session.resync.told && len(h.Volumes) == len(e.vols) {
		e.adoptFill(h)
		return
	}
	if e.session.repl != state.SyncTarget && e.session.repl != state.PausedSyncT || len(h.Volumes) != len(e.vols) {
		e.refuseSession(&RefusedError{Status: wire.BadState, Text: "the resync is not complete here"})
		return
	}
	for i, v := range e.vols {
		v.gen = v.gen.Adopt(genid.FromWords(h.Volumes[i].Gen))
		v.disk, v.full, v.assume, v.doubt = state.UpToDate, false, false, false
		v.bits.ClearAll()
	}
	e.suspect = false
	e.inSessionAfterSupers(agreed, func() { e.send(wire.Message{Kind: wire.Ack, ID: idSyncDone}) })
}

// syncDoneAcked: the target is complete and flushed; the ledger may know.
// Until it has answered, the target counts as in sync.
func (e *Engine) syncDoneAcked(m *wire.Message) {
	if !e.session.resync.told || e.session.resync.include {
		return
	}
	if m.Status != wire.OK {
		e.dropSession(fmt.Errorf("%s could not finish the resync: status %d: %w", e.peer, m.Status, block.ErrIO))
		return
	}
	if e.inSync(e.peer) {
		e.included()
		return
	}
	e.session.resync.include = true
	e.ledgerNext()
}

// included: the ledger has recorded the peer as in sync.
func (e *Engine) included() {
	for _, v := range e.vols {
		v.touch()
		v.full, v.doubt = false, false
	}
	e.suspect, e.whole = false, wholeSync{}
	e.verify.found.resynced()
	if e.session.theirs != nil {
		e.session.theirs.Suspect = false
	}
	e.noteOn(OnResync, fmt.Sprintf("resync to %s is complete: in sync", e.peer))
	if e.session.phase != agreed {
		return
	}
	e.session.repl, e.alike = state.Established, true
	e.backInTime()
	e.session.resync = resync{}
	if e.sendInSync() {
		e.controlProgress()
	}
}

// sendInSync tells the peer that the ledger counts both copies.
func (e *Engine) sendInSync() bool {
	data, err := wire.AppendRecord(nil, &e.record)
	if err != nil {
		e.dropSession(fmt.Errorf("our own record: %w", err))
		return false
	}
	e.send(wire.Message{Kind: wire.InSync, Token: e.writerToken(), Data: data})
	e.sendState()
	return true
}

// onInSync: the source says that the ledger counts our copy again.
func (e *Engine) onInSync(m *wire.Message) {
	forwarding := e.session.repl == state.Forwarding && e.role == state.Secondary
	if e.session.repl != state.SyncTarget && e.session.repl != state.PausedSyncT && !forwarding {
		return
	}
	r, err := wire.ParseRecord(m.Data)
	if err != nil {
		e.refuseSession(&RefusedError{Status: wire.BadMessage, Text: err.Error()})
		return
	}
	if forwarding {
		e.applyRecord(*r) // see forwardingBy
		return
	}
	e.session.repl, e.whole = state.Established, wholeSync{}
	e.verify.found.resynced()
	e.applyRecord(*r)
	e.noteOn(OnResync, "resync is complete: in sync")
	e.sendState()
	e.controlProgress()
}
