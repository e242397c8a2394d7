package engine

import (
	"errors"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// A flush that the peer had answered, and the failing disk had not, when the session ended.
func TestFlushOfTheOldSessionIsAnswered(t *testing.T) {
	b := capable(t, equal())
	b.submit(block.Flush, 0, 0)
	flush := b.expect(LocalIO)
	b.ack(b.message(wire.Flush))
	b.submit(block.Write, 0, 4096)
	b.localDone(errSdb)
	b.ledger()
	b.linkDown()
	b.do(Event{Kind: LocalDone, Request: flush.Request, Err: errSdb}) // the disk answers now
	b.none(Answer)
	b.keeper()
	b.ack(b.message(wire.Write))
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	b.ack(b.message(wire.Flush))
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// A flush of ours that the peer answered before the writes it lost does not say that it has them.
func TestOldFlushDoesNotCoverWhatWasLost(t *testing.T) {
	b := refilling(t)
	b.fetchAll()
	b.localDone(nil) // the flush of the chunks; then one of both copies
	local := b.expect(LocalIO)
	b.ack(b.message(wire.Flush))
	b.submit(block.Write, 0, 4096) // answered; at the peer in its cache only
	b.localDone(nil)
	b.ack(b.message(wire.Write))
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	b.linkDown() // the peer crashes
	if !b.eng.forward.owed[0] {
		t.Fatal("not owed")
	}
	b.do(Event{Kind: LocalDone, Request: local.Request})
	b.greet(func(h *wire.HelloBody) {
		able(h)
		h.Suspect = true
		h.Volumes[0].Gen = genid.Set{Current: 4711, Bitmap: 99}.Words()
	})
	b.receive(wire.Message{Kind: wire.Ack, ID: idForward})
	if got := b.eng.View().Replication; got == state.Forwarding {
		t.Fatal("goes on with a peer that lost a write which was answered and not flushed")
	}
}

// The new disk fails while the ledger is about to count it.
func TestNewDiskFailsWhileItIsIncluded(t *testing.T) {
	b := refilling(t)
	b.fetchAll()
	b.localDone(nil) // the flush
	b.bothFlush()
	b.receive(b.peerHello(wire.SyncDone, func(h *wire.HelloBody) { h.Volumes[0].Gen = genid.Set{Current: 4711}.Words() }))
	if _, ok := b.find(LedgerInclude, nil); !ok {
		t.Fatal("no include")
	}
	b.submit(block.Write, 0, 4096)
	w := b.message(wire.Write)
	b.localDone(errSdb) // the new disk fails; its superblock says UpToDate under the peer's generation
	b.record.Token++
	b.record.InSync = []string{"alpha", "beta"}
	b.do(Event{Kind: LedgerDone, Record: b.record})
	b.ack(w)
	if _, told := b.find(Answer, nil); told {
		t.Error("answered a write that only the peer has, while the ledger counts this copy")
	}
	if _, ok := b.find(LedgerGiveUp, nil); !ok {
		t.Error("the copy is not given up again")
	}
}

// The keeper of a second time begins a generation as well.
func TestSecondKeepBeginsAGeneration(t *testing.T) {
	b := newBox(t, equal())
	b.record = wire.Record{Token: 3, Tenure: 2, Primary: "beta", InSync: []string{"alpha"}}
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	b.greet(diskless(b.record))
	b.receive(wire.Message{Kind: wire.Ack, ID: idFilled})
	b.message(wire.SyncDone)
	shared := b.super[0].Gen // what the Primary's copy adopts
	b.record.Token, b.record.InSync = 4, []string{"alpha", "beta"}
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	if got := b.eng.View().Replication; got != state.Established {
		t.Fatal(got)
	}
	b.record.Token, b.record.InSync = 5, []string{"alpha"}
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	b.linkDown()
	b.out = nil
	b.greet(func(h *wire.HelloBody) {
		diskless(b.record)(h)
		h.Volumes[0].Gen = genid.Set{Current: shared.Current}.Words()
	})
	if got := b.eng.View().Replication; got != state.Forwarding {
		t.Fatal(got)
	}
	if b.super[0].Gen.Current == shared.Current {
		t.Fatal("keeps the data under the generation of the copy given up")
	}
}

// A keeper that has just started hears of its ledger's past: that both copies were
// in the set once does not say that what it keeps for its peer is there.
func TestKeeperThatReadsAnOldRecord(t *testing.T) {
	b := newBox(t, equal()) // token 1
	b.greet(diskless(wire.Record{Token: 3, Tenure: 2, Primary: "beta", InSync: []string{"alpha"}}))
	if got := b.eng.View().Replication; got != state.Forwarding {
		t.Fatal(got)
	}
	for token, in := range [][]string{2: {"alpha", "beta"}, 3: {"alpha"}} {
		if in == nil {
			continue
		}
		b.do(Event{Kind: LedgerRecord, Record: wire.Record{Token: uint64(token), Tenure: 2, Primary: "beta", InSync: in}})
		if v := b.eng.View(); v.Replication != state.Forwarding || v.Volumes[0].DirtyBytes != volumeBytes {
			t.Fatalf("token %d: %s, %d bytes are marked", token, v.Replication, v.Volumes[0].DirtyBytes)
		}
		b.none(DropLink)
	}
	b.do(Event{Kind: LedgerRecord, Record: wire.Record{Token: 4, Tenure: 2, Primary: "beta", InSync: []string{"alpha", "beta"}}})
	if v := b.eng.View(); v.Replication != state.Established || v.Volumes[0].DirtyBytes != 0 {
		t.Fatalf("%s, %d bytes are marked", v.Replication, v.Volumes[0].DirtyBytes)
	}
}

// The disk of a Primary fails while a resync is being prepared that is to cost the
// peer its place: the peer stays in the set, and the next handshake knows why.
func TestDiskFailsWhileAResyncIsPrepared(t *testing.T) {
	b := capable(t, equal())
	b.now = time.Minute
	b.submit(block.Write, 0, 4096)
	w := b.expect(LocalIO)
	b.linkDown() // the write is dirty
	b.greet(able)
	if b.eng.session.plan.action != actSource || b.eng.session.phase != preparing {
		t.Fatalf("phase %d, action %d", b.eng.session.phase, b.eng.session.plan.action)
	}
	b.do(Event{Kind: LocalDone, Request: w.Request, Err: errSdb})
	b.expect(DropLink)
	b.now += excludeAtLast
	b.do(Event{Kind: Tick})
	b.none(LedgerExclude)
	if err := b.answered(); err == nil {
		t.Fatal("answered with success")
	}
}

// What a fill has at the disk when the authority is lost must not land on what the next source sends.
func TestHelloWaitsForWhatTheFillHasAtTheDisk(t *testing.T) {
	b := refilling(t)
	b.data(b.message(wire.Read), 7)
	w := b.expect(LocalIO) // a slow disk
	if w.Request.Op != block.Write {
		t.Fatal(w.Request)
	}
	b.do(Event{Kind: Abort})
	b.linkDown()
	b.expect(Reply)
	b.record.Token++
	b.record.Tenure, b.record.Primary = b.record.Token, "beta"
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	b.linkUp()
	if _, sent := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Hello }); sent {
		t.Fatal("greets while a chunk of the fill is still at the disk: what the next session writes may be overwritten by it")
	}
}

// A disk that has failed is asked for nothing: its backing may be gone.
func TestFailedDiskIsNotFlushed(t *testing.T) {
	b := newBox(t, equal())
	b.greet(able)
	b.receive(wire.Message{Kind: wire.Write, ID: 5, Token: 1, Offset: 0, Length: 4096, Data: make([]byte, 4096)})
	b.localDone(errSdb)
	b.linkDown()
	b.out = nil
	b.do(Event{Kind: Detach})
	b.none(LocalIO)
}

// The same disk failure after the copy was complete and before the ledger was asked, session going on.
func TestNewDiskFailsWhenItIsComplete(t *testing.T) {
	b := refilling(t)
	b.fetchAll()
	b.localDone(nil)
	b.bothFlush()
	b.hold[WriteSuper] = true
	b.receive(b.peerHello(wire.SyncDone, func(h *wire.HelloBody) { h.Volumes[0].Gen = genid.Set{Current: 4711}.Words() }))
	b.submit(block.Write, 0, 4096)
	w := b.message(wire.Write)
	b.localDone(errSdb)
	b.hold[WriteSuper] = false
	b.do(b.durable(b.expect(WriteSuper)))
	b.ack(w)
	if _, told := b.find(Answer, nil); told {
		t.Error("answers a write under the generation that the copy which failed carries")
	}
	if _, in := b.find(LedgerInclude, nil); in {
		t.Error("include")
	}
}

// A keeper that crashed, and was accepted again because nothing was owed, is not
// taken for crashed again after the next break of the session.
func TestKeeperIsNotSuspectForEver(t *testing.T) {
	s := equal()
	s.super.Clean = false // it crashed
	s.record = wire.Record{Token: 3, Tenure: 2, Primary: "beta", InSync: []string{"alpha"}}
	b := newBox(t, s)
	b.greet(diskless(b.record))
	b.receive(wire.Message{Kind: wire.Write, ID: 5, Token: 2, Offset: 0, Length: 4096, Data: make([]byte, 4096)})
	b.localDone(nil)
	if b.eng.View().Suspect {
		t.Error("still suspect while it is the keeper that the Primary goes on through")
	}
	b.receive(wire.Message{Kind: wire.Ack, ID: idFilled})
	b.record.Token, b.record.InSync = 4, []string{"alpha", "beta"}
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	if b.eng.View().Replication != state.Established {
		t.Fatal("not established")
	}
	if b.eng.View().Suspect {
		t.Error("still suspect when the Primary's copy was filled from it")
	}
}

// With the peer away for long nothing is given up for it.
func TestNothingIsGivenUpForAPeerThatIsAway(t *testing.T) {
	b := capable(t, equal())
	b.linkDown()
	b.now += 10 * time.Minute
	b.do(Event{Kind: Tick})
	b.hold[WriteActivity] = true
	b.submit(block.Write, 0, 4096)
	b.expect(WriteActivity)
	b.do(Event{Kind: ActivityDone, Err: errSdb})
	b.none(LedgerGiveUp)
	if err := b.answered(); err == nil {
		t.Fatal("answered with success")
	}
}

// Nothing is given up for a peer whose copy is, or may come to be, worth less than
// this one, though the ledger counts it yet: gone a moment ago, told meanwhile that
// its copy is worthless, or crashed and not brought in line by this tenure. The
// pair would be left with that copy alone.
func TestNothingIsGivenUpForAWorseCopy(t *testing.T) {
	for name, come := range map[string]func(b *box){
		"gone":        func(*box) {},
		"invalidated": func(b *box) { b.greet(func(h *wire.HelloBody) { able(h); h.Volumes[0].FullSync = true }) },
		"crashed": func(b *box) {
			b.greet(func(h *wire.HelloBody) { able(h); h.Suspect, h.Volumes[0].DirtyBlocks = true, 1 })
		},
		"not met": func(b *box) { b.greet(able); b.eng.alike = false },
	} {
		b := capable(t, equal())
		b.linkDown()
		come(b)
		b.do(Event{Kind: DiskStalled, Err: errHangs})
		if _, gone := b.find(LedgerGiveUp, nil); gone || b.eng.View().Volumes[0].Disk != state.UpToDate {
			t.Errorf("%s: the disk is given up", name)
		}
		b.do(Event{Kind: SuperDone, Version: 1, Err: errSdb})
		if _, gone := b.find(LedgerGiveUp, nil); gone {
			t.Errorf("%s: the copy is given up for it", name)
		}
	}
}

// A peer that cannot serve, connected all the same (an earlier release): what waits is told.
func TestConnectedPeerThatCannotServe(t *testing.T) {
	b := forwarding(t)
	b.linkDown()
	b.submit(block.Write, 0, 4096)
	b.greet(nil) // no FeatureRead
	b.linkDown()
	if err := b.answered(); !errors.Is(err, block.ErrIO) {
		t.Fatalf("answered %v", err)
	}
}

// Reads after the own copy is back, in a tenure that never met the peer as equal.
func TestReadsGoOnWhenTheCopyIsBack(t *testing.T) {
	b := refilling(t)
	b.eng.alike = false // promoted while the peer was away; nothing answered alone
	b.fetchAll()
	b.localDone(nil)
	b.bothFlush()
	b.receive(b.peerHello(wire.SyncDone, func(h *wire.HelloBody) { h.Volumes[0].Gen = genid.Set{Current: 4711}.Words() }))
	b.ledger()
	b.submit(block.Read, 8192, 4096)
	if _, ok := b.find(LocalIO, nil); !ok {
		t.Fatalf("the read waits; waiting %d", b.eng.View().Waiting)
	}
}

// An op that is cold when the session breaks, and the copy is back.
func TestColdWhenTheCopyIsBack(t *testing.T) {
	b := refilling(t)
	b.fetchAll()
	b.localDone(nil)
	b.bothFlush()
	b.receive(b.peerHello(wire.SyncDone, func(h *wire.HelloBody) { h.Volumes[0].Gen = genid.Set{Current: 4711}.Words() }))
	b.hold[WriteActivity] = true
	b.submit(block.Write, 0, 4096)
	w, cold := b.find(WriteActivity, nil)
	b.linkDown()
	b.ledger()
	delete(b.hold, WriteActivity)
	if cold {
		b.do(b.durable(w))
	}
	b.localDone(nil)
	b.ledger()
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// Abort ends a read that is being mended, wherever it is.
func TestAbortWhileMending(t *testing.T) {
	for name, written := range map[string]bool{"asked for": false, "being written": true} {
		b, _, m := unread(t)
		if written {
			b.data(m, 7)
		}
		b.do(Event{Kind: Abort})
		b.linkDown()
		if written {
			b.localDone(nil)
		}
		if err := b.answered(); err == nil {
			t.Errorf("%s: success", name)
		}
		if f := b.expect(Reply); f.Of != Abort {
			t.Errorf("%s: reply to %d", name, f.Of)
		}
	}
}

// The disk of the source fails in the flush that ends a resync: it is not asked again and again.
func TestLastFlushOfAResyncFails(t *testing.T) {
	b := filled(t)
	n := 0
	for ; n < 20; n++ {
		f, more := b.find(LocalIO, nil)
		if !more {
			break
		}
		if m, ok := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Flush }); ok {
			b.ack(m.Message)
		}
		b.do(Event{Kind: LocalDone, Request: f.Request, Err: errSdb})
	}
	if n > 1 {
		t.Fatalf("the failed disk was asked to flush %d times", n)
	}
}
