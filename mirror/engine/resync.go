package engine

import (
	"bytes"
	"fmt"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// A resync, from the source: exclusion committed (R11) -> SyncStart -> the
// target is durably Inconsistent and sends its bitmap -> chunks -> the target
// flushes, then the bits are cleared (R4) -> SyncDone -> the target has adopted
// the generation durably -> the ledger records it as in sync -> InSync.

// idSyncDone is what the ack of SyncDone carries.
const idSyncDone = ^uint64(0)

// resync is the progress of the session's resync, at the source and, by what
// arrives, at the target.
type resync struct {
	volume  int // the volume being sent
	chunks  int // in flight
	flush   *op // a flush of the target on its way
	total   int64
	done    int64
	told    bool // SyncDone is out
	include bool // the target is complete: the ledger is to record it
	rate    rate
}

// syncState is per volume: where the cursor is, and which chunks the target
// has acknowledged but not yet flushed.
type syncState struct {
	cursor int64
	acked  []span
}

type span struct{ offset, length int64 }

// startSource begins once the target is out of the in-sync set.
func (e *Engine) startSource() {
	for _, v := range e.vols {
		if !v.disk.CanServe() {
			e.dropSession(fmt.Errorf("volume %d is %s and cannot be the source of a resync: %w", v.num, v.disk, ErrNotUpToDate))
			return
		}
	}
	if e.session.plan.full {
		for _, v := range e.vols {
			v.bits.SetAll()
		}
	}
	e.send(wire.Message{Kind: wire.SyncStart, Token: e.writerToken()})
}

// onSyncStart: the target's copy stops counting, durably, before the first
// byte arrives; then it says what it may have that the source has not.
func (e *Engine) onSyncStart(m *wire.Message) {
	if e.session.phase != preparing || e.session.plan.action != actTarget || e.role == state.Primary {
		e.refuseSession(&RefusedError{Status: wire.BadState, Text: "a resync was not agreed on"})
		return
	}
	if m.Token < e.seen {
		e.refuseSession(&RefusedError{Status: wire.StaleToken, Token: e.seen, Text: fmt.Sprintf("SyncStart carries token %d, %d was seen", m.Token, e.seen)})
		return
	}
	e.seen = max(e.seen, m.Token)
	for _, v := range e.vols {
		v.disk, v.assume = state.Inconsistent, false
	}
	id := e.session.id
	e.afterSupers(func() {
		if e.session.id == id && e.session.phase == preparing && !e.session.closing && !e.anyFailed() {
			e.sendBitmaps()
		}
	})
}

func (e *Engine) sendBitmaps() {
	e.sendState() // Inconsistent from here on
	for _, v := range e.vols {
		for p := 0; p < v.bits.Pages() && !e.session.plan.full; p++ {
			if !v.bits.PageEmpty(p) {
				data := v.bits.Page(p, make([]byte, 0, dirty.PageBytes))
				e.send(wire.Message{Kind: wire.Bitmap, Volume: v.num, Offset: uint64(p), Length: uint64(len(data)), Data: data})
			}
		}
	}
	e.session.phase, e.session.repl = agreed, state.SyncTarget
	e.send(wire.Message{Kind: wire.BitmapDone})
}

func (e *Engine) onBitmap(m *wire.Message) {
	v := e.byNumber(m.Volume)
	err := fmt.Errorf("no resync from here was agreed on: %w", ErrBadState)
	if e.session.phase == preparing && e.session.plan.action == actSource && v != nil && m.Offset < uint64(v.bits.Pages()) {
		_, err = v.bits.MergePage(int(m.Offset), m.Data)
	}
	if err != nil {
		e.refuseSession(&RefusedError{Status: wire.BadMessage, Text: fmt.Sprintf("bitmap page %d of volume %d: %v", m.Offset, m.Volume, err)})
	}
}

func (e *Engine) onBitmapDone() {
	if e.session.phase != preparing || e.session.plan.action != actSource {
		e.refuseSession(&RefusedError{Status: wire.BadState, Text: "no resync from here was agreed on"})
		return
	}
	e.session.phase, e.session.repl = agreed, state.SyncSource
	e.session.resync = resync{}
	if e.paused {
		e.session.repl = state.PausedSyncS
	}
	for _, v := range e.vols {
		v.sync = syncState{acked: v.sync.acked[:0]}
		e.session.resync.total += v.bits.DirtyBytes()
	}
	e.established()
	e.sendState()
	e.pumpSync()
}

// rate is the progress of the last seconds.
type rate struct {
	at   [rateSamples]int64 // done, a sample a second
	n    int
	last time.Duration
}

const (
	rateSamples  = 5
	rateInterval = time.Second
)

// sample takes one a second; it reports whether it did.
func (r *rate) sample(now time.Duration, done int64) bool {
	if r.n > 0 && now-r.last < rateInterval {
		return false
	}
	copy(r.at[1:], r.at[:rateSamples-1])
	r.at[0], r.last = done, now
	r.n = min(r.n+1, rateSamples)
	return true
}

// perSecond is bytes per second over the samples, up to done at now.
func (r *rate) perSecond(now time.Duration, done int64) int64 {
	if r.n == 0 {
		return 0
	}
	span := now - r.last + time.Duration(r.n-1)*rateInterval
	if span <= 0 {
		return 0
	}
	return int64(float64(done-r.at[r.n-1]) / span.Seconds())
}

// syncTick measures a resync, and tells the target how far it is.
func (e *Engine) syncTick() {
	s := &e.session
	switch s.repl {
	case state.SyncSource, state.SyncTarget, state.PausedSyncS, state.PausedSyncT:
	default:
		return
	}
	if s.resync.rate.sample(e.now, s.resync.done) && (s.repl == state.SyncSource || s.repl == state.PausedSyncS) {
		e.sendState()
	}
}

// pumpSync keeps chunks in flight, then moves on: next volume, or the end.
func (e *Engine) pumpSync() {
	r := &e.session.resync
	if e.session.repl != state.SyncSource || r.told {
		return
	}
	for r.volume < len(e.vols) {
		v := e.vols[r.volume]
		for r.chunks < resyncOpsMax && e.nextChunk(v) {
		}
		if r.chunks > 0 || r.flush != nil {
			return
		}
		if len(v.sync.acked) > 0 {
			e.flushTarget(v)
			return
		}
		if _, _, more := v.bits.NextRun(v.sync.cursor, resyncChunkBytes); more {
			return // no op was free; the next ack asks again
		}
		r.volume++
	}
	e.finishSync()
}

func (e *Engine) nextChunk(v *volume) bool {
	off, length, ok := v.bits.NextRun(v.sync.cursor, resyncChunkBytes)
	if !ok {
		return false
	}
	o := e.pool.get(opResync, v)
	if o == nil {
		return false
	}
	v.sync.cursor = off + length
	e.session.resync.chunks++
	o.session = e.session.id
	o.buf = block.GetBuffer(int(length))
	o.disk.Op, o.disk.Offset, o.disk.Length, o.disk.Data = block.Read, off, length, o.buf.Bytes(int(length))
	if v.blocks(o) {
		v.waiting.push(o)
	} else {
		e.beginChunk(o)
	}
	return true
}

// beginChunk locks the range from the read here to the ack of the target.
func (e *Engine) beginChunk(o *op) {
	if !o.vol.disk.HasData() {
		e.freeChunk(o)
		e.dropSession(errDiskFailed)
		return
	}
	o.vol.active.push(o)
	o.owed = owedLocal
	e.emit(Effect{Kind: LocalIO, Volume: o.vol.index, Request: &o.disk})
}

func (e *Engine) chunkRead(o *op, err error) {
	o.owed &^= owedLocal
	if o.session != e.session.id || !e.replicating() {
		e.dropChunk(o)
		return
	}
	if err != nil {
		e.note(fmt.Sprintf("resync: volume %d cannot be read: %v", o.vol.num, err))
		e.dropChunk(o)
		e.dropSession(fmt.Errorf("resync source: %w", err))
		return
	}
	m := wire.Message{Kind: wire.Write, Flags: wire.Resync, Volume: o.vol.num, ID: o.id, Token: e.writerToken(),
		Offset: uint64(o.disk.Offset), Length: uint64(o.disk.Length), Data: o.disk.Data}
	if allZero(o.disk.Data) {
		m.Kind, m.Data = wire.WriteZeroes, nil
	}
	o.owed |= owedPeer
	e.send(m)
}

var zeroes [4096]byte

func allZero(b []byte) bool {
	for len(b) > len(zeroes) {
		if !bytes.Equal(b[:len(zeroes)], zeroes[:]) {
			return false
		}
		b = b[len(zeroes):]
	}
	return bytes.Equal(b, zeroes[:len(b)])
}

// dropChunk frees a chunk that will not be sent, or was lost.
func (e *Engine) dropChunk(o *op) {
	v := o.vol
	v.active.remove(o)
	e.freeChunk(o)
	e.wake(v)
}

func (e *Engine) freeChunk(o *op) {
	o.buf.Put()
	o.buf = nil
	e.pool.put(o)
}

func (e *Engine) chunkAcked(o *op) {
	v, r := o.vol, &e.session.resync
	r.chunks--
	v.sync.acked = append(v.sync.acked, span{o.disk.Offset, o.disk.Length})
	e.dropChunk(o)
	if len(v.sync.acked) >= resyncFlushChunks && r.flush == nil {
		e.flushTarget(v)
	}
	e.pumpSync()
}

// flushTarget makes acknowledged chunks durable at the target.
func (e *Engine) flushTarget(v *volume) {
	o := e.pool.get(opFlush, v)
	if o == nil {
		return // asked again by the next ack
	}
	o.disk.Op, o.disk.Offset, o.disk.Length = block.Flush, 0, 0
	o.mark = uint64(len(v.sync.acked))
	o.owed, o.sent = owedPeer, true
	e.session.resync.flush = o
	e.send(wire.Message{Kind: wire.Flush, Volume: v.num, ID: o.id, Token: e.writerToken()})
}

// targetFlushed clears the bits of what is now durable there (rule R4).
func (e *Engine) targetFlushed(o *op) {
	v, r := o.vol, &e.session.resync
	r.flush = nil
	for _, s := range v.sync.acked[:o.mark] {
		r.done += v.bits.Clear(s.offset, s.length) * dirty.BlockBytes
	}
	v.sync.acked = append(v.sync.acked[:0], v.sync.acked[o.mark:]...)
	e.pool.put(o)
	e.pumpSync()
}

// abandonSync forgets the chunks of a session that ended; their bits are set.
func (e *Engine) abandonSync(v *volume) {
	v.sync.acked = v.sync.acked[:0]
	for _, l := range []*opList{&v.active, &v.waiting} {
		for o := l.head; o != nil; {
			next := o.next
			if o.kind == opResync && o.owed&owedLocal == 0 {
				l.remove(o)
				e.freeChunk(o)
			}
			o = next
		}
	}
}

// finishSync tells the target that it has everything.
func (e *Engine) finishSync() {
	for i, v := range e.vols {
		if v.bits.Count() > 0 { // a range that waited behind the cursor
			v.sync.cursor = 0
			e.session.resync.volume = i
			e.pumpSync()
			return
		}
	}
	h := e.hello()
	data, err := wire.AppendHello(nil, h)
	if err != nil {
		e.dropSession(fmt.Errorf("our own hello: %w", err))
		return
	}
	e.session.resync.told = true
	e.send(wire.Message{Kind: wire.SyncDone, ID: idSyncDone, Token: e.writerToken(), Data: data})
}

// onSyncDone: the target adopts the source's generation, durably, then says so.
func (e *Engine) onSyncDone(m *wire.Message) {
	h := e.parseHello(m)
	if h == nil {
		return
	}
	if e.session.repl != state.SyncTarget && e.session.repl != state.PausedSyncT || len(h.Volumes) != len(e.vols) {
		e.refuseSession(&RefusedError{Status: wire.BadState, Text: "the resync is not complete here"})
		return
	}
	for i, v := range e.vols {
		v.gen = v.gen.Adopt(unpackGen(h.Volumes[i].Gen))
		v.disk, v.full, v.assume = state.UpToDate, false, false
		v.bits.ClearAll()
	}
	e.suspect = false
	id := e.session.id
	e.afterSupers(func() {
		if e.session.id == id && e.session.phase == agreed && !e.session.closing && !e.anyFailed() {
			e.send(wire.Message{Kind: wire.Ack, ID: idSyncDone})
		}
	})
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
	e.eachGen(genid.Set.SourceDone)
	for _, v := range e.vols {
		v.touch()
		v.full = false
	}
	e.suspect = false
	if e.session.theirs != nil {
		e.session.theirs.Suspect = false
	}
	e.note(fmt.Sprintf("resync to %s is complete: in sync", e.peer))
	if e.session.phase != agreed {
		return
	}
	e.session.repl = state.Established
	e.session.resync = resync{}
	data, err := wire.AppendRecord(nil, &e.record)
	if err != nil {
		e.dropSession(fmt.Errorf("our own record: %w", err))
		return
	}
	e.send(wire.Message{Kind: wire.InSync, Token: e.writerToken(), Data: data})
	e.sendState()
	e.controlProgress()
}

// onInSync: the source says that the ledger counts our copy again.
func (e *Engine) onInSync(m *wire.Message) {
	if e.session.repl != state.SyncTarget && e.session.repl != state.PausedSyncT {
		return
	}
	r, err := wire.ParseRecord(m.Data)
	if err != nil {
		e.refuseSession(&RefusedError{Status: wire.BadMessage, Text: err.Error()})
		return
	}
	e.session.repl = state.Established
	e.applyRecord(*r)
	e.note("resync is complete: in sync")
	e.sendState()
	e.controlProgress()
}
