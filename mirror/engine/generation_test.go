package engine

import (
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// gens is what a hello says of volume 0.
func gens(t *testing.T, m *wire.Message) genid.Set {
	t.Helper()
	h, err := wire.ParseHello(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	return genid.FromWords(h.Volumes[0].Gen)
}

// reopened is the box after a crash: what is on its disk, and the ledger's record.
func (b *box) reopened() *box {
	b.t.Helper()
	s := equal()
	s.super, s.record, s.pages, s.size = b.super[0], b.record, b.pages, b.size
	n := newBox(b.t, s)
	n.ids, n.link, n.peer = b.ids+100, b.link, b.peer
	return n
}

// refused is an inclusion that the ledger decided against, after the session.
func refused(b *box, done wire.Message) {
	b.ack(done)
	b.expect(LedgerInclude)
	b.linkDown()
	b.record.Token++
	b.do(Event{Kind: LedgerDone, Record: b.record, Err: ErrStaleToken})
}

// lostFinishes are what can be lost at the end of a resync, after SyncDone was
// sent; each returns the source as it is afterwards.
var lostFinishes = map[string]func(*box, wire.Message) *box{
	"SyncDone or its ack": func(b *box, _ wire.Message) *box { b.linkDown(); return b },
	"the inclusion":       func(b *box, done wire.Message) *box { refused(b, done); return b },
	"the session, while the inclusion is asked for": func(b *box, done wire.Message) *box {
		b.ack(done)
		f := b.expect(LedgerInclude)
		b.linkDown()
		b.out = nil
		b.linkUp()
		b.none(PeerSend) // what the ledger says decides the hello
		b.linkDown()
		b.do(Event{Kind: LedgerDone, Record: wire.Record{Token: f.Token, Tenure: b.record.Tenure, Primary: "alpha", InSync: []string{"alpha"}}, Err: ErrStaleToken})
		return b
	},
	"the ledger": func(b *box, done wire.Message) *box {
		b.ack(done)
		b.expect(LedgerInclude)
		b.do(Event{Kind: LedgerRecord})
		b.do(Event{Kind: Abort})
		b.linkDown()
		b.expect(Reply)
		b.do(Event{Kind: LedgerDone, Record: b.record, Err: ErrStaleToken})
		b.record = wire.Record{Token: 1, InSync: []string{"alpha"}}
		b.do(Event{Kind: LedgerRecord, Record: b.record})
		b.promote()
		return b
	},
	"the source":                         func(b *box, _ wire.Message) *box { b = b.reopened(); b.promote(); return b },
	"the source, after it was told no":   func(b *box, done wire.Message) *box { refused(b, done); b = b.reopened(); b.promote(); return b },
	"the session of a resync once again": func(b *box, _ wire.Message) *box { b.linkDown(); b.greet(b.asTarget); b.linkDown(); return b },
}

// The end of a resync, lost at each of its steps; then the source writes alone.
// The target may have become complete or not: the source finds it by the
// bitmap, and a target that went on as well, forced, is found out.
func TestWriteAfterALostFinishBeginsAGeneration(t *testing.T) {
	for name, lose := range lostFinishes {
		b, done := syncing(t)
		filled := genid.Set{Current: 77}.Begin(genid.Set{Current: 1001, Bitmap: 77})
		complete := filled.Adopt(gens(t, &done))
		b.none(LedgerInclude)
		b = lose(b, done)
		b.out = nil
		b.submit(block.Write, 8<<20, 4096)
		b.localDone(nil)
		if err := b.answered(); err != nil {
			t.Fatal(name, err)
		}
		for what, target := range map[string]genid.Set{"filled": filled, "complete": complete} {
			if got := genid.Compare(b.super[0].Gen, target); got != genid.SourceBitmap {
				t.Errorf("lost: %s. The target, %s, has %s, the source %s: %s", name, what, target, b.super[0].Gen, got)
			}
			if got := genid.Compare(b.super[0].Gen, target.Mint(5000)); got != genid.SplitBrain {
				t.Errorf("lost: %s. The target, %s, went on as %s, the source as %s: %s", name, what, target.Mint(5000), b.super[0].Gen, got)
			}
		}
	}
}

// While an inclusion is undecided the peer counts as in: the ledger may include
// it after the answer (R5).
func TestNothingIsAnsweredAloneWhileAnInclusionIsUndecided(t *testing.T) {
	b, done := syncing(t)
	b.ack(done)
	b.expect(LedgerInclude)
	b.linkDown()
	b.submit(block.Write, 8<<20, 4096)
	b.localDone(nil)
	b.none(Answer)
	b.record.Token++
	b.record.InSync = []string{"alpha", "beta"}
	b.do(Event{Kind: LedgerDone, Record: b.record})
	b.none(Answer)
	b.ledger() // takes it out again
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// Nothing is answered alone while the generation of a resync that begins is on
// its way to the disk.
func TestWriteBesideTheBeginOfAResyncWaitsForItsGeneration(t *testing.T) {
	s := equal()
	s.record = wire.Record{Token: 2, InSync: []string{"alpha"}}
	b := newBox(t, s)
	b.promote()
	b.greet(nil)
	b.hold[WriteSuper] = true
	b.ledger() // confirms that the peer is not in the set
	begun := b.expect(WriteSuper)
	b.submit(block.Write, 0, 4096)
	b.localDone(nil)
	b.none(Answer)
	b.none(PeerSend)
	b.do(b.durable(begun))
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	if m := b.message(wire.State); genid.Compare(gens(t, &m), genid.Set{Current: 77}) != genid.SourceBitmap {
		t.Fatalf("told %s, the target has 77", gens(t, &m))
	}
	b.message(wire.SyncStart)
}

// The source calls itself by the target's name, durably, before the target may
// become UpToDate.
func TestSourceFinishesBeforeTheTarget(t *testing.T) {
	b := ahead(t)
	b.greet(behind)
	b.ledger()
	b.targetReady()
	b.localDone(nil)
	b.hold[WriteSuper] = true
	id := b.eng.vols[0].gen.SyncID()
	b.ack(b.message(wire.WriteZeroes))
	b.ack(b.message(wire.Flush))
	b.bothFlush()
	if _, ok := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.SyncDone }); ok {
		t.Fatal("SyncDone before the generation is durable")
	}
	b.do(b.durable(b.expect(WriteSuper)))
	if done := b.message(wire.SyncDone); gens(t, &done).Current != id || b.super[0].Gen.Current != id {
		t.Fatalf("the target carries %s, SyncDone says %s, our superblock %s", id, gens(t, &done), b.super[0].Gen)
	}
}

// A target that is not known to carry the SyncID is not filled: the bitmap
// would not find it after a break.
func TestTargetMustCarryTheSyncID(t *testing.T) {
	b := ahead(t)
	b.greet(behind)
	b.receive(wire.Message{Kind: wire.BitmapDone}) // nothing has been begun
	b.message(wire.Refuse)
	b.linkDown()
	b.do(Event{Kind: LedgerDone, Record: b.record})
	b.out = nil
	b.greet(behind)
	b.ledger()
	b.message(wire.SyncStart)
	b.receive(wire.Message{Kind: wire.BitmapDone})
	b.message(wire.Refuse)
	b.none(LocalIO)
}

// The target of a resync is promoted by force while it is part old, part new.
// Whoever it was being filled from finds it diverged, although nothing was
// written here; and it is nobody's source before an operator has chosen.
func TestTargetPromotedByForceHasDiverged(t *testing.T) {
	s := equal()
	s.record = wire.Record{Token: 2, Primary: "beta", Tenure: 2, InSync: []string{"beta"}}
	b := newBox(t, s)
	source := genid.Set{Current: 77}.Mint(90)
	tell := func(h *wire.HelloBody) {
		h.Role, h.Volumes[0].Gen, h.Volumes[0].DirtyBlocks = state.Primary, source.Words(), 9
	}
	b.greet(tell)
	b.receive(wire.Message{Kind: wire.SyncStart, Token: 2})
	b.message(wire.BitmapDone)
	b.do(Event{Kind: Promote, Tenure: 3, Force: true})
	if f := b.expect(Reply); f.Err == nil {
		t.Fatal("promoted in the middle of a resync")
	}
	b.linkDown()
	b.record = wire.Record{Token: 4, Primary: "alpha", Tenure: 4, InSync: []string{"alpha"}}
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	b.do(Event{Kind: Promote, Tenure: 4, Force: true})
	if f := b.expect(Reply); f.Err != nil {
		t.Fatal(f.Err)
	}
	if got := genid.Compare(b.super[0].Gen, source); got != genid.SplitBrain {
		t.Fatalf("the copy that was forced has %s, its source %s: %s", b.super[0].Gen, source, got)
	}
	b.out = nil
	b.linkUp()
	b.receive(b.peerHello(wire.Hello, func(h *wire.HelloBody) { tell(h); h.Role = state.Secondary }))
	if m := b.message(wire.Refuse); m.Status != wire.SplitBrain {
		t.Fatalf("refused with %d: %s", m.Status, m.Data)
	}
	b.none(LedgerExclude)
}
