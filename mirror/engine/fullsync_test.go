package engine

import (
	"testing"
	"time"

	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

const fullBytes = 200 << 20 // two pages of the bitmap

// newDisk is what a peer says whose copy has just been created.
func newDisk(h *wire.HelloBody) {
	h.Volumes[0].Gen, h.Volumes[0].Disk = genid.New().Words(), state.Inconsistent
}

// filling makes the box a Primary that sends all of it to a peer with a new
// disk, with so many chunks acknowledged there.
func filling(t *testing.T, chunks int) *box {
	t.Helper()
	s := equal()
	s.size, s.record = fullBytes, wire.Record{Token: 2, InSync: []string{"alpha"}}
	b := newBox(t, s)
	b.promote()
	b.greet(newDisk)
	b.ledger()
	b.targetReady()
	b.chunks(chunks)
	return b
}

// chunks reads, sends and has acknowledged so many chunks of a resync.
func (b *box) chunks(n int) {
	b.t.Helper()
	for range n {
		b.localDone(nil)
		b.ack(b.message(wire.WriteZeroes))
	}
}

// secondsPass lets the engine look at its clock once a second.
func (b *box) secondsPass(n int) {
	for range n {
		b.now += time.Second
		b.do(Event{Kind: Tick})
	}
}

// All that is marked is on disk, and so is the generation it is about, before
// the target is told to give up its own account of what it lacks.
func TestFullResyncIsMarkedOnDiskFirst(t *testing.T) {
	s := equal()
	s.size, s.record, s.held = fullBytes, wire.Record{Token: 2, InSync: []string{"alpha"}}, []EffectKind{WritePages}
	b := newBox(t, s)
	b.promote()
	b.greet(newDisk)
	b.hold[WriteSuper] = true
	b.ledger()
	for stale := true; stale; _, stale = b.eng.vols[0].bits.NextStale(0) {
		b.none(WriteSuper)
		b.none(PeerSend)
		b.do(b.durable(b.expect(WritePages)))
	}
	b.do(Event{Kind: Pause}) // tells the target something
	if told := b.message(wire.State); gens(t, &told) != s.super.Gen {
		t.Fatalf("told %s, which is not durable", gens(t, &told))
	}
	b.none(PeerSend)
	b.do(b.durable(b.expect(WriteSuper)))
	told := b.message(wire.State)
	b.message(wire.SyncStart)
	if got := genid.Compare(b.super[0].Gen, genid.New().Begin(gens(t, &told))); got != genid.SourceBitmap {
		t.Fatalf("a target that begins by %s finds a source with %s: %s", gens(t, &told), b.super[0].Gen, got)
	}
}

// A full resync that breaks goes on where it was: after a lost session, and
// after a crash of the source. Its progress goes on as well.
func TestFullResyncGoesOnWhereItBroke(t *testing.T) {
	const chunks = 100
	for name, broken := range map[string]func(*box) *box{
		"link":   func(b *box) *box { b.linkDown(); return b },
		"source": func(b *box) *box { b.secondsPass(2); b = b.reopened(); b.promote(); return b },
	} {
		b := filling(t, chunks)
		b.secondsPass(1)
		b.ack(b.message(wire.Flush))
		b = broken(b)
		b.out = nil
		b.greet(b.asTarget)
		if p := b.eng.session.plan; p.full[0] || p.action != actSource {
			t.Fatalf("%s: decided %s, full %v", name, p.action, p.full)
		}
		b.ledger()
		b.targetReady()
		left := int64(fullBytes - chunks*resyncChunkBytes)
		w := b.eng.View()
		if w.Volumes[0].DirtyBytes != left {
			t.Errorf("%s: %d bytes are sent, want %d", name, w.Volumes[0].DirtyBytes, left)
		}
		if name == "link" && (w.ResyncTotal != fullBytes || w.ResyncDone != fullBytes-left) {
			t.Errorf("%d of %d done, want %d of %d", w.ResyncDone, w.ResyncTotal, fullBytes-left, fullBytes)
		}
	}
}

// A disk that is exchanged again, or invalidated, is filled from the beginning.
func TestExchangedTargetIsFilledFromTheBeginning(t *testing.T) {
	b := filling(t, 4)
	b.secondsPass(1)
	b.ack(b.message(wire.Flush))
	half := genid.New().Begin(b.super[0].Gen)
	b.linkDown()
	b.out = nil
	b.greet(newDisk)
	b.ledger()
	b.targetReady()
	if w := b.eng.View(); !b.eng.session.plan.full[0] || w.Volumes[0].DirtyBytes != fullBytes || w.ResyncTotal != fullBytes || w.ResyncDone != 0 {
		t.Fatalf("full %v, %d bytes to be sent, %d of %d done", b.eng.session.plan.full, w.Volumes[0].DirtyBytes, w.ResyncDone, w.ResyncTotal)
	}
	b.linkDown()
	b.greet(func(h *wire.HelloBody) { h.Volumes[0].Gen, h.Volumes[0].Disk = half.Words(), state.Inconsistent })
	if p := b.eng.session.plan; !p.full[0] {
		t.Fatalf("the disk that was half filled before comes back: %s by the bitmap", p.action)
	}
}

// What the target has acknowledged is progress, flushed or not; it is flushed
// once a second, so that little is sent twice.
func TestProgressOfAResyncMovesInSmallSteps(t *testing.T) {
	b := filling(t, 0)
	for n := range int64(3) {
		if w := b.eng.View(); w.ResyncDone != n*resyncChunkBytes {
			t.Fatalf("%d chunks acknowledged, %d bytes done", n, w.ResyncDone)
		}
		b.chunks(1)
	}
	b.secondsPass(1)
	b.ack(b.message(wire.Flush))
	if got := b.eng.vols[0].bits.Count() * dirty.BlockBytes; got != fullBytes-3*resyncChunkBytes {
		t.Fatalf("flushed, and %d bytes are dirty", got)
	}
	if w := b.eng.View(); w.ResyncDone != 3*resyncChunkBytes {
		t.Fatalf("flushed, and %d bytes done", w.ResyncDone)
	}
	b.out = nil
	b.secondsPass(1)
	if m := b.message(wire.State); dirtyOf(t, &m) != (fullBytes-3*resyncChunkBytes)/dirty.BlockBytes {
		t.Fatalf("the target is told of %d blocks", dirtyOf(t, &m))
	}
}

func dirtyOf(t *testing.T, m *wire.Message) uint64 {
	t.Helper()
	h, err := wire.ParseHello(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	return h.Volumes[0].DirtyBlocks
}

// The target gives up its own account of what it lacks in one superblock, with
// the name under which the source keeps it from then on.
func TestTargetOfAFullResyncTakesItsName(t *testing.T) {
	s := equal()
	s.super = Super{Gen: genid.New(), Disk: state.Inconsistent, FullSync: true, Clean: true}
	s.record = wire.Record{Token: 2, InSync: []string{"beta"}}
	b := newBox(t, s)
	b.eng.vols[0].bits.SetAll()
	source := genid.Set{Current: 50}
	tell := func(h *wire.HelloBody) { h.Volumes[0].Gen = source.Words() }
	b.greet(tell)
	source = source.Rebase(60)
	b.receive(b.peerHello(wire.State, tell))
	b.hold[WriteSuper] = true
	b.receive(wire.Message{Kind: wire.SyncStart})
	f := b.expect(WriteSuper)
	if f.Super.FullSync || f.Super.Disk != state.Inconsistent || f.Super.Gen.Current != source.SyncID() {
		t.Fatalf("the superblock says %+v", f.Super)
	}
	b.none(PeerSend)
	if b.eng.vols[0].bits.Count() == 0 {
		t.Fatal("forgotten before the superblock is durable")
	}
	b.do(b.durable(f))
	if m := b.message(wire.State); gens(t, &m).Current != source.SyncID() {
		t.Fatalf("the source is told %s", gens(t, &m))
	}
	b.message(wire.BitmapDone)
	b.none(PeerSend)
	b.linkDown()
	b.greet(func(h *wire.HelloBody) { h.Volumes[0].Gen, h.Volumes[0].DirtyBlocks = source.Words(), 1 })
	if p := b.eng.session.plan; p.action != actTarget || p.full[0] {
		t.Fatalf("decided %s, full %v", p.action, p.full)
	}
}

// Of two volumes only the one whose disk is new is sent whole.
func TestOnlyTheNewVolumeIsSentWhole(t *testing.T) {
	s := equal()
	s.volumes, s.record = 2, wire.Record{Token: 2, InSync: []string{"alpha"}}
	b := newBox(t, s)
	b.promote()
	b.greet(newDisk)
	b.ledger()
	b.message(wire.SyncStart)
	if first, second := b.eng.vols[0].bits.DirtyBytes(), b.eng.vols[1].bits.DirtyBytes(); first != volumeBytes || second != 0 {
		t.Fatalf("%d and %d bytes are sent", first, second)
	}
	for i, old := range []genid.Set{genid.New(), s.super.Gen} {
		if got := genid.Compare(b.super[i].Gen, old.Begin(b.super[i].Gen)); got != genid.SourceBitmap {
			t.Errorf("volume %d: %s finds its target by %s", i, b.super[i].Gen, got)
		}
	}
}

// A full resync that no target has heard of does not use up the history.
func TestBeginThatNobodyHeardOfIsBegunAgain(t *testing.T) {
	s := equal()
	s.record = wire.Record{Token: 2, InSync: []string{"alpha"}}
	b := newBox(t, s)
	b.promote()
	for range 5 {
		b.greet(newDisk)
		b.hold[WriteSuper] = true
		b.ledger()
		f, more := b.find(WriteSuper, nil)
		b.linkDown()
		delete(b.hold, WriteSuper)
		if more {
			b.do(b.durable(f))
		}
		b.none(PeerSend)
	}
	if got := b.super[0].Gen; got.History[1] != 0 || got.History[0] != 77 {
		t.Fatalf("five times begun: %s", got)
	}
}
