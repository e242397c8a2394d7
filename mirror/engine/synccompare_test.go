package engine

import (
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// asking is a Primary that resyncs the first n bytes to a target that can be
// asked.
func asking(t *testing.T, n int64) *verifier {
	t.Helper()
	s := equal()
	s.slots = 32
	b := newBox(t, s)
	b.promote()
	b.submit(block.WriteZeroes, 0, n)
	b.ledger()
	b.localDone(nil)
	b.expect(Answer)
	b.greet(func(h *wire.HelloBody) { knows(h); behind(h) })
	b.ledger()
	told := b.message(wire.State)
	b.message(wire.SyncStart)
	b.peer = b.peer.Begin(gens(t, &told))
	b.receive(b.peerHello(wire.State, func(h *wire.HelloBody) { knows(h); b.asTarget(h) }))
	b.receive(wire.Message{Kind: wire.BitmapDone})
	return &verifier{box: b, theirs: map[int64]byte{}, ours: map[int64]byte{}}
}

// readChunk ends the oldest read of a resync, and digests what it read.
func (x *verifier) readChunk() bool {
	x.t.Helper()
	f, ok := x.find(LocalIO, func(f *Effect) bool { return f.Request.Op == block.Read && f.Request.Owner.(*op).kind == opResync })
	if !ok {
		return false
	}
	copy(f.Request.Data, content(x.ours, f.Request.Offset, f.Request.Length))
	x.do(Event{Kind: LocalDone, Request: f.Request})
	if d, ok := x.find(Digest, nil); ok {
		x.do(Event{Kind: Digested, Request: d.Request, Payload: wire.AppendDigests(nil, d.Request.Data)})
	}
	return true
}

func (x *verifier) sent() (n int) {
	for _, f := range x.out {
		if f.Kind == PeerSend && f.Message.Kind.HasBlocks() {
			n++
		}
	}
	return n
}

// What the target has already is not sent; its marks go when it has flushed,
// for it may have what it has in its cache only.
func TestResyncLeavesOutWhatIsEqual(t *testing.T) {
	x := asking(t, 2*resyncChunkBytes)
	clear(x.ours)
	x.ours[8192], x.ours[20480] = 1, 2
	for x.answer(wire.OK) {
	}
	for x.readChunk() {
	}
	m := x.message(wire.Write)
	if m.Offset != 8192 || m.Length != 16384 || m.Flags != wire.Resync || m.Data[0] != 1 || m.Data[12288] != 2 {
		t.Fatalf("%+v", m)
	}
	if n := x.sent(); n != 0 {
		t.Fatalf("%d more are sent", n)
	}
	if x.eng.vols[0].bits.Count() != 2*resyncChunkBytes/4096 {
		t.Fatal("marks went before the flush")
	}
	x.ack(m)
	x.ack(x.message(wire.Flush))
	x.bothFlush()
	x.ack(x.message(wire.SyncDone))
	if got := x.eng.View(); got.Volumes[0].DirtyBytes != 0 || got.ResyncEqual != 2*resyncChunkBytes-16384 {
		t.Fatalf("%d dirty, %d equal", got.Volumes[0].DirtyBytes, got.ResyncEqual)
	}
}

// What the target cannot read or will not tell is sent.
func TestResyncSendsWhatIsNotTold(t *testing.T) {
	for _, status := range []wire.Status{wire.IOError, wire.BadState, wire.StaleToken} {
		x := asking(t, resyncChunkBytes)
		x.answer(status)
		x.readChunk()
		if m := x.message(wire.WriteZeroes); m.Length != resyncChunkBytes {
			t.Fatalf("%s: %+v", status, m)
		}
	}
}

// Where what is asked about differs, it is not asked about for long, but now
// and then.
func TestResyncAsksAsLongAsItPays(t *testing.T) {
	x := asking(t, 160*resyncChunkBytes)
	for at := int64(0); at < 160*resyncChunkBytes; at += resyncChunkBytes {
		x.ours[at], x.ours[at+resyncChunkBytes-4096] = 1, 1
	}
	asked, chunks := 0, 0
	for done := false; !done; {
		done = true
		for x.answer(wire.OK) {
			asked, done = asked+1, false
		}
		for x.readChunk() {
			chunks, done = chunks+1, false
		}
		for {
			f, ok := x.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Write || f.Message.Kind == wire.Flush })
			if !ok {
				break
			}
			x.ack(f.Message)
			done = false
		}
	}
	if chunks != 160 || asked < 12 || asked > 50 {
		t.Fatalf("%d of %d chunks were asked about", asked, chunks)
	}
}

// The session may end while chunks are asked about, or digested.
func TestResyncThatAsksLeavesNothingBehind(t *testing.T) {
	for step := range 6 {
		x := asking(t, resyncChunkBytes)
		var digest *Effect
		f := x.expect(LocalIO)
		if step%2 == 1 {
			x.answer(wire.OK)
		}
		if step >= 2 {
			x.do(Event{Kind: LocalDone, Request: f.Request})
			d := x.expect(Digest)
			digest = &d
		}
		x.linkDown()
		if step >= 4 {
			x.greet(func(h *wire.HelloBody) { knows(h); behind(h) })
		}
		if digest != nil {
			x.do(Event{Kind: Digested, Request: digest.Request, Payload: wire.AppendDigests(nil, digest.Request.Data)})
		} else {
			x.do(Event{Kind: LocalDone, Request: f.Request})
			x.none(Digest)
		}
		x.clean()
		if x.eng.vols[0].bits.Count() != resyncChunkBytes/4096 {
			t.Fatalf("step %d: %d marked", step, x.eng.vols[0].bits.Count())
		}
	}
}

// A target answers what it is asked.
func TestTargetIsAskedWhatItHas(t *testing.T) {
	s := equal()
	s.record = wire.Record{Token: 2, InSync: []string{"beta"}}
	b := newBox(t, s)
	b.greet(nil)
	b.receive(wire.Message{Kind: wire.SyncStart})
	if got := b.eng.View().Replication; got != state.SyncTarget {
		t.Fatalf("replication is %s", got)
	}
	b.receive(wire.Message{Kind: wire.Verify, ID: 9, Length: 4096})
	b.localDone(nil)
	b.do(Event{Kind: Digested, Request: b.expect(Digest).Request, Payload: make([]byte, 32)})
	if m := b.message(wire.Verified); m.Status != wire.OK {
		t.Fatalf("%+v", m)
	}
}
