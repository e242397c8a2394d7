package engine

import (
	"fmt"
	"slices"
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
		e.diskFailed(v, why)
	}
	e.emit(Effect{Kind: AbandonDisk, Volume: v.index, Err: why})
}

func (e *Engine) waitsForDisk() bool {
	return e.role == state.Primary && e.aborting == nil && !e.passOn && !e.forward.on && e.control.of != Demote && !e.canForward()
}

// leaveMemory leaves what o had read into, or written from, to a disk that has
// not let go of it.
func (o *op) leaveMemory() {
	o.disk.Kept = false
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
	ticks time.Duration // when the tick looked last
	from  time.Duration // time counts from here at the earliest: this process did not run before
	rest  time.Duration // after the latest slowness
	at    time.Duration // of it
}

// slowTick ends a session in which an application has waited for the peer for
// too long. The peer is out of the in-sync set then, and comes back after a
// rest, which doubles while it stays slow: each return may cost another wait.
func (e *Engine) slowTick() {
	s := &e.slow
	if e.now-s.ticks > slowBlind {
		s.from = e.now
	}
	s.ticks = e.now
	if e.set.PeerTimeout == 0 || e.role != state.Primary || e.forward.on || e.anyFailed() || !e.hasLease() || !e.replicating() || e.session.closing {
		return
	}
	since, ok := e.oldestAtPeer()
	if since = max(since, s.from); !ok || e.now-since < e.set.PeerTimeout {
		return
	}
	if s.rest *= 2; s.at == 0 || e.now-s.at > slowForgiven*s.rest {
		s.rest = slowRestMin
	}
	s.rest, s.at = min(s.rest, slowRestMax), e.now
	r := &RefusedError{Status: wire.BadState, Text: fmt.Sprintf("%s has not answered a request for %v, and rests for %v", e.peer, e.set.PeerTimeout, s.rest)}
	e.problem(fmt.Sprintf("%s is too slow: no answer to a request for %v; this node goes on without it, and looks for it again in %v", e.peer, e.set.PeerTimeout, s.rest))
	e.send(wire.Message{Kind: wire.Refuse, Status: r.Status, Data: []byte(r.Text)})
	e.session.closing, e.session.refused = true, true
	e.emit(Effect{Kind: RestLink, Session: e.session.id, Err: r, For: s.rest})
}

// oldestAtPeer is since when the peer has had the oldest request that it has not
// answered and an application may wait for: its own, or a chunk of a resync.
func (e *Engine) oldestAtPeer() (since time.Duration, ok bool) {
	look := func(o *op) {
		if o.sentAt != 0 && o.owed&owedPeer != 0 && (!ok || o.sentAt < since) {
			since, ok = o.sentAt, true
		}
	}
	for _, v := range e.vols {
		for o := v.active.head; o != nil; o = o.next {
			look(o)
		}
	}
	for o := range slices.Values(e.flushes) {
		look(o)
	}
	return since, ok
}
