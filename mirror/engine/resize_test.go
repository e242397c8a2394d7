package engine

import (
	"errors"
	"strings"
	"testing"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

const largerBytes = 2 * volumeBytes

// roomy is a connected Primary whose disk, and the peer's, offer twice as much.
func roomy(t *testing.T) *box {
	t.Helper()
	b := newBox(t, equal())
	b.room = largerBytes
	b.greet(resizes)
	b.promote()
	b.out = nil
	return b
}

// resizes is what a peer says that can.
func resizes(h *wire.HelloBody) {
	h.Features = features
	for i := range h.Volumes {
		h.Volumes[i].RoomBytes = largerBytes
	}
}

// says is a State of the peer at a step of a resize, with changes.
func (b *box) says(step wire.ResizeStep, size int64, change ...func(*wire.HelloBody)) {
	b.t.Helper()
	round := b.eng.resize.round
	b.receive(b.peerHello(wire.State, func(h *wire.HelloBody) {
		resizes(h)
		h.Resize = wire.Resize{Step: step, Round: round, SizeBytes: size}
		if step == wire.ResizeRefused {
			h.Resize.Text = "no room there"
		}
		if step == wire.ResizeGrown {
			h.Volumes[0].SizeBytes = size
		}
		for _, c := range change {
			c(h)
		}
	}))
}

// told is the resize in the next State that goes to the peer.
func (b *box) told() wire.Resize {
	b.t.Helper()
	m := b.message(wire.State)
	h, err := wire.ParseHello(m.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	return h.Resize
}

func (b *box) resize(o ResizeOrder) { b.do(Event{Kind: Resize, Resize: o}) }

// zeroes lets the pieces behind the volume become zero.
func (b *box) zeroes(from, to int64) {
	b.t.Helper()
	for from < to {
		f, ok := b.find(LocalIO, func(f *Effect) bool { return f.Request.Op == block.WriteZeroes })
		if !ok || f.Request.Offset != from {
			b.t.Fatalf("want zeroes from %d; pending:%s", from, b.pending())
		}
		from = f.Request.End()
		b.do(Event{Kind: LocalDone, Request: f.Request})
	}
}

// remade ends a remake, and takes the superblock it wrote.
func (b *box) remade(size int64) Effect {
	b.t.Helper()
	f := b.expect(RemakeMeta)
	if f.Size != size || f.Bitmap.SizeBytes() != size || len(f.Log) == 0 {
		b.t.Fatalf("a remake for %d bytes, want %d", f.Size, size)
	}
	b.do(Event{Kind: SizeFitted})
	return f
}

// asked is a resize of which the peer has offered its room.
func asked(t *testing.T) *box {
	t.Helper()
	b := roomy(t)
	b.resize(ResizeOrder{})
	if r := b.told(); r.Step != wire.ResizeAsk {
		t.Fatalf("says %+v", r)
	}
	b.says(wire.ResizeOffer, largerBytes)
	if r := b.told(); r.Step != wire.ResizeGrow || r.SizeBytes != largerBytes {
		t.Fatalf("says %+v", r)
	}
	return b
}

// The leader's copy grows after the peer's, and not before both read zero.
func TestResizeGrowsThePeerFirst(t *testing.T) {
	b := asked(t)
	b.zeroes(volumeBytes, largerBytes)
	b.none(RemakeMeta)
	b.none(Reply)
	b.says(wire.ResizeGrown, largerBytes)
	b.submit(block.Write, volumeBytes, 4096)
	if err := b.answered(); !errors.Is(err, block.ErrRange) {
		t.Fatalf("a write behind the end, before it has grown: %v", err)
	}
	b.remade(largerBytes)
	if err := b.expect(Reply).Err; err != nil {
		t.Fatal(err)
	}
	if r := b.told(); r.Step != wire.NoResize {
		t.Fatalf("says %+v at the end", r)
	}
	b.submit(block.Write, largerBytes-4096, 4096)
	b.message(wire.Write)
	if v := b.eng.View().Volumes[0]; v.SizeBytes != largerBytes || v.DirtyBytes != 0 {
		t.Fatalf("%+v", v)
	}
}

// The peer is grown early; this node's range is not zero yet.
func TestResizeWaitsForItsOwnZeroes(t *testing.T) {
	b := asked(t)
	b.says(wire.ResizeGrown, largerBytes)
	b.none(RemakeMeta)
	b.zeroes(volumeBytes, largerBytes)
	b.remade(largerBytes)
}

// While the metadata move, what is hot is written and what is cold waits; the
// move waits for writes of metadata that are under way. Neither waits for the
// other for ever.
func TestMetadataMoveBesideWrites(t *testing.T) {
	b := asked(t)
	b.submit(block.Write, 0, 4096) // makes extent 0 hot
	b.message(wire.Write)
	b.zeroes(volumeBytes, volumeBytes+1) // a piece
	b.localDone(nil)                     // the write
	b.zeroes(volumeBytes+zeroBytes, largerBytes)
	b.hold[WriteActivity] = true
	b.submit(block.Write, actlog.ExtentBytes, 4096)
	tx := b.expect(WriteActivity)
	b.says(wire.ResizeGrown, largerBytes)
	b.none(RemakeMeta) // a transaction is under way
	b.do(b.durable(tx))
	b.message(wire.Write)
	f := b.expect(RemakeMeta)
	hot, err := actlog.Hotset(f.Log, 8)
	if err != nil || len(hot) != 2 {
		t.Fatalf("the ring made anew holds %v, %v", hot, err)
	}
	b.submit(block.Write, 8192, 4096) // hot
	b.message(wire.Write)
	b.submit(block.Write, 2*actlog.ExtentBytes, 4096) // cold
	b.none(WriteActivity)
	b.do(Event{Kind: SizeFitted})
	tx = b.expect(WriteActivity)
	if tx.Activity.Number <= f.Log[len(f.Log)-1].Number {
		t.Fatalf("transaction %d after a ring up to %d", tx.Activity.Number, f.Log[len(f.Log)-1].Number)
	}
	b.do(b.durable(tx))
	b.message(wire.Write)
}

// What is marked while the metadata move is marked afterwards, and not thought
// saved.
func TestMarksWhileMetadataMove(t *testing.T) {
	b := asked(t)
	b.submit(block.Write, 0, 4096)
	b.message(wire.Write)
	b.zeroes(volumeBytes, volumeBytes+1)
	b.localDone(nil)
	b.zeroes(volumeBytes+zeroBytes, largerBytes)
	b.says(wire.ResizeGrown, largerBytes)
	f := b.expect(RemakeMeta)
	if f.Bitmap.Count() != 0 {
		t.Fatal("marked already")
	}
	b.linkDown() // the write was not answered
	b.do(Event{Kind: SizeFitted})
	v := b.eng.vols[0]
	if !v.bits.Any(0, 4096) || v.bits.SizeBytes() != largerBytes || !v.bits.Unsaved(0) {
		t.Fatalf("marked %v, %d bytes, unsaved %v", v.bits.Any(0, 4096), v.bits.SizeBytes(), v.bits.Unsaved(0))
	}
}

// The end of the session ends a resize; a piece that is still at the disk does
// not become part of a volume that grows without zeroes.
func TestLatePieceIsWaitedFor(t *testing.T) {
	b := asked(t)
	piece := b.expect(LocalIO)
	b.linkDown()
	if err := b.expect(Reply).Err; !errors.Is(err, ErrBadState) {
		t.Fatal(err)
	}
	b.greet(resizes)
	b.resize(ResizeOrder{Trusted: true})
	if err := b.expect(Reply).Err; !errors.Is(err, ErrBadState) {
		t.Fatalf("another one, while a piece is at the disk: %v", err)
	}
	b.linkDown()
	b.linkUp()
	b.message(wire.Hello)
	b.receive(b.peerHello(wire.Hello, func(h *wire.HelloBody) {
		resizes(h)
		h.Volumes[0].SizeBytes = largerBytes
	}))
	b.none(RemakeMeta)
	b.expect(DropLink)
	b.do(Event{Kind: LocalDone, Request: piece.Request})
	b.none(LocalIO)
}

// A peer that grew before the session ended is followed, with the new range out
// of sync; then it is copied.
func TestSmallerCopyFollows(t *testing.T) {
	grown := func(h *wire.HelloBody) {
		resizes(h)
		h.Volumes[0].SizeBytes = largerBytes
	}
	b := roomy(t)
	b.linkDown()
	b.greet(grown)
	if f := b.expect(DropLink); !errors.Is(f.Err, errGrowing) {
		t.Fatal(f.Err)
	}
	f := b.expect(RemakeMeta)
	if f.Bitmap.Count() != volumeBytes/4096 {
		t.Fatalf("%d blocks are marked", f.Bitmap.Count())
	}
	b.linkDown()
	b.linkUp()
	b.do(Event{Kind: SizeFitted})
	h, err := wire.ParseHello(b.message(wire.Hello).Data)
	if err != nil || h.Volumes[0].SizeBytes != largerBytes || h.Volumes[0].DirtyBlocks != volumeBytes/4096 {
		t.Fatalf("says %+v, %v", h, err)
	}
	b.receive(b.peerHello(wire.Hello, resizes))
	if p := b.eng.session.plan; p.action != actSource {
		t.Fatalf("decided %s", p.action)
	}
}

// Who follows, and what an operator reads where nobody can.
func TestWhoFollows(t *testing.T) {
	able := func(room int64) func(*wire.HelloBody) {
		return func(h *wire.HelloBody) { h.Features, h.Volumes[0].RoomBytes = features, room }
	}
	large := func(room int64) func(*wire.HelloBody) {
		return func(h *wire.HelloBody) { able(room)(h); h.Volumes[0].SizeBytes = largerBytes }
	}
	unequal := "volume 0 has 134217728 bytes on beta and 67108864 bytes on alpha"
	cut := unequal + "; a copy is fitted to the other only while it is new: if beta may lose what it has, run hactl create-metadata there"
	for _, c := range []handshake{
		{name: "the smaller", alpha: able(largerBytes), beta: large(largerBytes), action: actFit,
			wantSentence: "volume 0 of alpha has 67108864 bytes and can have the 134217728 of beta"},
		{name: "no room", alpha: able(largerBytes - 4096), beta: large(largerBytes), status: wire.BadGeometry, lasting: true,
			wantSentence: unequal + ", where the disk offers 134213632: enlarge that, and it follows"},
		{name: "an earlier release", alpha: able(largerBytes), beta: func(h *wire.HelloBody) { large(largerBytes)(h); h.Features = wire.FeatureRead }, status: wire.BadGeometry, lasting: true, wantSentence: cut},
		{name: "metadata in the way", alpha: func(h *wire.HelloBody) { able(4 * largerBytes)(h); h.Volumes[0].FloorBytes = largerBytes + 4096 }, beta: large(largerBytes), status: wire.BadGeometry, lasting: true, wantSentence: cut},
		{name: "unrelated", alpha: able(largerBytes), beta: func(h *wire.HelloBody) { large(largerBytes)(h); gen(4711, 0)(h) }, status: wire.BadGeometry, lasting: true, wantSentence: cut},
	} {
		c.judge(t)
	}
}

// The other side of a resize: it offers what it has, makes it zero, grows, and
// says so; then its leader ends it.
func TestResizeIsFollowed(t *testing.T) {
	s := equal()
	b := newBox(t, s)
	b.room = largerBytes
	b.greet(func(h *wire.HelloBody) { resizes(h); h.Role = state.Primary })
	b.out = nil
	led := func(step wire.ResizeStep, size int64) {
		b.receive(b.peerHello(wire.State, func(h *wire.HelloBody) {
			resizes(h)
			h.Role, h.Resize = state.Primary, wire.Resize{Step: step, Round: 3, SizeBytes: size}
			h.Volumes[0].SizeBytes = volumeBytes
		}))
	}
	led(wire.ResizeAsk, 0)
	if r := b.told(); r.Step != wire.ResizeOffer || r.SizeBytes != largerBytes || r.Round != 3 {
		t.Fatalf("offers %+v", r)
	}
	led(wire.ResizeGrow, largerBytes)
	led(wire.ResizeGrow, largerBytes) // said again with something else
	b.zeroes(volumeBytes, largerBytes)
	b.none(PeerSend)
	b.remade(largerBytes)
	if r := b.told(); r.Step != wire.ResizeGrown || r.Round != 3 {
		t.Fatalf("says %+v", r)
	}
	b.do(Event{Kind: Tick})
	b.none(DropLink) // the leader is about to grow
	led(wire.NoResize, 0)
	b.do(Event{Kind: Tick})
	if f := b.expect(DropLink); !errors.Is(f.Err, errSizes) {
		t.Fatalf("a leader that has not grown, and says it is over: %v", f.Err)
	}
}

// What the peer cannot do is told to the operator, and nothing grows here.
func TestResizeRefusedThere(t *testing.T) {
	b := roomy(t)
	b.resize(ResizeOrder{Size: largerBytes})
	b.says(wire.ResizeRefused, 0)
	if err := b.expect(Reply).Err; !errors.Is(err, ErrRefusedThere) || !strings.Contains(err.Error(), "no room there") {
		t.Fatal(err)
	}
	b.resize(ResizeOrder{Size: largerBytes})
	b.says(wire.ResizeOffer, largerBytes-4096)
	if err := b.expect(Reply).Err; !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), "beta") {
		t.Fatal(err)
	}
	b.resize(ResizeOrder{Size: volumeBytes / 2})
	b.says(wire.ResizeOffer, largerBytes)
	if err := b.expect(Reply).Err; !errors.Is(err, ErrWouldCut) {
		t.Fatal(err)
	}
	b.none(LocalIO)
	b.none(RemakeMeta)
}

// A piece that cannot be made zero ends the resize, not the copy.
func TestZeroesFail(t *testing.T) {
	b := asked(t)
	b.localDone(errSdb)
	if err := b.expect(Reply).Err; !errors.Is(err, errSdb) {
		t.Fatal(err)
	}
	if d := b.eng.View().Volumes[0].Disk; d != state.UpToDate {
		t.Fatalf("the disk is %s", d)
	}
	if r := b.told(); r.Step != wire.NoResize {
		t.Fatalf("says %+v", r)
	}
}

// Metadata that have no room in the end leave everything as it was; those that
// cannot be written are those of a failed disk.
func TestRemakeFails(t *testing.T) {
	for _, c := range []struct {
		err  error
		disk state.Disk
	}{{ErrNoRoom, state.UpToDate}, {errSdb, state.Failed}} {
		b := asked(t)
		b.zeroes(volumeBytes, largerBytes)
		b.says(wire.ResizeGrown, largerBytes)
		b.expect(RemakeMeta)
		b.do(Event{Kind: SizeFitted, Err: c.err})
		if err := b.expect(Reply).Err; !errors.Is(err, c.err) {
			t.Fatal(err)
		}
		if v := b.eng.View().Volumes[0]; v.Disk != c.disk || v.SizeBytes != volumeBytes {
			t.Fatalf("%v: %s, %d bytes", c.err, v.Disk, v.SizeBytes)
		}
	}
}

// A disk that fails ends a resize that has not come to the metadata.
func TestDiskFailsDuringAResize(t *testing.T) {
	b := asked(t)
	b.submit(block.Write, 0, 4096)
	w, ok := b.find(LocalIO, func(f *Effect) bool { return f.Request.Op == block.Write })
	if !ok {
		t.Fatal("no write")
	}
	b.do(Event{Kind: LocalDone, Request: w.Request, Err: errSdb})
	if err := b.expect(Reply).Err; !errors.Is(err, errSdb) {
		t.Fatal(err)
	}
	if b.eng.fitting() {
		t.Fatal("it waits for metadata for ever")
	}
}

// Nothing grows alone while the ledger counts the peer, or does not count this copy.
func TestResizeAloneIsTheLedgersWord(t *testing.T) {
	for _, set := range [][]string{{"alpha", "beta"}, {"beta"}} {
		s := equal()
		s.record.InSync = set
		b := newBox(t, s)
		b.room = largerBytes
		b.out = nil
		b.resize(ResizeOrder{Alone: true})
		if err := b.expect(Reply).Err; !errors.Is(err, ErrBadState) {
			t.Fatalf("with %v in the set: %v", set, err)
		}
		b.none(LocalIO)
	}
}

// One piece is at the disk at a time, however often the clock ticks: a second one
// would be there yet when the volume has grown.
func TestOnePieceAtATime(t *testing.T) {
	b := asked(t)
	piece := b.expect(LocalIO)
	b.do(Event{Kind: Tick})
	b.none(LocalIO)
	b.do(Event{Kind: LocalDone, Request: piece.Request})
	b.zeroes(volumeBytes+zeroBytes, largerBytes)
	b.do(Event{Kind: Tick})
	b.none(LocalIO)
}

// Without the peer it grows only when it is out of the set, and stops when it is
// back before that.
func TestResizeAlone(t *testing.T) {
	s := equal()
	s.record.InSync = []string{"alpha"}
	b := newBox(t, s)
	b.room = largerBytes
	b.promote()
	b.out = nil
	b.resize(ResizeOrder{Alone: true})
	b.zeroes(volumeBytes, volumeBytes+1)
	b.linkUp()
	if err := b.expect(Reply).Err; !errors.Is(err, ErrBadState) {
		t.Fatal(err)
	}
	b.localDone(nil)
	b.linkDown()
	b.out = nil
	b.resize(ResizeOrder{Alone: true})
	b.zeroes(volumeBytes, largerBytes)
	b.remade(largerBytes)
	if err := b.expect(Reply).Err; err != nil {
		t.Fatal(err)
	}
}
