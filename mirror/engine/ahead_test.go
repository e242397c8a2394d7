package engine

import (
	"testing"
	"time"

	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// congested makes a Primary in protocol A that may pull ahead, with two answered
// writes in a window of two.
func congested(t *testing.T) *box {
	t.Helper()
	b := replicated(t, state.ProtocolA)
	b.do(Event{Kind: Configure, Settings: Settings{Protocol: state.ProtocolA, CongestionFill: 8192, PullAhead: true}})
	for i := range int64(2) {
		b.write(i*8192, byte(i))
		b.localDone(nil)
		b.wellAnswered()
	}
	return b
}

// The window is full: the session ends, the ledger is told, what the peer lacks is
// marked, and the write that did not fit is answered.
func TestPullAhead(t *testing.T) {
	b := congested(t)
	b.write(4<<20, 9)
	b.localDone(nil)
	b.unanswered()
	if m := b.message(wire.Refuse); m.Status != wire.Congested {
		t.Fatalf("%s", &m)
	}
	if f := b.expect(RestLink); f.For != aheadRestMin {
		t.Fatalf("a rest of %v", f.For)
	}
	b.linkDown()
	if got := b.eng.View().Replication; got != state.Ahead {
		t.Fatalf("replication is %s", got)
	}
	b.unanswered() // R5
	b.ledger()
	b.wellAnswered()
	if v := b.eng.vols[0]; !v.bits.Any(0, 4096) || !v.bits.Any(8192, 4096) || !v.bits.Any(4<<20, 4096) || b.eng.early.ops != 0 {
		t.Fatalf("what the peer lacks is not marked, or %d are in flight", b.eng.early.ops)
	}
	b.greet(func(h *wire.HelloBody) { behind(h); speaks(state.ProtocolA)(h); h.Record = b.record })
	if got := b.eng.View().Replication; got == state.Ahead {
		t.Fatal("still ahead in a session")
	}
}

// Again, soon: the next rest is twice as long.
func TestPullAheadDoesNotFlap(t *testing.T) {
	var r rests
	for i, want := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second} {
		if got := r.next(time.Duration(i+1)*time.Second, aheadRestMin, aheadRestMax); got != want {
			t.Fatalf("rest %d is %v, want %v", i, got, want)
		}
	}
	if got := r.next(time.Hour, aheadRestMin, aheadRestMax); got != aheadRestMin {
		t.Fatalf("long after the last: %v", got)
	}
}

// The peer hears why.
func TestSecondaryIsBehind(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	b.out = nil
	b.receive(wire.Message{Kind: wire.Refuse, Status: wire.Congested, Data: []byte("beta pulls ahead")})
	b.expect(DropLink)
	b.linkDown()
	if got := b.eng.View().Replication; got != state.Behind {
		t.Fatalf("replication is %s", got)
	}
	b.greet(nil)
	if got := b.eng.View().Replication; got != state.Established {
		t.Fatalf("replication is %s", got)
	}
}

// A resync that the Primary pulled ahead of would never end: answers wait.
func TestNothingPullsAheadDuringAResync(t *testing.T) {
	b := congested(t)
	b.write(4<<20, 9)
	b.localDone(nil)
	b.linkDown()
	b.ledger()
	b.out = nil
	b.greet(func(h *wire.HelloBody) { behind(h); speaks(state.ProtocolA)(h); h.Record = b.record })
	b.ledger()
	told := b.message(wire.State)
	b.message(wire.SyncStart)
	b.peer = b.peer.Begin(gens(t, &told))
	b.receive(b.peerHello(wire.State, func(h *wire.HelloBody) { b.asTarget(h); speaks(state.ProtocolA)(h) }))
	b.receive(wire.Message{Kind: wire.BitmapDone})
	b.out = nil
	for i := range int64(3) {
		b.write(32<<20+i*8192, byte(i))
		b.localDone(nil)
	}
	b.wellAnswered()
	b.wellAnswered()
	b.unanswered()
	b.none(RestLink)
}
