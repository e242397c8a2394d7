package engine

import (
	"bytes"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// A resync, from the source: exclusion committed (R11) -> its generations and,
// when all is to be sent, its whole bitmap are durable -> SyncStart -> the
// target is durably Inconsistent, carries the source's SyncID, and sends its
// bitmap -> chunks -> the target flushes, then the bits are cleared (R4) -> the
// source goes on under the SyncID, durably -> SyncDone -> the target is durably
// UpToDate -> the ledger records it as in sync -> InSync.

// idSyncDone is what the ack of SyncDone carries.
const idSyncDone = ^uint64(0)

// resync is the progress of the session's resync, at the source and, by what
// arrives, at the target.
type resync struct {
	volume  int // the volume being sent
	chunks  int // in flight
	flush   *op // a flush of the target on its way
	total   int64
	done    int64    // acknowledged, at the source; what it told, at the target
	ending  bool     // everything was sent: nothing is answered early until the two are in line
	told    bool     // SyncDone is out
	include bool     // the target is complete: the ledger is to record it
	flushs  []uint64 // per volume: the flush of both copies that must have ended
	rate    rate

	equal      int64 // bytes that were found equal and not sent
	equalRatio int64 // of what was asked about lately, of askScale
	unasked    int   // chunks since the last that was asked about
}

// syncState is per volume: where the cursor is, and which chunks the target
// has acknowledged but not yet flushed.
type syncState struct {
	cursor int64
	acked  []span
	retry  time.Duration // chunks could not be read, and are not tried again before
	failed int           // how many since
	fine   bool          // they are tried block by block
}

// unread: a chunk could not be read, and is left alone for a while.
func (s *syncState) unread(now time.Duration) {
	s.retry, s.failed = now+resyncRetryAfter, s.failed+1
}

// again begins a round for what is left when the last one is through, block by block
// if something could not be read; false while that rests.
func (s *syncState) again(now time.Duration) bool {
	if now < s.retry {
		return false
	}
	s.cursor, s.fine = 0, s.retry > 0
	return true
}

type span struct{ offset, length int64 }

// pumpSync keeps chunks in flight, then moves on: next volume, or the end.
func (e *Engine) pumpSync() {
	r := &e.session.resync
	if e.session.repl != state.SyncSource || r.told {
		return
	}
	for r.volume < len(e.vols) {
		v := e.vols[r.volume]
		for r.chunks < resyncOpsMax && e.nextChunk(opResync, v) {
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

// nextChunk begins the next chunk of what is marked, to be sent or to be fetched;
// false when nothing is left behind the cursor, no op is free, or so much could not
// be read that the disk has a rest.
func (e *Engine) nextChunk(kind opKind, v *volume) bool {
	if v.sync.failed > 0 && e.now >= v.sync.retry {
		v.sync.failed = 0
	}
	if v.sync.failed >= resyncFailuresMax {
		return false // the whole disk may be gone
	}
	most := int64(resyncChunkBytes)
	if v.sync.fine {
		most = dirty.BlockBytes
	}
	off, length, ok := v.bits.NextRun(v.sync.cursor, most)
	if !ok {
		return false
	}
	o := e.pool.get(kind, v)
	if o == nil {
		return false
	}
	v.sync.cursor = off + length
	e.session.resync.chunks++
	o.session, o.start0 = e.session.id, e.forward.filled
	o.reads(off, length)
	e.enter(o)
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
	if e.session.repl == state.SyncSource && e.asks() {
		e.askTarget(o)
	}
	e.emitLocal(o)
}

func (e *Engine) chunkRead(o *op, err error) {
	o.owed &^= owedLocal
	if o.session != e.session.id || !e.replicating() {
		e.dropChunk(o)
		return
	}
	if err != nil {
		e.unreadable(o.vol, err)
		o.vol.sync.unread(e.now)
		e.session.resync.chunks--
		e.dropChunk(o)
		e.pumpSync()
		return
	}
	if o.check != nil {
		o.owed |= owedDigest
		e.emit(Effect{Kind: Digest, Volume: o.vol.index, Request: &o.disk})
		return
	}
	e.sendChunk(o, span{o.disk.Offset, o.disk.Length})
}

// sendChunk sends a part of what was read, or all of it.
func (e *Engine) sendChunk(o *op, s span) {
	data := o.disk.Data[s.offset-o.disk.Offset:][:s.length]
	m := wire.Message{Kind: wire.Write, Flags: wire.Resync, Volume: o.vol.num, ID: o.id, Token: e.writerToken(),
		Offset: uint64(s.offset), Length: uint64(s.length), Data: data}
	if allZero(data) {
		m.Kind, m.Data = wire.WriteZeroes, nil
	}
	o.owed, o.sentAt = o.owed|owedPeer, e.now
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
	r.done += o.disk.Length
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
	v.unmark(o.mark)
	e.pool.put(o)
	e.pumpSync()
}

// unmark takes the marks of the first n chunks that were acknowledged.
func (v *volume) unmark(n uint64) {
	for _, s := range v.sync.acked[:n] {
		v.bits.Clear(s.offset, s.length)
	}
	v.sync.acked = append(v.sync.acked[:0], v.sync.acked[n:]...)
}

// abandonSync forgets the chunks of a session that ended; their bits are set.
func (e *Engine) abandonSync(v *volume) {
	v.sync.acked = v.sync.acked[:0]
	for _, l := range []*opList{&v.active, &v.waiting} {
		for o := l.head; o != nil; {
			next := o.next
			if (o.kind == opResync || o.kind == opFill) && o.owed&(owedLocal|owedDigest) == 0 {
				l.remove(o)
				e.freeChunk(o)
			}
			o = next
		}
	}
}
