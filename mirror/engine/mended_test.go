package engine

import (
	"errors"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// A copy that came back from a crash stays suspect over an orderly restart: it
// may lack what its peer has, whether or not the agent was stopped in between.
func TestSuspectCopyIsNotDetachedClean(t *testing.T) {
	s := equal()
	s.super.Clean = false
	s.hot = []uint32{3}
	b := newBox(t, s)
	if !b.eng.View().Suspect {
		t.Fatal("not suspect after a crash")
	}
	b.do(Event{Kind: Detach})
	for {
		if _, ok := b.find(Reply, nil); ok {
			break
		}
		b.localDone(nil)
	}
	if b.super[0].Clean {
		t.Fatal("the superblock of a suspect copy says clean: the next start forgets that it is suspect (R8, R9)")
	}
}

// With its own disk gone a Primary must not take the healthy copy out of the set.
func TestFailedDiskDoesNotExcludeTheHealthyPeer(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Write, 0, 4096)
	b.submit(block.Write, 8<<20, 4096)
	b.localDone(block.ErrIO)
	b.localDone(nil)
	b.linkDown()
	b.none(LedgerExclude)
	for range 2 {
		if err := b.answered(); err == nil {
			t.Fatal("a write that only a failed disk has was answered")
		}
	}
}

// An inclusion that is no longer wanted is not made up for later.
func TestInclusionIsForgottenWithTheSession(t *testing.T) {
	b, done := syncing(t)
	r := b.record
	r.Token++
	r.Primary = ""
	b.record = r
	b.do(Event{Kind: LedgerRecord, Record: r})
	b.expect(Deposed)
	b.receive(wire.Message{Kind: wire.Ack, ID: done.ID})
	b.do(Event{Kind: Abort})
	b.linkDown()
	if f := b.expect(Reply); f.Err != nil {
		t.Fatal(f.Err)
	}
	b.promote()
	b.submit(block.Write, 16<<20, 4096)
	if _, ok := b.find(LedgerExclude, nil); ok {
		t.Fatal("the peer is out already")
	}
	if _, ok := b.find(LedgerInclude, nil); ok {
		t.Fatal("the peer is included without a resync")
	}
	b.localDone(nil)
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// The copy that is about to become the only one in the set is not thrown away.
func TestInvalidateIsRefusedWhileThePeerIsBeingExcluded(t *testing.T) {
	s := equal()
	s.super.LastPrimary = true
	b := newBox(t, s)
	b.greet(func(h *wire.HelloBody) { h.Volumes[0].DirtyBlocks = 1 })
	if b.eng.session.plan.action != actSource {
		t.Fatalf("decided %s", b.eng.session.plan.action)
	}
	b.do(Event{Kind: Invalidate})
	if f := b.expect(Reply); f.Err == nil {
		b.ledger()
		t.Fatalf("invalidate of the source of a resync is accepted; disk %s, the ledger keeps %v", b.eng.vols[0].disk, b.record.InSync)
	}
}

// A disk that fails while it is detached does not hold the command up.
func TestDetachEndsThoughThePageCannotBeSaved(t *testing.T) {
	s := equal()
	s.super.Clean = false
	s.hot = []uint32{3}
	s.held = []EffectKind{WritePages}
	b := newBox(t, s)
	b.do(Event{Kind: Detach})
	b.localDone(nil) // the flush
	f := b.expect(WritePages)
	b.do(Event{Kind: PagesDone, Volume: f.Volume, Err: block.ErrIO})
	b.expect(Reply)
}

// A pause outlives the session.
func TestPauseOutlivesTheSession(t *testing.T) {
	b := ahead(t)
	b.do(Event{Kind: Pause})
	b.out = nil
	b.greet(behind)
	b.ledger()
	b.targetReady()
	if got := b.eng.View().Replication; got != state.PausedSyncS {
		t.Fatalf("the resync runs though it was paused: %s", got)
	}
	b.none(LocalIO)
}

// A pause from before this copy became a target can be taken back: it would hold
// back the next resync that goes from here. Otherwise the source paces it.
func TestResumeOnATarget(t *testing.T) {
	b := newBox(t, equal())
	b.do(Event{Kind: Pause})
	b.expect(Reply)
	b.eng.session.repl = state.SyncTarget
	b.do(Event{Kind: Resume})
	if f := b.expect(Reply); f.Err != nil || b.eng.paused {
		t.Fatalf("%v, paused %t", f.Err, b.eng.paused)
	}
	for _, k := range []EventKind{Resume, Pause} {
		b.do(Event{Kind: k})
		if f := b.expect(Reply); !errors.Is(f.Err, ErrBadState) || b.eng.paused {
			t.Fatalf("%v, paused %t", f.Err, b.eng.paused)
		}
	}
}

// A session that was dropped carries nothing any more, though the link has not
// said yet that it ended.
func TestDroppedSessionIsDeaf(t *testing.T) {
	s := equal()
	s.record = wire.Record{Token: 2, InSync: []string{"beta"}}
	s.super.Disk = state.Outdated
	b := newBox(t, s)
	b.greet(nil)
	if b.eng.session.plan.action != actTarget {
		t.Fatalf("decided %s", b.eng.session.plan.action)
	}
	b.record = wire.Record{Token: 3, InSync: []string{"alpha", "beta"}} // an earlier inclusion was committed after all
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	b.expect(DropLink)
	b.receive(wire.Message{Kind: wire.SyncStart})
	if got := b.eng.vols[0].disk; got != state.UpToDate {
		t.Fatalf("the copy is in the set and has become %s", got)
	}
}

// What the ledger says of the own copy counts from the start.
func TestOwnCopyIsJudgedAtAttach(t *testing.T) {
	s := equal()
	s.super.Disk = state.Outdated
	b := newBox(t, s)
	if got := b.eng.vols[0].disk; got != state.UpToDate {
		t.Fatalf("in the set, and %s", got)
	}
}

// Only one node can be the last Primary.
func TestLastPrimaryIsForgottenWhenThePeerIsPromoted(t *testing.T) {
	b := mirrored(t, equal())
	b.do(Event{Kind: Demote})
	b.localDone(nil)
	b.ack(b.message(wire.Flush))
	b.expect(Reply)
	b.do(Event{Kind: LedgerRecord, Record: wire.Record{Token: 9, Tenure: 9, Primary: "beta", InSync: []string{"alpha", "beta"}}})
	if b.eng.hello().LastPrimary {
		t.Fatal("beta was Primary since")
	}
}

// Demote flushes what was answered before it, also when a flush runs already.
func TestDemoteFlushesEverything(t *testing.T) {
	b := mirrored(t, equal())
	b.eng.flushOwn(b.eng.vols[0])
	b.do(Event{Kind: Tick})
	// flushOwn was called outside Step; its effects were lost, so make them by hand
	early := b.eng.vols[0].flushing
	b.submit(block.Write, 0, 4096)
	b.localDone(nil)
	b.ack(b.message(wire.Write))
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	b.do(Event{Kind: Demote})
	b.do(Event{Kind: LocalDone, Request: &early.disk})
	b.receive(wire.Message{Kind: wire.Ack, ID: early.id})
	if _, ok := b.find(Reply, nil); ok && b.eng.vols[0].unflushed.n > 0 {
		t.Fatal("demoted with an answered write that was not flushed")
	}
}

// Volumes with different logical blocks cannot mirror each other.
func TestLogicalBlocksMustFit(t *testing.T) {
	b := newBox(t, equal())
	b.greet(func(h *wire.HelloBody) { h.Volumes[0].LogicalBlockBytes = 4096 })
	if b.eng.session.plan.refuse == nil {
		t.Fatal("a peer that cannot take writes of 512 bytes was accepted")
	}
}

// No request of a front end may bring the engine down.
func TestLongDiscardOnASmallActivityLog(t *testing.T) {
	s := equal()
	s.slots = 2
	b := mirrored(t, s)
	b.submit(block.Discard, 1<<20, 16<<20)
}

// A promotion counts only with the record that grants it: the in-sync set of an
// older one may lack the peer (R5).
func TestPromotionNeedsItsRecord(t *testing.T) {
	s := equal()
	s.record = wire.Record{Token: 2, InSync: []string{"alpha"}} // restarted; the inclusion of beta (token 3) is not here yet
	s.super.Gen = genid.Set{Current: 78, Bitmap: 77}
	b := newBox(t, s)
	b.do(Event{Kind: Promote, Tenure: 4})
	if f := b.expect(Reply); f.Err != nil {
		return
	}
	b.do(Event{Kind: LeaseRenewed, Tenure: 4, Until: 1 << 40})
	b.submit(block.Write, 0, 4096)
	if _, ok := b.find(LocalIO, nil); ok {
		b.localDone(nil)
	}
	if _, ok := b.find(Answer, nil); ok {
		t.Fatal("answered alone while the ledger counts beta as in sync")
	}
}

// A resync never reads from a disk that failed, nor does a read.
func TestReadDoesNotGoToAFailedDisk(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Write, 0, 4096)
	b.submit(block.Read, 0, 4096) // waits for the write
	b.localDone(block.ErrIO)
	b.ack(b.message(wire.Write))
	b.none(LocalIO)
}

// Nothing is agreed with a peer after the superblock said clean.
func TestDetachedEngineStaysSilent(t *testing.T) {
	b := newBox(t, equal())
	b.do(Event{Kind: Detach})
	b.localDone(nil)
	b.expect(Reply)
	b.linkUp()
	if _, ok := b.find(PeerSend, nil); ok {
		t.Fatal("a detached engine greets its peer")
	}
}

// An invalidated copy is not made whole by a resync that was running.
func TestInvalidateIsNotUndoneByARunningResync(t *testing.T) {
	s := equal()
	s.record = wire.Record{Token: 2, InSync: []string{"beta"}}
	s.held = []EffectKind{WriteSuper}
	b := newBox(t, s)
	settle := func() {
		for {
			f, ok := b.find(WriteSuper, nil)
			if !ok {
				return
			}
			b.do(b.durable(f))
		}
	}
	settle()
	b.greet(nil)
	b.receive(wire.Message{Kind: wire.SyncStart})
	settle()
	b.message(wire.BitmapDone)
	b.do(Event{Kind: Invalidate})
	m := b.peerHello(wire.SyncDone, nil)
	m.ID = idSyncDone
	b.receive(m)
	settle()
	if !b.eng.vols[0].full {
		t.Fatalf("invalidated, and %s without a full resync", b.eng.vols[0].disk)
	}
}
