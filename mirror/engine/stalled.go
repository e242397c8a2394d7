package engine

import (
	"fmt"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// A disk that hangs, and a peer that does: neither says anything, and every
// application waits. Who can go on without them does, after a while.

// diskStalled: the disk of v has not answered for as long as why says. It is
// given up where somebody else goes on with the data, as if it had failed; what
// it does with its requests later counts for nothing. A Primary that has nobody
// waits: an error would be no better than a late answer.
func (e *Engine) diskStalled(v *volume, why error) {
	if v.disk.HasData() {
		if e.waitsForDisk() {
			if v.stalled == 0 || e.now-v.stalled > stallTold {
				e.problem(fmt.Sprintf("volume %d: the disk does not answer (%v), and no other copy could serve: I/O waits for it", v.num, why))
			}
			v.stalled = e.now
			return
		}
		v.hung = true
		e.diskFailed(v, why)
	}
	e.emit(Effect{Kind: AbandonDisk, Volume: v.index, Err: why})
}

// waitsForDisk: nobody goes on with the data when this disk is given up. A
// Secondary gives it up for the sake of its peer, which waits.
func (e *Engine) waitsForDisk() bool {
	switch {
	case e.aborting != nil || e.forward.on:
		return false
	case e.role == state.Secondary:
		return e.session.phase == ended || e.inSync(e.self) && !e.inSync(e.peer)
	case e.passOn:
		return false
	case e.control.of == Promote || e.control.of == Demote: // the plan moves the resource
		return !e.peerServes()
	}
	return !e.canForward() || e.peerSilent()
}

// peerSilent: the peer does not answer either, perhaps for the same reason.
func (e *Engine) peerSilent() bool {
	o := e.oldestAtPeer()
	return o != nil && e.now-o.sentAt > peerLively
}

// leaveMemory leaves what o had read into, or written from, to a disk that has
// not let go of it.
func (o *op) leaveMemory() {
	o.disk.Kept = false
	if o.copied && o.buf != nil { // it may have to be sent once more, and goes to nobody else
		o.buf = nil
		return
	}
	if o.buf != nil {
		o.buf = block.GetBuffer(len(o.disk.Data))
		o.disk.Data = o.buf.Bytes(len(o.disk.Data))
	}
	if o.req == nil {
		return
	}
	o.req.Kept = true
	if o.disk.Op == block.Read {
		o.disk.Data = block.Aligned(len(o.disk.Data))
		o.req.Data = o.disk.Data
	}
}

// slow is the patience with a peer whose link is alive and whose answers do not
// come.
type slow struct {
	ticks  time.Duration // when the tick looked last
	oldest uint64        // the op that the peer has had the longest
	since  time.Duration // when it became that, as far as this process ran
	rests
}

// rests are the pauses that a peer is given.
type rests struct {
	rest time.Duration // the latest
	at   time.Duration // when it began
}

// next begins another: twice as long as the last, unless that is long ago.
func (r *rests) next(now, shortest, longest time.Duration) time.Duration {
	if r.rest *= 2; r.at == 0 || now-r.at > slowForgiven*r.rest {
		r.rest = shortest
	}
	r.rest, r.at = min(r.rest, longest), now
	return r.rest
}

// slowTick ends a session in which the peer has not gone on for too long. What
// counts is how long its oldest request has been the oldest: a peer that is given a
// minute's work at once is busy for a minute. It is out of the in-sync set then, and
// comes back after a rest, which doubles while it stays slow: each return may cost
// another wait.
func (e *Engine) slowTick() {
	s, o := &e.slow, e.oldestAtPeer()
	seen := s.ticks
	if e.now-seen > slowBlind {
		seen, s.oldest = e.now, 0
	}
	s.ticks = e.now
	if o != nil && o.id != s.oldest {
		s.oldest, s.since = o.id, max(o.sentAt, seen)
	}
	limit := e.set.PeerTimeout
	if limit == 0 || o == nil || e.role != state.Primary || e.forward.on || e.anyFailed() || !e.hasLease() || !e.replicating() || e.session.closing || e.now-s.since < limit {
		return
	}
	rest := s.next(e.now, slowRestMin, slowRestMax)
	e.problem(fmt.Sprintf("%s is too slow: no answer to a request for %v; this node goes on without it, and looks for it again in %v", e.peer, limit, rest))
	e.restSession(&RefusedError{Status: wire.BadState, Text: fmt.Sprintf("%s has not answered a request for %v, and rests for %v", e.peer, limit, rest)}, rest)
}

// restSession ends the session with a reason, and leaves the peer alone for a while.
func (e *Engine) restSession(r *RefusedError, rest time.Duration) {
	e.send(wire.Message{Kind: wire.Refuse, Status: r.Status, Data: []byte(r.Text)})
	e.session.closing, e.session.refused = true, true
	e.emit(Effect{Kind: RestLink, Session: e.session.id, Err: r, For: rest})
}

// oldestAtPeer is what the peer has had the longest and not answered, of what an
// application may wait for: its own requests, chunks of a resync, locked checks of a
// verify; nil when there is nothing.
func (e *Engine) oldestAtPeer() (oldest *op) {
	look := func(o *op) {
		if o.sentAt != 0 && o.owed&owedPeer != 0 && (oldest == nil || o.sentAt < oldest.sentAt) {
			oldest = o
		}
	}
	for _, v := range e.vols {
		for o := v.active.head; o != nil; o = o.next {
			look(o)
		}
	}
	for _, o := range e.flushes {
		look(o)
	}
	return oldest
}
