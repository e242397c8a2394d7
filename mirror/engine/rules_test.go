package engine

import (
	"errors"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// unanswered fails when a request has been answered.
func (b *box) unanswered() {
	b.t.Helper()
	b.none(Answer)
}

func TestR1AnswersStopWithTheLease(t *testing.T) {
	b := mirrored(t, equal())
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure, Until: time.Second})
	b.submit(block.Write, 0, 4096)
	b.now = time.Second // at this instant it is over
	b.localDone(nil)
	b.ack(b.message(wire.Write))
	b.unanswered()
	b.submit(block.Read, 1<<20, 4096)
	b.none(LocalIO)
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure, Until: 2 * time.Second})
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	b.localDone(nil)
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

func TestLeaseOfAnotherTenureDoesNotCount(t *testing.T) {
	b := newBox(t, equal())
	b.promote()
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure + 1, Until: 2 * time.Hour})
	b.now = 90 * time.Minute
	b.submit(block.Read, 0, 4096)
	b.none(LocalIO)
}

func TestR3LogsAreMergedThoughBothAreInSync(t *testing.T) {
	s := equal()
	s.super.Clean, s.hot = false, []uint32{2}
	b := newBox(t, s)
	b.greet(func(h *wire.HelloBody) { h.Suspect, h.LastPrimary = true, false })
	b.ledger()
	b.targetReady()
	if r := b.expect(LocalIO).Request; r.Offset != 8<<20 {
		t.Fatalf("resync begins with %s", r)
	}
}

func TestR4BitsAreClearedAfterTheTargetsFlush(t *testing.T) {
	b := ahead(t)
	b.greet(behind)
	b.ledger()
	b.targetReady()
	b.localDone(nil)
	b.ack(b.message(wire.WriteZeroes))
	if got := b.eng.vols[0].bits.Count(); got != 1 {
		t.Fatalf("acknowledged, not flushed: %d blocks dirty, want 1", got)
	}
	b.ack(b.message(wire.Flush))
	if got := b.eng.vols[0].bits.Count(); got != 0 {
		t.Fatalf("flushed: %d blocks dirty", got)
	}
}

func TestR5OneSidedAnswerWaitsForTheExclusionAndTheGeneration(t *testing.T) {
	s := equal()
	s.held = []EffectKind{WriteSuper}
	b := newBox(t, s)
	b.do(b.durable(b.expect(WriteSuper)))
	b.record.Token, b.record.Tenure, b.record.Primary = 2, 2, "alpha"
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	b.do(Event{Kind: Promote, Tenure: 2})
	for {
		f, ok := b.find(WriteSuper, nil)
		if !ok {
			break
		}
		b.do(b.durable(f))
	}
	b.do(Event{Kind: LeaseRenewed, Tenure: 2, Until: time.Hour})
	b.submit(block.Write, 0, 4096)
	b.localDone(nil)
	b.unanswered()
	b.ledger()
	b.unanswered() // the generation is not on disk
	f := b.expect(WriteSuper)
	if f.Super.Gen.Bitmap != 77 || f.Super.Gen.Current == 77 {
		t.Fatalf("generations %v", f.Super.Gen)
	}
	b.do(b.durable(f))
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	b.submit(block.Write, 0, 4096) // the next owes nothing
	b.localDone(nil)
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

func TestR6AnsweredWritesOfALostPeerAreDirty(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Write, 0, 4096)
	b.localDone(nil)
	b.ack(b.message(wire.Write))
	b.submit(block.Write, 8192, 4096)
	b.linkDown()
	if got := b.eng.vols[0].bits.Count(); got != 2 {
		t.Fatalf("%d blocks dirty, want 2", got)
	}
}

// The peer had answered, the local disk not yet, when the peer was lost: it may
// lose what it answered.
func TestR6WriteThatOnlyThePeerAnsweredIsDirty(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Write, 0, 4096)
	b.ack(b.message(wire.Write))
	b.linkDown()
	if got := b.eng.vols[0].bits.Count(); got != 1 {
		t.Fatalf("%d blocks dirty, want 1", got)
	}
}

// A write of the last session that is still at the disk could land on top of
// what the next session sends.
func TestHelloWaitsForThePeersWrites(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	b.receive(wire.Message{Kind: wire.Write, Token: 1, Length: 512, Data: make([]byte, 512)})
	b.linkDown()
	b.linkUp()
	b.none(PeerSend)
	b.localDone(nil)
	b.message(wire.Hello)
	b.none(PeerSend) // the ack of the last session is nobody's
}

func TestR7ColdExtentWaitsForTheLogAndEvictionForAFlush(t *testing.T) {
	s := equal()
	s.slots, s.held = 2, []EffectKind{WriteActivity}
	b := mirrored(t, s)
	for i := range 2 {
		b.submit(block.Write, int64(i)*4<<20, 4096)
		b.none(LocalIO)
		b.do(b.durable(b.expect(WriteActivity)))
		b.localDone(nil)
		b.ack(b.message(wire.Write))
	}
	b.submit(block.Write, 8<<20, 4096)
	b.none(WriteActivity) // both extents hold writes that are not flushed
	b.ack(b.message(wire.Flush))
	b.localDone(nil)
	b.do(b.durable(b.expect(WriteActivity)))
	b.localDone(nil)
}

func TestFailedActivityLogFailsTheWrite(t *testing.T) {
	s := equal()
	s.held = []EffectKind{WriteActivity}
	b := mirrored(t, s)
	b.submit(block.Write, 0, 4096)
	b.do(Event{Kind: ActivityDone, Err: block.ErrIO})
	b.none(LocalIO)
	if err := b.answered(); !errors.Is(err, block.ErrIO) {
		t.Fatalf("answered %v", err)
	}
}

func TestR11TargetIsOutOfTheSetBeforeItIsTold(t *testing.T) {
	s := equal()
	s.super.LastPrimary = true
	b := newBox(t, s)
	b.greet(func(h *wire.HelloBody) { h.Volumes[0].DirtyBlocks = 1 })
	if _, ok := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.SyncStart }); ok {
		t.Fatal("SyncStart before the exclusion")
	}
	b.ledger()
	b.message(wire.SyncStart)
}

func TestR11TargetIsDurablyInconsistentBeforeTheFirstByte(t *testing.T) {
	s := equal()
	s.record = wire.Record{Token: 2, InSync: []string{"beta"}}
	b := newBox(t, s)
	b.greet(nil)
	b.hold[WriteSuper] = true
	b.receive(wire.Message{Kind: wire.SyncStart})
	if _, ok := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.BitmapDone }); ok {
		t.Fatal("ready before the superblock says Inconsistent")
	}
	f := b.expect(WriteSuper)
	if f.Super.Disk != state.Inconsistent {
		t.Fatalf("the superblock says %s", f.Super.Disk)
	}
	b.do(b.durable(f))
	b.message(wire.BitmapDone)
}

func TestInclusionFollowsTheTargetsWord(t *testing.T) {
	b, done := syncing(t)
	b.none(LedgerInclude)
	b.ack(done)
	b.ledger()
	b.message(wire.InSync)
	if got := b.eng.View().Replication; got != state.Established {
		t.Fatalf("replication %s", got)
	}
	if free := len(b.eng.pool.free); free != opsMax {
		t.Fatalf("%d of %d ops came back", free, opsMax)
	}
}

func TestR12StaleTokensAreRefused(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	b.do(Event{Kind: LedgerRecord, Record: wire.Record{Token: 9, Tenure: 9, Primary: "beta", InSync: []string{"alpha", "beta"}}})
	b.receive(wire.Message{Kind: wire.Write, Token: 8, Length: 512, Data: make([]byte, 512)})
	b.none(LocalIO)
	m := b.message(wire.Refuse)
	if m.Status != wire.StaleToken || m.Token != 9 {
		t.Fatalf("refused with %s, token %d", m.Status, m.Token)
	}
	b.linkDown()
	b.do(Event{Kind: Promote, Tenure: 8})
	if f := b.expect(Reply); !errors.Is(f.Err, ErrStaleToken) {
		t.Fatalf("promoted under a token that is past: %v", f.Err)
	}
}

func TestHigherTokenDeposesThePrimary(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Write, 0, 4096)
	b.localDone(nil)
	b.receive(wire.Message{Kind: wire.Refuse, Status: wire.StaleToken, Token: 50, Data: []byte("beta has seen 50")})
	b.expect(Deposed)
	b.linkDown()
	b.none(LedgerExclude)
	b.unanswered()
	b.do(Event{Kind: Abort})
	if err := b.answered(); !errors.Is(err, block.ErrNotPrimary) {
		t.Fatalf("answered %v", err)
	}
	b.expect(Reply)
}

// Each refusal of a request has its own sentence.
func TestRefusedRequests(t *testing.T) {
	primary := func(t *testing.T) *box { return mirrored(t, equal()) }
	for _, c := range []struct {
		name string
		box  func(*testing.T) *box
		r    block.Request
		is   error
		want string
	}{
		{"not Primary", func(t *testing.T) *box { return newBox(t, equal()) }, block.Request{Op: block.Flush}, block.ErrNotPrimary,
			"flush(0, 0): resource r: this node is not Primary for the resource"},
		{"range", primary, block.Request{Op: block.Discard, Offset: volumeBytes, Length: 512}, block.ErrRange,
			"discard(67108864, 512) on a device of 67108864 bytes: request reaches past the end of the device"},
		{"alignment", primary, block.Request{Op: block.Discard, Offset: 1, Length: 512}, block.ErrAlignment,
			"discard(1, 512) with logical blocks of 512 bytes: request is not aligned to the logical block"},
		{"extents", primary, block.Request{Op: block.Discard, Length: 40 << 20}, block.ErrTooLong,
			"discard(0, 41943040) spans 10 extents of the activity log, at most 8 can be taken at once: request is longer than the largest transfer"},
		{"disk", func(t *testing.T) *box {
			b := primary(t)
			b.submit(block.Flush, 0, 0)
			b.localDone(block.ErrIO)
			return b
		}, block.Request{Op: block.Flush}, block.ErrIO, "flush(0, 0): the disk of volume 0 of r is Failed: input/output error"},
	} {
		b := c.box(t)
		b.do(Event{Kind: Submitted, Request: &c.r})
		f, ok := b.find(Answer, func(f *Effect) bool { return f.Request == &c.r })
		if !ok || !errors.Is(f.Err, c.is) || f.Err.Error() != c.want {
			t.Errorf("%s:\n got %v\nwant %s", c.name, f.Err, c.want)
		}
	}
}

// Each refusal of a frame has its own sentence.
func TestRefusedFrames(t *testing.T) {
	for _, c := range []struct {
		name string
		m    wire.Message
		want string
	}{
		{"volume", wire.Message{Kind: wire.Write, Volume: 3, Token: 1, Length: 512, Data: make([]byte, 512)}, "there is no volume 3"},
		{"range", wire.Message{Kind: wire.Discard, Token: 1, Offset: volumeBytes, Length: 512}, "bytes 67108864+512 are not on volume 0 of 67108864 bytes"},
		{"payload", wire.Message{Kind: wire.Write, Token: 1, Length: 1024, Data: make([]byte, 512)}, "a write of 1024 bytes carries 512"},
		{"resync", wire.Message{Kind: wire.SyncStart, Token: 1}, "a resync was not agreed on"},
		{"second hello", wire.Message{}, "a second hello in one session"},
	} {
		b := newBox(t, equal())
		b.greet(nil)
		m := c.m
		if m.Kind == wire.Invalid {
			m = b.peerHello(wire.Hello, nil)
		}
		b.receive(m)
		if got := b.message(wire.Refuse); string(got.Data) != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got.Data, c.want)
		}
		b.expect(DropLink)
		b.none(LocalIO)
	}
}

// Nothing of a session is left when it ends: ops, buffers, what was asked.
func TestSessionLeavesNothingBehind(t *testing.T) {
	b := newBox(t, equal())
	b.promote()
	b.submit(block.Write, 0, 4<<20)
	r := b.submit(block.WriteZeroes, 0, 4<<20)
	b.ledger()
	for range 1 {
		b.do(Event{Kind: LocalDone, Request: b.expect(LocalIO).Request})
	}
	if f := b.expect(Answer); f.Err == nil || f.Request == r {
		t.Fatalf("a write of 4 MiB is too long: %v", f.Err)
	}
	if f := b.expect(Answer); f.Err != nil {
		t.Fatal(f.Err)
	}
	b.greet(behind)
	b.ledger()
	b.targetReady()
	b.submit(block.Write, 0, 4096) // waits for the first chunk
	for range 3 {
		b.localDone(nil) // read and sent
	}
	b.linkDown()
	for {
		f, ok := b.find(LocalIO, nil)
		if !ok {
			break
		}
		b.do(Event{Kind: LocalDone, Request: f.Request})
	}
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	v := b.eng.vols[0]
	if free := len(b.eng.pool.free); free != opsMax || v.active.n+v.waiting.n != 0 {
		t.Fatalf("%d of %d ops came back; %d active, %d waiting", free, opsMax, v.active.n, v.waiting.n)
	}
	if v.bits.Count() != 1024 {
		t.Fatalf("%d blocks dirty, want 1024", v.bits.Count())
	}
}

// A read that comes after a write to the same place shows what a failover could
// still take back, unless it waits for the write.
func TestReadWaitsForTheWriteBeforeIt(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Write, 0, 8192)
	b.localDone(nil) // here; the peer has not answered
	read := b.submit(block.Read, 4096, 4096)
	b.none(LocalIO)
	b.ack(b.message(wire.Write))
	if f := b.expect(LocalIO); f.Request.Op != block.Read || f.Request.Offset != read.Offset {
		t.Fatalf("%s", f.Request)
	}
}

// What the last Primary had written is still at a slow disk when this node is
// promoted: nothing of the new one may overtake it.
func TestPromotionWaitsForTheWritesOfTheLastPrimary(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	b.receive(wire.Message{Kind: wire.Write, Token: 1, Length: 4096, Data: make([]byte, 4096)})
	old := b.expect(LocalIO)
	b.linkDown()
	b.promote()
	b.submit(block.Write, 0, 4096)
	b.submit(block.Read, 0, 4096)
	b.none(LocalIO)
	b.do(Event{Kind: LocalDone, Request: old.Request})
	if f := b.expect(LocalIO); f.Request.Op != block.Write {
		t.Fatalf("%s", f.Request)
	}
}

// A write waits for a read in flight that it overlaps, or the read might show what
// a failover takes back. Others pass both.
func TestWriteWaitsForAReadInFlight(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Read, 0, 8192)
	b.submit(block.Write, 4096, 8192)
	b.submit(block.Read, 0, 4096)
	b.submit(block.Write, 1<<20, 4096)
	read := b.expect(LocalIO)
	if m := b.message(wire.Write); m.Offset != 1<<20 {
		t.Fatalf("the write at %d does not wait", m.Offset)
	}
	for _, want := range []block.Op{block.Read, block.Write} { // the second read, and the write elsewhere
		if f := b.expect(LocalIO); f.Request.Op != want || f.Request.Offset == 4096 {
			t.Fatalf("%s goes to the disk", f.Request)
		}
	}
	b.none(LocalIO)
	b.do(Event{Kind: LocalDone, Request: read.Request})
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	if m := b.message(wire.Write); m.Offset != 4096 {
		t.Fatalf("after the read the write at %d goes out", m.Offset)
	}
	if f := b.expect(LocalIO); f.Request.Offset != 4096 {
		t.Fatalf("%s goes to the disk", f.Request)
	}
}

// What the source of a resync was given as a Secondary, and never flushed, is in
// no activity log any more once both are in line: it is durable before that.
func TestSourceIsDurableBeforeTheTwoAreInLine(t *testing.T) {
	b := filled(t)
	f := b.expect(LocalIO)
	if f.Request.Op != block.Flush {
		t.Fatalf("%s", f.Request)
	}
	b.ack(b.message(wire.Flush))
	if _, ok := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.SyncDone }); ok {
		t.Fatal("SyncDone before the source has flushed")
	}
	b.do(Event{Kind: LocalDone, Request: f.Request})
	b.message(wire.SyncDone)
}
