package engine

import (
	"bytes"
	"errors"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// by is a setup whose node is configured for a protocol.
func by(p state.Protocol) setup {
	s := equal()
	s.settings = Settings{Protocol: p, CongestionFill: 1 << 20}
	return s
}

// speaks makes a peer's hello that of one which is configured for a protocol.
func speaks(p state.Protocol) func(*wire.HelloBody) {
	return func(h *wire.HelloBody) { h.Features, h.Protocol = wire.FeatureRead|wire.FeatureProtocols, p }
}

// replicated makes the box a connected Primary, in a protocol that both ends are
// configured for.
func replicated(t *testing.T, p state.Protocol) *box {
	t.Helper()
	b := newBox(t, by(p))
	b.greet(speaks(p))
	b.promote()
	b.out = nil
	return b
}

// received is the peer's word that it has what m changes in its memory.
func (b *box) received(m wire.Message) {
	b.t.Helper()
	b.receive(wire.Message{Kind: wire.Ack, ID: m.ID, Flags: wire.Memory})
}

func (b *box) wellAnswered() {
	b.t.Helper()
	if err := b.answered(); err != nil {
		b.t.Fatal(err)
	}
}

// write submits a write whose bytes can be told from others, and returns it with
// its frame.
func (b *box) write(offset int64, fill byte) (*block.Request, wire.Message) {
	b.t.Helper()
	r := &block.Request{Op: block.Write, Offset: offset, Length: 4096, Data: bytes.Repeat([]byte{fill}, 4096)}
	b.do(Event{Kind: Submitted, Request: r})
	return r, b.message(wire.Write)
}

func TestProtocolBAnswersFromThePeersMemory(t *testing.T) {
	b := replicated(t, state.ProtocolB)
	_, m := b.write(0, 1)
	if m.Flags&wire.Memory == 0 {
		t.Fatalf("flags %#x: the peer is not asked for its word", m.Flags)
	}
	b.localDone(nil)
	b.unanswered()
	b.received(m)
	b.wellAnswered()
	b.submit(block.Write, 0, 4096) // what overlaps it waits for the peer's disk, a read too
	b.submit(block.Read, 0, 4096)
	b.none(LocalIO)
	b.ack(m)
	b.localDone(nil)
	b.unanswered()
}

// The other way round: the peer's word comes first.
func TestProtocolBAnswersWhenTheLocalDiskIsDone(t *testing.T) {
	b := replicated(t, state.ProtocolB)
	_, m := b.write(0, 1)
	b.received(m)
	b.unanswered()
	b.localDone(nil)
	b.wellAnswered()
	b.ack(m)
	b.unanswered()
	if n := b.eng.appOps + b.eng.early.ops + int(b.eng.early.bytes); n != 0 {
		t.Fatalf("%d in flight at the end", n)
	}
}

func TestProtocolBFUAIsDurableOnBoth(t *testing.T) {
	b := replicated(t, state.ProtocolB)
	b.do(Event{Kind: Submitted, Request: &block.Request{Op: block.Write, Length: 4096, Data: make([]byte, 4096), Flags: block.FUA}})
	m := b.message(wire.Write)
	b.localDone(nil)
	b.received(m)
	b.unanswered()
	b.ack(m)
	b.wellAnswered()
}

// In A it is answered as soon as it is durable here; the peer is told to keep its place.
func TestProtocolAFUAKeepsItsPlace(t *testing.T) {
	b := replicated(t, state.ProtocolA)
	b.do(Event{Kind: Submitted, Request: &block.Request{Op: block.Write, Length: 4096, Data: make([]byte, 4096), Flags: block.FUA}})
	m := b.message(wire.Write)
	if m.Flags != wire.FUA|wire.Ordered {
		t.Fatalf("%+v: the peer may have what comes later and not this", m)
	}
	b.localDone(nil)
	b.wellAnswered()
	if _, m := b.write(8192, 2); m.Flags != 0 {
		t.Fatalf("%+v", m)
	}
}

// A flush covers what was answered before it: on both disks.
func TestFlushWaitsForTheAcksOfWhatWasAnswered(t *testing.T) {
	b := replicated(t, state.ProtocolB)
	_, first := b.write(0, 1)
	b.localDone(nil)
	b.received(first)
	b.wellAnswered()
	b.submit(block.Flush, 0, 0)
	b.none(LocalIO)
	_, second := b.write(8192, 2) // answered after the flush came: it need not be covered
	b.localDone(nil)
	b.received(second)
	b.wellAnswered()
	b.ack(first)
	if b.message(wire.Flush).Flags != 0 {
		t.Fatal("a flush that needs no order asks for it")
	}
	if got := b.localDone(nil); got.Op != block.Flush {
		t.Fatalf("%s is at the disk", got)
	}
}

// What was answered and the peer's disk has not is dirty when the peer is lost,
// and the ledger is told before anything else is answered (R3, R5).
func TestWhatWasAnsweredEarlyIsDirty(t *testing.T) {
	for _, p := range []state.Protocol{state.ProtocolA, state.ProtocolB} {
		b := replicated(t, p)
		_, m := b.write(4096, 1)
		b.localDone(nil)
		if p == state.ProtocolB {
			b.received(m)
		}
		b.wellAnswered()
		b.linkDown()
		if !b.eng.vols[0].bits.Any(4096, 4096) {
			t.Fatalf("%s: the write is not dirty", p)
		}
		b.submit(block.Write, 4096, 4096) // waits for the first, which waits for the ledger
		b.none(LocalIO)
		b.ledger()
		b.localDone(nil)
		b.wellAnswered()
	}
}

// The application's memory is its own again: what is sent, and sent again, is a
// copy.
func TestWhatIsAnsweredEarlyIsSentFromACopy(t *testing.T) {
	b := replicated(t, state.ProtocolA)
	r, m := b.write(0, 7)
	b.localDone(nil)
	b.wellAnswered()
	clear(r.Data)
	if want := bytes.Repeat([]byte{7}, 4096); !bytes.Equal(m.Data, want) {
		t.Fatal("the frame's bytes change with the application's memory")
	}
}

func TestProtocolAAnswersWhenTheLocalDiskIsDone(t *testing.T) {
	b := replicated(t, state.ProtocolA)
	_, m := b.write(0, 1)
	if m.Flags&wire.Memory != 0 {
		t.Fatal("the peer is asked for what nobody waits for")
	}
	b.localDone(nil)
	b.wellAnswered()
	if w := b.eng.View(); w.BehindBytes != 4096 || w.Protocol != state.ProtocolA {
		t.Fatalf("%s, %d bytes behind", w.Protocol, w.BehindBytes)
	}
	b.submit(block.Read, 0, 4096) // what a read shows, both copies have
	b.none(LocalIO)
	b.ack(m)
	b.localDone(nil)
	b.wellAnswered()
	if w := b.eng.View(); w.BehindBytes != 0 {
		t.Fatalf("%d bytes behind", w.BehindBytes)
	}
}

// A flush in A is answered by the local disk; the peer does it in its place, and
// its ack is what the activity log and the ring wait for (R6, R7).
func TestProtocolAFlush(t *testing.T) {
	b := replicated(t, state.ProtocolA)
	_, m := b.write(0, 1)
	b.localDone(nil)
	b.wellAnswered()
	b.ack(m)
	b.submit(block.Flush, 0, 0)
	f := b.message(wire.Flush)
	if f.Flags&wire.Ordered == 0 {
		t.Fatal("the peer may do it before the writes it covers")
	}
	b.localDone(nil)
	b.wellAnswered()
	if v := b.eng.vols[0]; v.durable != 0 || v.unflushed.n != 1 {
		t.Fatalf("durable up to %d, %d remembered", v.durable, v.unflushed.n)
	}
	b.ack(f)
	if v := b.eng.vols[0]; v.durable != 1 || v.unflushed.n != 0 || b.eng.appOps != 0 {
		t.Fatalf("durable up to %d, %d remembered, %d in flight", v.durable, v.unflushed.n, b.eng.appOps)
	}
}

// A flush that was answered here and not at the peer makes nothing durable there.
func TestProtocolAFlushOfALostPeerCoversNothing(t *testing.T) {
	b := replicated(t, state.ProtocolA)
	_, m := b.write(0, 1)
	b.localDone(nil)
	b.ack(m)
	b.wellAnswered()
	b.submit(block.Flush, 0, 0)
	b.localDone(nil)
	b.wellAnswered()
	b.linkDown()
	if v := b.eng.vols[0]; v.durable != 0 || !v.bits.Any(0, 4096) || b.eng.appOps != 0 {
		t.Fatalf("durable up to %d, %d in flight, dirty %v", v.durable, b.eng.appOps, v.bits.Any(0, 4096))
	}
}

// The window is full: the next write is answered when there is room.
func TestCongestionHoldsAnswersBack(t *testing.T) {
	b := replicated(t, state.ProtocolA)
	b.do(Event{Kind: Configure, Settings: Settings{Protocol: state.ProtocolA, CongestionFill: 8192}})
	var frames []wire.Message
	for i := range int64(4) {
		_, m := b.write(i*8192, byte(i))
		frames = append(frames, m)
		b.localDone(nil)
	}
	b.wellAnswered()
	b.wellAnswered()
	b.unanswered()
	b.ack(frames[0])
	b.wellAnswered() // the third: by the room that the first left
	b.unanswered()
	b.ack(frames[3])
	b.wellAnswered() // the fourth: both have it
	for _, m := range frames[1:3] {
		b.ack(m)
	}
	b.unanswered()
	if n := b.eng.appOps + b.eng.early.ops + int(b.eng.early.bytes); n != 0 {
		t.Fatalf("%d in flight at the end", n)
	}
}

// A demotion waits for what was answered early: it hands over everything.
func TestDemotionWaitsForWhatWasAnsweredEarly(t *testing.T) {
	b := replicated(t, state.ProtocolA)
	_, m := b.write(0, 1)
	b.localDone(nil)
	b.wellAnswered()
	b.do(Event{Kind: Demote})
	b.none(Reply)
	b.none(LocalIO)
	b.ack(m)
	b.localDone(nil)
	b.none(Reply)
	b.ack(b.message(wire.Flush))
	if f := b.expect(Reply); f.Err != nil {
		t.Fatal(f.Err)
	}
}

// Authority is lost: what was answered is dirty, and nobody is told twice.
func TestAbortMarksWhatWasAnsweredEarly(t *testing.T) {
	b := replicated(t, state.ProtocolB)
	_, m := b.write(0, 1)
	b.localDone(nil)
	b.received(m)
	b.wellAnswered()
	b.submit(block.Flush, 0, 0) // waits for the write
	b.do(Event{Kind: Abort, Err: block.ErrNotPrimary})
	if err := b.answered(); !errors.Is(err, block.ErrNotPrimary) {
		t.Fatalf("the flush that waited: %v", err)
	}
	b.none(Reply) // the frame may still be on the wire
	b.linkDown()
	if f := b.expect(Reply); f.Err != nil || !b.eng.vols[0].bits.Any(0, 4096) {
		t.Fatalf("%v, dirty %v", f.Err, b.eng.vols[0].bits.Any(0, 4096))
	}
	b.unanswered()
}

// Without a lease nothing is answered, early neither (the pen law).
func TestNothingIsAnsweredEarlyWithoutALease(t *testing.T) {
	b := replicated(t, state.ProtocolA)
	b.write(0, 1)
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure})
	b.localDone(nil)
	b.unanswered()
}

// A peer of an earlier release, and one that is configured otherwise: the
// stricter protocol counts.
func TestTheStricterProtocolCounts(t *testing.T) {
	for _, c := range []struct {
		mine state.Protocol
		peer func(*wire.HelloBody)
		want state.Protocol
	}{
		{state.ProtocolA, speaks(state.ProtocolB), state.ProtocolB},
		{state.ProtocolB, speaks(state.ProtocolA), state.ProtocolB},
		{state.ProtocolC, speaks(state.ProtocolA), state.ProtocolC},
		{state.ProtocolA, speaks(state.ProtocolC), state.ProtocolC},
		{state.ProtocolA, nil, state.ProtocolC},
	} {
		b := newBox(t, by(c.mine))
		b.greet(c.peer)
		b.promote()
		b.out = nil
		_, m := b.write(0, 1)
		if got := b.eng.View().Protocol; got != c.want {
			t.Errorf("%s: %s, want %s", c.mine, got, c.want)
		}
		b.localDone(nil)
		b.received(m)
		if _, early := b.find(Answer, nil); early != (c.want != state.ProtocolC) {
			t.Errorf("%s with a peer that makes it %s: answered early: %v", c.mine, c.want, early)
		}
	}
}

// Configured anew, the peer is told, and what is sent from then on goes by it.
func TestProtocolChangesAtRunTime(t *testing.T) {
	b := replicated(t, state.ProtocolC)
	b.do(Event{Kind: Configure, Settings: Settings{Protocol: state.ProtocolA, CongestionFill: 1 << 20}})
	told := b.message(wire.State)
	if h, err := wire.ParseHello(told.Data); err != nil || h.Protocol != state.ProtocolA {
		t.Fatalf("%+v, %v", h, err)
	}
	b.write(0, 1)
	b.localDone(nil)
	b.unanswered() // the peer has not changed
	b.receive(b.peerHello(wire.State, speaks(state.ProtocolA)))
	b.write(8192, 1)
	b.localDone(nil)
	b.wellAnswered()
}

// The Primary's disk fails with answered writes that the peer may lack: they go
// to it again before anything is read from it.
func TestWhatWasAnsweredEarlyGoesToTheKeeper(t *testing.T) {
	b := replicated(t, state.ProtocolA)
	r, _ := b.write(0, 7)
	b.localDone(nil)
	b.wellAnswered()
	clear(r.Data)
	b.write(8192, 8)
	b.localDone(block.ErrIO)
	b.ledger()
	b.linkDown()
	b.greet(func(h *wire.HelloBody) { speaks(state.ProtocolA)(h); h.Record = b.record })
	b.receive(wire.Message{Kind: wire.Ack, ID: idForward})
	m := b.message(wire.Write)
	if m.Offset != 0 || !bytes.Equal(m.Data, bytes.Repeat([]byte{7}, 4096)) {
		t.Fatalf("%s, first byte %d", &m, m.Data[0])
	}
	b.submit(block.Read, 0, 4096)
	b.none(LocalIO)
	if f, ok := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Read }); ok {
		t.Fatalf("%s overtakes the write", &f.Message)
	}
	b.ack(m)
	b.message(wire.Read)
}

// At the end of a resync nothing is answered early: the target's copy is about to
// carry the generation that the two share, and to count.
func TestNothingIsAnsweredEarlyAtTheEndOfAResync(t *testing.T) {
	b := newBox(t, by(state.ProtocolA))
	b.promote()
	b.submit(block.Write, 0, 4096)
	b.ledger()
	b.localDone(nil)
	b.wellAnswered()
	b.greet(func(h *wire.HelloBody) { behind(h); speaks(state.ProtocolA)(h) })
	b.ledger()
	told := b.message(wire.State)
	b.message(wire.SyncStart)
	b.peer = b.peer.Begin(gens(t, &told))
	ready := func(h *wire.HelloBody) { b.asTarget(h); speaks(state.ProtocolA)(h) }
	b.receive(b.peerHello(wire.State, ready))
	b.receive(wire.Message{Kind: wire.BitmapDone})
	b.localDone(nil) // the chunk is read
	chunk := b.message(wire.WriteZeroes)
	_, early := b.write(4<<20, 1) // beside the resync it is answered early
	b.localDone(nil)
	b.wellAnswered()
	b.ack(chunk)
	b.ack(b.message(wire.Flush))
	b.none(LocalIO) // the end waits for what was answered
	_, late := b.write(8<<20, 2)
	b.localDone(nil)
	b.unanswered()
	b.ack(early)
	b.bothFlush()
	b.message(wire.SyncDone)
	b.unanswered()
	b.ack(late)
	b.wellAnswered()
}

// A session that is being dropped carries nothing any more: what is sent in it is
// not on its way.
func TestNothingIsAnsweredEarlyInADroppedSession(t *testing.T) {
	b := replicated(t, state.ProtocolA)
	_, first := b.write(0, 1)
	b.localDone(nil)
	b.wellAnswered()
	b.receive(wire.Message{Kind: wire.Ack, ID: first.ID, Status: wire.NoSpace})
	b.expect(DropLink)
	b.write(8192, 2)
	b.localDone(nil)
	b.unanswered()
}

// What was answered early, and goes again to the peer that has the only copy now,
// goes in the order of its answers, whichever volume it is of.
func TestWhatWaitsForTheKeeperGoesInOrder(t *testing.T) {
	s := by(state.ProtocolA)
	s.volumes = 2
	b := newBox(t, s)
	b.greet(speaks(state.ProtocolA))
	b.promote()
	b.out = nil
	for i, volume := range []int{1, 0, 1} {
		b.now++
		r := &block.Request{Op: block.Write, Offset: int64(i) * 4096, Length: 4096, Data: make([]byte, 4096)}
		b.do(Event{Kind: Submitted, Volume: volume, Request: r})
		b.message(wire.Write)
		b.localDone(nil)
		b.wellAnswered()
	}
	b.now++
	b.submit(block.Write, 1<<20, 4096)
	b.message(wire.Write)
	b.localDone(errSdb)
	b.ledger()
	b.linkDown()
	b.keeper()
	for i, volume := range []uint16{1, 0, 1, 0} {
		if m := b.message(wire.Write); m.Volume != volume {
			t.Fatalf("frame %d is %s, of volume %d", i, &m, m.Volume)
		}
	}
}
