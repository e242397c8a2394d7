package engine

import (
	"errors"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// A box that loses its power loses its paths one after the other. What it could
// still tell the ledger over the last of them must not be that its peer, which
// is about to take over, is not current.
func TestNoExclusionWithTheLastBreath(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Write, 0, 4096)
	b.linkDown()
	b.localDone(nil)
	b.now += excludeAfter - time.Millisecond
	b.do(Event{Kind: Tick})
	b.none(LedgerExclude)
	b.none(Answer)
	b.now += time.Millisecond
	b.do(Event{Kind: Tick})
	b.ledger()
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// What the link has waited for the peer counts.
func TestPeerThatTheLinkHasWaitedForIsExcluded(t *testing.T) {
	b := mirrored(t, equal())
	b.now += time.Second
	b.submit(block.Write, 0, 4096)
	b.do(Event{Kind: LinkDown, Session: b.link, Err: errors.New("nobody answers"), Ago: excludeAfter - time.Millisecond})
	b.localDone(nil)
	b.do(Event{Kind: Tick})
	b.none(LedgerExclude)
	b.now += time.Millisecond
	b.do(Event{Kind: Tick})
	b.ledger()
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// A peer that is back in time, and lacks nothing, stays in the set.
func TestPeerThatIsBackInTimeStays(t *testing.T) {
	b := mirrored(t, equal())
	b.linkDown()
	b.submit(block.Flush, 0, 0)
	b.localDone(nil)
	b.now += excludeAfter / 2
	b.greet(nil)
	b.now += excludeAtLast
	b.do(Event{Kind: Tick})
	b.none(LedgerExclude)
	b.ack(b.message(wire.Flush))
	if got := b.eng.View().Replication; got != state.Established {
		t.Fatalf("replication is %s", got)
	}
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// A peer that greets and never comes to an end is not waited for.
func TestPeerThatComesAndGoesIsNotWaitedFor(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Write, 0, 4096)
	b.linkDown()
	b.linkUp()
	b.message(wire.Hello)
	b.now += excludeAtLast
	b.do(Event{Kind: Tick})
	b.expect(LedgerExclude)
}

// Who says that it leaves is not expected back.
func TestPeerThatLeavesIsNotWaitedFor(t *testing.T) {
	b := mirrored(t, equal())
	b.receive(wire.Message{Kind: wire.Refuse, Status: wire.Shutdown, Data: []byte("the agent stops")})
	b.linkDown()
	b.submit(block.Write, 0, 4096)
	b.expect(LedgerExclude)
}

// A box that loses its power: the mirror ends with the first port, begins again
// over the other, with a write in flight to be resynced, and ends with that. The
// peer, which has everything that was answered, is still in the set.
func TestNoExclusionByASessionThatDoesNotLast(t *testing.T) {
	b := mirrored(t, equal())
	b.now = time.Second
	b.submit(block.Write, 0, 4096)
	b.localDone(nil)
	b.linkDown()
	b.now += 6 * time.Millisecond
	b.greet(nil)
	b.none(LedgerExclude)
	b.now += 20 * time.Millisecond
	b.do(Event{Kind: Tick})
	b.linkDown()
	b.none(LedgerExclude)
	b.now += 10 * time.Millisecond
	b.greet(nil) // it was the cables, after all
	b.now += excludeAfter
	b.do(Event{Kind: Tick})
	b.ledger()
	b.message(wire.SyncStart)
}

// A write that waits for the activity log while the session breaks becomes hot
// during the next handshake, and goes on alone: the peer, which was told of no
// difference, is not taken for equal.
func TestColdWriteDuringTheHandshake(t *testing.T) {
	b := mirrored(t, equal())
	b.hold[WriteActivity] = true
	b.submit(block.Write, 32<<20, 4096)
	log := b.expect(WriteActivity)
	b.linkDown()
	b.linkUp()
	b.message(wire.Hello)
	b.do(b.durable(log))
	b.receive(b.peerHello(wire.Hello, nil))
	if got := b.eng.View().Replication; got == state.Established {
		t.Fatal("taken for equal")
	}
	b.expect(DropLink)
	b.localDone(nil)
	b.linkDown()
	b.greet(nil)
	b.ledger()
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}
