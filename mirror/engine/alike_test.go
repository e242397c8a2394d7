package engine

import (
	"errors"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// Promoted without its peer, a node answers no read before the peer is out of the
// set: what it shows could be gone with the next failover. No generation begins.
func TestR10ReadAloneWaitsForTheExclusion(t *testing.T) {
	b := newBox(t, equal())
	b.promote()
	b.submit(block.Read, 0, 4096)
	b.localDone(nil)
	b.unanswered()
	b.ledger()
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	if got := b.super[0].Gen; got != (genid.Set{Current: 77}) {
		t.Errorf("a read began generation %s", got)
	}
	b.submit(block.Read, 0, 4096)
	b.localDone(nil)
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// A tenure in which the copies were equal goes on reading when the peer is gone.
func TestR10ReadGoesOnWhereTheCopiesWereEqual(t *testing.T) {
	b := mirrored(t, equal())
	b.linkDown()
	b.submit(block.Read, 0, 4096)
	b.localDone(nil)
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	b.none(LedgerExclude)
}

// A session with a Primary that did not say goodbye tells nothing of its last
// writes: reads wait for its word, or for the end of the session.
func TestR10ReadWaitsForTheFormerPrimary(t *testing.T) {
	for name, ends := range map[string]bool{"it says so": false, "the session ends": true} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, equal())
			b.greet(func(h *wire.HelloBody) { h.Role = state.Primary })
			b.promote()
			b.submit(block.Read, 0, 4096)
			b.none(LocalIO)
			if ends {
				b.linkDown()
				b.localDone(nil)
				b.unanswered()
				b.ledger()
			} else {
				b.receive(b.peerHello(wire.State, nil))
				b.localDone(nil)
				b.none(LedgerExclude)
			}
			if err := b.answered(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A read that waits for the ledger ends with the authority, or with the disk.
func TestReadThatWaitsForTheLedgerEnds(t *testing.T) {
	for name, ev := range map[string]func(b *box) Event{
		"abort":       func(*box) Event { return Event{Kind: Abort} },
		"disk failed": func(b *box) Event { return Event{Kind: SuperDone, Version: 99, Err: errSdb} },
	} {
		b := newBox(t, equal())
		b.promote()
		b.submit(block.Read, 0, 4096)
		b.localDone(nil)
		b.unanswered()
		b.do(ev(b))
		if err := b.answered(); !errors.Is(err, block.ErrNotPrimary) && !errors.Is(err, block.ErrIO) {
			t.Errorf("%s: answered %v", name, err)
		}
	}
}

// While the ledger decides whether the peer, which has just been filled, is in
// the set, a read waits for the answer.
func TestReadBesideAnInclusion(t *testing.T) {
	b, done := syncing(t)
	b.receive(wire.Message{Kind: wire.Ack, ID: done.ID})
	b.expect(LedgerInclude)
	b.submit(block.Read, 0, 4096)
	b.localDone(nil)
	b.record.Token++
	b.do(Event{Kind: LedgerDone, Record: b.record, Err: ErrStaleToken}) // a race was lost; it is asked again
	b.do(Event{Kind: Tick})
	b.unanswered()
	b.ledger()
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// Of two volumes one is lost, and the peer leaves. It may come back, or be promoted,
// and cannot be taken out of the set from here: a write fails, and no read shows it.
// What both have is read on.
func TestReadOfAWriteThatFailed(t *testing.T) {
	two := equal()
	two.volumes = 2
	b := mirrored(t, two)
	b.do(Event{Kind: Submitted, Volume: 1, Request: &block.Request{Op: block.Write, Length: 4096, Data: make([]byte, 4096)}})
	b.localDone(errSdb)
	b.linkDown()
	b.out = nil
	b.submit(block.Write, 0, 4096)
	b.localDone(nil)
	if err := b.answered(); !errors.Is(err, errDiskFailed) {
		t.Fatalf("the write is answered with %v", err)
	}
	b.submit(block.Read, 0, 4096)
	b.localDone(nil)
	if err := b.answered(); !errors.Is(err, errDiskFailed) {
		t.Fatalf("the read of it is answered with %v", err)
	}
	b.submit(block.Read, 1<<20, 4096)
	b.localDone(nil)
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	b.none(LedgerExclude)
}
