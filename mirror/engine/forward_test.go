package engine

import (
	"bytes"
	"errors"
	"testing"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

func able(h *wire.HelloBody) { h.Features = wire.FeatureRead }

// capable makes the box a connected Primary whose peer can serve for it.
func capable(t *testing.T, s setup) *box {
	t.Helper()
	b := newBox(t, s)
	b.greet(able)
	b.promote()
	b.out = nil
	return b
}

// givenUp is a Primary whose disk has just failed under a write that the peer
// has not answered.
func givenUp(t *testing.T) (*box, *block.Request) {
	t.Helper()
	b := capable(t, equal())
	r := b.submit(block.Write, 0, 4096)
	b.message(wire.Write)
	b.localDone(errSdb)
	return b, r
}

// forwarding is it when the peer has taken over.
func forwarding(t *testing.T) *box {
	t.Helper()
	b, _ := givenUp(t)
	b.ledger()
	b.linkDown()
	b.keeper()
	b.ack(b.message(wire.Write))
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	b.out = nil
	return b
}

// keeper is a session with a peer that keeps the data.
func (b *box) keeper() {
	b.t.Helper()
	b.greet(func(h *wire.HelloBody) {
		able(h)
		if genid.ID(h.Volumes[0].Gen[0]) == genid.JustCreated { // the box has a new disk; the peer has not
			h.Volumes[0].Gen = genid.Set{Current: 4711, Bitmap: 99}.Words()
		}
	})
	b.receive(wire.Message{Kind: wire.Ack, ID: idForward})
	if got := b.eng.View().Replication; got != state.Forwarding {
		b.t.Fatalf("replication is %s; pending:%s", got, b.pending())
	}
}

// A Primary whose disk fails goes on through its peer: nobody is told of the
// failure, and nothing is answered before the ledger and the peer know.
func TestPrimaryGoesOnThroughItsPeer(t *testing.T) {
	b, r := givenUp(t)
	b.none(Answer)
	if f := b.expect(LedgerGiveUp); f.Node != "alpha" || f.Token != b.record.Token {
		t.Fatalf("%s leaves at %d, the record has %d", f.Node, f.Token, b.record.Token)
	}
	b.record.Token++
	b.record.InSync = []string{"beta"}
	b.do(Event{Kind: LedgerDone, Record: b.record})
	b.expect(DropLink)
	b.none(Answer)
	b.linkDown()
	b.greet(able)
	b.none(Answer)
	b.receive(wire.Message{Kind: wire.Ack, ID: idForward})
	b.ack(b.message(wire.Write))
	if f := b.expect(Answer); f.Request != r || f.Err != nil {
		t.Fatalf("%s: %v", f.Request, f.Err)
	}
	b.none(LocalIO)
}

// The tenure ends before the ledger has answered that the copy is given up. Until it
// has, the disk is not attached again: the set could lose a copy that is good.
func TestNoAttachBeforeTheLedgerHasAnswered(t *testing.T) {
	b, _ := givenUp(t)
	b.expect(LedgerGiveUp)
	b.do(Event{Kind: Abort})
	b.linkDown()
	b.expect(Reply)
	if err := b.eng.MayAttach(); !errors.Is(err, ErrBadState) {
		t.Fatalf("may attach: %v", err)
	}
	b.record.Token++
	b.record.InSync = []string{"beta"}
	b.do(Event{Kind: LedgerDone, Record: b.record})
	if err := b.eng.MayAttach(); err != nil {
		t.Fatal(err)
	}
}

// What the peer did before it was ready to serve alone does not count: its
// answer of the old session is not an answer.
func TestAnswerOfTheOldSessionDoesNotCount(t *testing.T) {
	b := capable(t, equal())
	b.submit(block.Write, 0, 4096)
	m := b.message(wire.Write)
	b.localDone(errSdb)
	b.ack(m)
	b.ledger()
	b.none(Answer)
	b.linkDown()
	b.none(Answer)
	b.keeper()
	b.none(Answer)
	b.ack(b.message(wire.Write))
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

func TestEverythingIsForwarded(t *testing.T) {
	b := forwarding(t)
	for _, op := range []struct {
		op   block.Op
		kind wire.Kind
	}{{block.Write, wire.Write}, {block.WriteZeroes, wire.WriteZeroes}, {block.Discard, wire.Discard}} {
		b.submit(op.op, 32<<20, 4096) // cold: there is no activity log to write
		b.none(WriteActivity)
		b.ack(b.message(op.kind))
		if err := b.answered(); err != nil {
			t.Fatal(err)
		}
	}
	b.submit(block.Flush, 0, 0)
	b.ack(b.message(wire.Flush))
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	r := b.submit(block.Read, 8192, 4096)
	m := b.message(wire.Read)
	want := bytes.Repeat([]byte{7}, 4096)
	b.receive(wire.Message{Kind: wire.Data, ID: m.ID, Offset: m.Offset, Length: m.Length, Data: want})
	if err := b.answered(); err != nil || !bytes.Equal(r.Data, want) {
		t.Fatalf("%v, %v", err, r.Data[:4])
	}
	b.none(LocalIO)
}

// A read that only the peer could do, and cannot, fails alone.
func TestForwardedReadThatFails(t *testing.T) {
	b := forwarding(t)
	b.submit(block.Read, 8192, 4096)
	b.receive(wire.Message{Kind: wire.Ack, ID: b.message(wire.Read).ID, Status: wire.IOError})
	if err := b.answered(); !errors.Is(err, block.ErrIO) {
		t.Fatalf("answered %v", err)
	}
	b.none(DropLink)
}

// Without a session everything waits, and goes on with the next one.
func TestForwardedRequestsWaitForTheNextSession(t *testing.T) {
	b := forwarding(t)
	b.submit(block.Write, 0, 4096)
	b.message(wire.Write)
	b.submit(block.Read, 8192, 4096)
	b.message(wire.Read)
	b.submit(block.Flush, 0, 0)
	b.message(wire.Flush)
	b.linkDown()
	b.submit(block.Read, 16384, 4096) // is not even begun
	b.missed()
	b.none(Answer)
	b.none(LedgerExclude)
	b.keeper()
	b.ack(b.message(wire.Write))
	b.ack(b.message(wire.Flush)) // what the write before left in the peer's cache
	b.ack(b.message(wire.Flush))
	for range 2 {
		m := b.message(wire.Read)
		b.receive(wire.Message{Kind: wire.Data, ID: m.ID, Offset: m.Offset, Length: m.Length, Data: make([]byte, m.Length)})
	}
	for range 4 {
		if err := b.answered(); err != nil {
			t.Fatal(err)
		}
	}
}

// When the peer's disk fails as well there is nothing left, and the application
// is told.
func TestBothDisksFail(t *testing.T) {
	b := forwarding(t)
	b.submit(block.Write, 0, 4096)
	b.submit(block.Read, 8192, 4096)
	b.message(wire.Write)
	b.message(wire.Read)
	b.receive(wire.Message{Kind: wire.Refuse, Status: wire.IOError, Data: []byte("the disk of volume 0 of beta has failed")})
	b.linkDown()
	b.submit(block.Flush, 0, 0)
	for range 3 {
		if err := b.answered(); !errors.Is(err, block.ErrIO) {
			t.Fatalf("answered %v", err)
		}
	}
	b.keeper() // it was the cable
	b.submit(block.Write, 0, 4096)
	b.ack(b.message(wire.Write))
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// Who has lost its authority answers nobody with success, wherever a request is.
func TestAbortWhileForwarding(t *testing.T) {
	for name, down := range map[string]bool{"connected": false, "apart": true} {
		b := forwarding(t)
		b.submit(block.Write, 0, 4096)
		b.submit(block.Read, 8192, 4096)
		b.submit(block.Flush, 0, 0)
		if down {
			b.linkDown()
		}
		b.do(Event{Kind: Abort})
		if !down {
			b.linkDown()
		}
		for range 3 {
			if err := b.answered(); err == nil {
				t.Fatalf("%s: answered with success", name)
			}
		}
		if f := b.expect(Reply); f.Of != Abort || f.Err != nil {
			t.Fatalf("%s: %v", name, f.Err)
		}
	}
}

// Without the peer, which has the data, nothing can be flushed: a demotion is refused,
// or ends with the session, and the next session begins.
func TestDemoteWhileTheKeeperIsAway(t *testing.T) {
	for name, early := range map[string]bool{"before": true, "meanwhile": false} {
		b := forwarding(t)
		if early {
			b.linkDown()
		}
		b.do(Event{Kind: Demote})
		if !early {
			b.none(Reply)
			b.linkDown()
		}
		if f := b.expect(Reply); f.Of != Demote || !errors.Is(f.Err, ErrBadState) {
			t.Fatalf("%s: %v", name, f.Err)
		}
		b.keeper()
	}
}

// A demotion in order flushes the peer's copy, and leaves.
func TestDemoteWhileForwarding(t *testing.T) {
	b := forwarding(t)
	b.do(Event{Kind: Demote})
	b.none(Reply)
	b.ack(b.message(wire.Flush))
	if f := b.expect(Reply); f.Err != nil {
		t.Fatal(f.Err)
	}
	if m := b.message(wire.Refuse); m.Status != wire.IOError {
		t.Fatalf("leaves with %s", m.Status)
	}
	b.expect(StandAlone)
	b.none(LedgerExclude)
}

// With the peer gone, or about to be excluded, or not current, there is nobody
// to go on through: the application gets the error.
func TestNobodyToGoOnThrough(t *testing.T) {
	boxes := map[string]func(*testing.T) *box{
		"passed on by wish":  func(t *testing.T) *box { b := capable(t, equal()); b.eng.passOn = true; return b },
		"an earlier release": func(t *testing.T) *box { return mirrored(t, equal()) },
		"being excluded": func(t *testing.T) *box {
			b := capable(t, equal())
			b.linkDown()
			b.submit(block.Write, 1<<20, 4096)
			b.localDone(nil)
			return b
		},
		"excluded": ahead,
	}
	for name, make := range boxes {
		b := make(t)
		b.out = nil
		b.submit(block.Write, 0, 4096)
		for _, more := b.find(LocalIO, nil); more; _, more = b.find(LocalIO, nil) {
		}
		o := b.eng.vols[0].active.tail
		b.do(Event{Kind: LocalDone, Request: &o.disk, Err: errSdb})
		b.linkDown()
		b.none(LedgerGiveUp)
		if err := b.answered(); !errors.Is(err, block.ErrIO) {
			t.Fatalf("%s: answered %v", name, err)
		}
	}
}

// diskless is a hello of a Primary that has given its copy up.
func diskless(record wire.Record) func(h *wire.HelloBody) {
	return func(h *wire.HelloBody) {
		h.Role, h.Record, h.Features = state.Primary, record, wire.FeatureRead
		h.Volumes[0].Disk = state.Failed
	}
}

// The bitmap of a large volume is saved in few writes: nobody is answered meanwhile. A
// page that changes while it is written is written again, and the others are not.
func TestKeeperOfALargeVolumeIsReadySoon(t *testing.T) {
	s := equal()
	s.size, s.held = 1<<40, []EffectKind{WritePages}
	b := newBox(t, s)
	b.record = wire.Record{Token: 3, Tenure: 2, Primary: "beta", InSync: []string{"alpha"}}
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	b.greet(diskless(b.record))
	bits := b.eng.vols[0].bits
	writes, pages := 0, 0
	for f, more := b.find(WritePages, nil); more; f, more = b.find(WritePages, nil) {
		b.none(WritePages) // one at a time
		if writes++; writes == 2 {
			bits.Clear(int64(f.Page)*dirty.PageExtents*actlog.ExtentBytes, 4096)
		}
		pages += len(f.Payload) / dirty.PageBytes
		b.do(b.durable(f))
	}
	if want := bits.Pages()/pagesPerWrite + 2; writes > want || pages != bits.Pages()+1 {
		t.Fatalf("%d pages in %d writes, want %d in %d at most", pages, writes, bits.Pages()+1, want)
	}
	b.expect(PeerSend)
	for page := range bits.Pages() {
		if string(b.pages[page]) != string(bits.Page(page, nil)) {
			t.Fatalf("page %d is on disk as it was once", page)
		}
	}
}

// The keeper marks everything and begins a generation, durably, before it takes
// the first request.
func TestKeeperIsReadyWhenItsMarksAreDurable(t *testing.T) {
	b := newBox(t, equal())
	b.record = wire.Record{Token: 3, Tenure: 2, Primary: "beta", InSync: []string{"alpha"}}
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	for _, k := range []EffectKind{WritePages, WriteSuper} {
		b.hold[k] = true
	}
	was := b.eng.vols[0].gen
	b.greet(diskless(b.record))
	ready := func() bool {
		_, ok := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Ack && f.Message.ID == idForward })
		return ok
	}
	b.none(WriteSuper) // the marks are on disk before the generation that they belong to
	for _, k := range []EffectKind{WritePages, WriteSuper} {
		for {
			f, more := b.find(k, nil)
			if !more {
				break
			}
			if ready() {
				t.Fatal("ready before it is durable")
			}
			b.do(b.durable(f))
		}
	}
	if !ready() {
		t.Fatalf("not ready; pending:%s", b.pending())
	}
	if now := b.super[0].Gen; now.Current == was.Current || genid.Compare(now, was.Mint(1<<40)) != genid.SplitBrainFull && genid.Compare(now, was.Mint(1<<40)) != genid.SplitBrain {
		t.Fatalf("generation %s after %s", now, was)
	}
	if got := b.eng.View().Volumes[0].DirtyBytes; got != volumeBytes {
		t.Fatalf("%d bytes are marked", got)
	}
	b.receive(wire.Message{Kind: wire.Read, ID: 5, Token: 2, Offset: 4096, Length: 4096})
	b.localDone(nil)
	if m := b.message(wire.Data); m.ID != 5 || m.Length != 4096 || len(m.Data) != 4096 {
		t.Fatalf("%s with %d bytes", &m, len(m.Data))
	}
	b.receive(wire.Message{Kind: wire.Read, ID: 6, Token: 2, Offset: 8192, Length: 4096})
	b.localDone(errSdb)
	if m := b.message(wire.Ack); m.ID != 6 || m.Status != wire.IOError {
		t.Fatalf("%s", &m)
	}
	b.none(StandAlone) // everything else of the only copy may still be read
}

// A copy that is being filled is not read from.
func TestTargetIsNotRead(t *testing.T) {
	b := newBox(t, equal())
	b.greet(able)
	b.eng.session.repl = state.SyncTarget
	b.receive(wire.Message{Kind: wire.Read, ID: 5, Token: 1, Offset: 4096, Length: 4096})
	if m := b.message(wire.Refuse); m.Status != wire.BadState {
		t.Fatalf("refused with %s: %s", m.Status, m.Data)
	}
}
