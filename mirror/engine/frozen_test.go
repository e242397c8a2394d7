package engine

import (
	"errors"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/wire"
)

// frozen is a Primary that has just lost its lease, with a request of each kind
// that waits for authority.
func frozen(t *testing.T, fail bool) *box {
	t.Helper()
	b := mirrored(t, equal())
	b.eng.set.FailFrozen = fail
	b.submit(block.Write, 0, 4096) // done on both copies
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure})
	b.localDone(nil)
	b.ack(b.message(wire.Write))
	b.submit(block.Write, 8192, 4096) // not even begun
	b.submit(block.Read, 8192, 4096)
	b.submit(block.Flush, 0, 0)
	b.do(Event{Kind: Tick})
	b.none(Answer)
	return b
}

// Whether frozen I/O waits or fails may be changed while it is frozen: what has
// waited for long fails at once, and waits again when it is to wait.
func TestFrozenIOIsToldToFail(t *testing.T) {
	b := frozen(t, false)
	b.now += time.Hour
	b.do(Event{Kind: Tick})
	b.none(Answer)
	b.do(Event{Kind: Configure, Settings: Settings{FailFrozen: true}})
	for range 4 {
		if err := b.answered(); !errors.Is(err, block.ErrIO) {
			t.Fatalf("answered %v", err)
		}
	}
	b.do(Event{Kind: Configure})
	b.submit(block.Read, 0, 4096)
	b.do(Event{Kind: Tick})
	b.none(Answer)
}

// Frozen I/O waits as long as it takes, unless it is to fail; then it does after
// a while, and what comes fails at once, until the lease is back.
func TestFrozenIOFailsWhenItIsAskedTo(t *testing.T) {
	b := frozen(t, false)
	b.now += time.Hour
	b.do(Event{Kind: Tick})
	b.none(Answer)

	b = frozen(t, true)
	b.now += frozenMax - time.Millisecond
	b.do(Event{Kind: Tick})
	b.none(Answer)
	b.now += time.Millisecond
	b.do(Event{Kind: Tick})
	b.expect(Problem)
	for range 4 {
		if err := b.answered(); !errors.Is(err, block.ErrIO) {
			t.Fatalf("answered %v", err)
		}
	}
	b.submit(block.Read, 0, 4096)
	if err := b.answered(); !errors.Is(err, block.ErrIO) {
		t.Fatalf("answered %v", err)
	}
	b.none(LocalIO)
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure, Until: b.now + time.Hour})
	for range 2 { // before the next tick, and after it
		b.submit(block.Write, 0, 4096)
		b.localDone(nil)
		b.ack(b.message(wire.Write))
		if err := b.answered(); err != nil {
			t.Fatal(err)
		}
		b.do(Event{Kind: Tick})
	}
}

// A write that waits for the ledger, which has no quorum either, fails as well; it
// is here and may be missing on the peer.
func TestFrozenWriteThatWaitsForTheLedger(t *testing.T) {
	b := mirrored(t, equal())
	b.eng.set.FailFrozen = true
	b.submit(block.Write, 0, 4096)
	b.linkDown()
	b.localDone(nil)
	b.missed()
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure})
	for range 2 {
		b.now += frozenMax
		b.do(Event{Kind: Tick})
	}
	if err := b.answered(); !errors.Is(err, block.ErrIO) {
		t.Fatalf("answered %v", err)
	}
	if got := b.eng.View().Volumes[0].DirtyBytes; got == 0 {
		t.Error("what the peer may lack is not marked")
	}

	// With the lease back, it is not shown before the peer is out of the set.
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure, Until: b.now + time.Hour})
	b.do(Event{Kind: Tick})
	b.submit(block.Read, 0, 4096)
	b.localDone(nil)
	b.unanswered()
	b.ledger()
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// One that waits for its generation fails, ends at the disk, and waits for a lease to
// be answered. The generation that comes then is not for it any more.
func TestFrozenWriteThatWaitsForItsGeneration(t *testing.T) {
	b := mirrored(t, equal())
	b.eng.set.FailFrozen = true
	b.submit(block.Write, 0, 4096)
	b.linkDown()
	b.hold[WriteSuper] = true
	b.ledger()
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure})
	for range 2 {
		b.now += frozenMax
		b.do(Event{Kind: Tick})
	}
	b.localDone(nil)
	b.hold[WriteSuper] = false
	b.do(b.durable(b.expect(WriteSuper)))
	b.unanswered()
	b.do(Event{Kind: Tick})
	if err := b.answered(); !errors.Is(err, block.ErrIO) {
		t.Fatalf("answered %v", err)
	}
}

// on_no_quorum: error, with requests that wait for the keeper.
func TestFrozenWhileTheKeeperIsAway(t *testing.T) {
	b := forwarding(t)
	b.eng.set.FailFrozen = true
	b.submit(block.Write, 0, 4096)
	b.submit(block.Write, 0, 4096) // behind it
	b.submit(block.Read, 8192, 4096)
	b.submit(block.Flush, 0, 0)
	b.linkDown()
	b.out = nil
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure})
	for range 3 {
		b.now += frozenMax
		b.do(Event{Kind: Tick})
	}
	n := 0
	for {
		if _, ok := b.find(Answer, nil); !ok {
			break
		}
		n++
	}
	if n != 4 {
		t.Fatalf("%d of 4 were answered", n)
	}
}
