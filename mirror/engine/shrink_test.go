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

const smallerBytes = volumeBytes / 2

// idle is a connected pair of two Secondaries; this node has been Primary, and every
// other extent is hot.
func idle(t *testing.T) *box {
	t.Helper()
	b := newBox(t, equal())
	b.room, b.ceiling = volumeBytes, volumeBytes-4096
	b.greet(shrinks)
	for e := range int64(8) {
		v := b.eng.vols[0]
		v.al.Acquire(2*e*actlog.ExtentBytes, 1)
		if tx, ok, _ := v.al.Prepare(0, func(uint32) bool { return true }); ok {
			v.al.Commit(tx)
		}
	}
	b.out = nil
	return b
}

// shrinks is what a peer says that can.
func shrinks(h *wire.HelloBody) {
	h.Features = features
	h.Volumes[0].RoomBytes = volumeBytes
}

// cut orders a smaller size.
func (b *box) cut(size int64) {
	b.resize(ResizeOrder{Size: size, Cut: true, Seen: b.eng.View().Seen})
}

// hears is a State of the peer at a step.
func (b *box) hears(step wire.ResizeStep, size int64, change ...func(*wire.HelloBody)) {
	b.t.Helper()
	b.says(step, size, append([]func(*wire.HelloBody){shrinks}, change...)...)
}

// marks lets the pages of the bitmap become durable; what is cut off is marked
// in them.
func (b *box) marks(from int64) {
	b.t.Helper()
	if !b.eng.vols[0].bits.Any(from, 1) || !b.eng.vols[0].bits.Any(volumeBytes-1, 1) || b.eng.vols[0].bits.Any(0, from) {
		b.t.Fatal("not what is cut off is marked")
	}
	b.do(b.durable(b.expect(WritePages)))
}

// decided is a shrink that the peer has been told of.
func decided(t *testing.T) *box {
	t.Helper()
	b := idle(t)
	b.hold[WritePages] = true
	b.cut(smallerBytes)
	b.hears(wire.ResizeOffer, volumeBytes)
	b.out = nil
	return b
}

// The peer's copy is cut first, then this one: marks before metadata, and what is
// cut off is gone from the log.
func TestShrinkCutsThePeerFirst(t *testing.T) {
	b := idle(t)
	b.hold[WritePages] = true
	b.cut(smallerBytes)
	if r := b.told(); r.Step != wire.ResizeAsk {
		t.Fatalf("says %+v", r)
	}
	b.hears(wire.ResizeOffer, volumeBytes)
	if r := b.told(); r.Step != wire.ResizeGrow || r.SizeBytes != smallerBytes {
		t.Fatalf("says %+v", r)
	}
	b.none(WritePages)
	b.do(Event{Kind: Tick})
	b.none(LocalIO) // above all no zeroes
	b.hears(wire.ResizeGrown, smallerBytes)
	b.do(Event{Kind: Tick})
	b.none(LocalIO)
	b.none(RemakeMeta) // the marks are not durable
	b.marks(smallerBytes)
	f := b.remade(smallerBytes)
	hot, err := actlog.Hotset(f.Log, 8)
	if err != nil || len(hot) == 0 || hot[len(hot)-1] >= smallerBytes/actlog.ExtentBytes {
		t.Fatalf("the ring made anew holds %v, %v", hot, err)
	}
	if err := b.expect(Reply).Err; err != nil {
		t.Fatal(err)
	}
	v := b.eng.View().Volumes[0]
	if v.SizeBytes != smallerBytes || v.DirtyBytes != 0 || v.Hot != len(hot) {
		t.Fatalf("%+v, hot %v", v, hot)
	}
	b.hears(wire.NoResize, 0, func(h *wire.HelloBody) { h.Volumes[0].SizeBytes = smallerBytes })
	b.do(Event{Kind: Tick})
	b.none(DropLink)
}

// What is not certain is not cut.
func TestShrinkIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		pair  func(*testing.T) *box
		order func(*ResizeOrder)
		peer  func(*wire.HelloBody)
		err   error
		say   string
	}{
		"not told to":         {order: func(o *ResizeOrder) { o.Cut = false }, err: ErrWouldCut, say: "would cut it"},
		"Primary here":        {pair: func(t *testing.T) *box { b := idle(t); b.promote(); return b }, say: "alpha is Primary: a volume is made smaller while no node is: hactl demote r"},
		"Primary since":       {order: func(o *ResizeOrder) { o.Seen-- }, say: "has been Primary since"},
		"Primary there":       {peer: func(h *wire.HelloBody) { h.Role = state.Primary }, say: "beta is Primary"},
		"marked there":        {peer: func(h *wire.HelloBody) { h.Volumes[0].DirtyBlocks = 1 }, say: "marked"},
		"marked here":         {pair: func(t *testing.T) *box { b := idle(t); b.eng.vols[0].bits.Set(0, 1); return b }, say: "marked"},
		"not current there":   {peer: func(h *wire.HelloBody) { h.Volumes[0].FullSync = true }, say: "not both copies"},
		"metadata in the way": {order: func(o *ResizeOrder) { o.Size = volumeBytes - 512 }, say: "metadata of volume 0 move into what is cut off: 67104768 bytes or less"},
	} {
		if c.pair == nil {
			c.pair = idle
		}
		b := c.pair(t)
		o := ResizeOrder{Size: smallerBytes, Cut: true, Seen: b.eng.View().Seen}
		if c.order != nil {
			c.order(&o)
		}
		if c.peer == nil {
			c.peer = func(*wire.HelloBody) {}
		}
		if c.err == nil {
			c.err = ErrBadState
		}
		b.resize(o)
		b.hears(wire.ResizeOffer, volumeBytes, c.peer)
		f, ok := b.find(Reply, func(*Effect) bool { return true })
		if !ok || !errors.Is(f.Err, c.err) || !strings.Contains(f.Err.Error(), c.say) {
			t.Errorf("%s: %v", name, f.Err)
		}
		if b.eng.View().Volumes[0].SizeBytes != volumeBytes || b.eng.resize.runs() {
			t.Errorf("%s: it goes on", name)
		}
		b.none(RemakeMeta)
	}
}

// Before its contents are looked at, it is known whether a volume may be cut now.
func TestMayCutNow(t *testing.T) {
	b := idle(t)
	if err := b.eng.MayCut(0); err != nil {
		t.Fatal(err)
	}
	b.cut(smallerBytes)
	if err := b.eng.MayCut(0); !errors.Is(err, ErrBadState) || !strings.Contains(err.Error(), "a resize is running") {
		t.Fatal(err)
	}
	b.linkDown()
	if err := b.eng.MayCut(0); !errors.Is(err, ErrBadState) || !strings.Contains(err.Error(), "beta is not connected, and a volume is made smaller on both nodes") {
		t.Fatal(err)
	}
	b.out = nil
	b.promote()
	if err := b.eng.MayCut(0); !errors.Is(err, ErrBadState) || !strings.Contains(err.Error(), "alpha is Primary") {
		t.Fatal(err)
	}
}

// Metadata that stay where they are take nothing: nothing is marked.
func TestShrinkWithExternalMetadataMarksNothing(t *testing.T) {
	b := idle(t)
	b.ceiling = volumeBytes
	b.cut(smallerBytes)
	b.hears(wire.ResizeOffer, volumeBytes)
	b.hears(wire.ResizeGrown, smallerBytes)
	b.none(WritePages)
	b.remade(smallerBytes)
	if err := b.expect(Reply).Err; err != nil {
		t.Fatal(err)
	}
}

// A volume that ends inside a block keeps no mark of that: nothing lies there but what
// it has, and the next shrink would be refused. Neither when it was cut nor when not.
func TestShrinkToTheMiddleOfABlock(t *testing.T) {
	const size = smallerBytes + 512
	b := idle(t)
	b.hold[WritePages] = true
	b.cut(size)
	b.hears(wire.ResizeOffer, volumeBytes)
	b.hears(wire.ResizeGrown, size)
	b.marks(smallerBytes + 4096)
	b.remade(size)
	if err := b.expect(Reply).Err; err != nil {
		t.Fatal(err)
	}
	if v := b.eng.View().Volumes[0]; v.SizeBytes != size || v.DirtyBytes != 0 {
		t.Fatalf("%d bytes, %d of them marked", v.SizeBytes, v.DirtyBytes)
	}

	b = idle(t)
	b.hold[WritePages] = true
	b.cut(size)
	b.hears(wire.ResizeOffer, volumeBytes)
	b.hears(wire.ResizeGrown, size)
	b.linkDown()
	if v := b.eng.View().Volumes[0]; v.SizeBytes != volumeBytes || v.DirtyBytes != 0 {
		t.Fatalf("not cut: %d bytes, %d of them marked", v.SizeBytes, v.DirtyBytes)
	}
}

// Nobody becomes Primary beside a peer that may be smaller already.
func TestPromotionEndsAShrink(t *testing.T) {
	b := decided(t)
	b.hears(wire.ResizeGrown, smallerBytes)
	if b.eng.View().Volumes[0].DirtyBytes == 0 {
		t.Fatal("nothing is marked")
	}
	b.do(Event{Kind: Promote, Tenure: b.eng.View().Seen + 1})
	if f := b.expect(DropLink); !errors.Is(f.Err, errSizes) {
		t.Fatal(f.Err)
	}
	f, ok := b.find(Reply, func(f *Effect) bool { return f.Of == Resize })
	if !ok || !errors.Is(f.Err, ErrBadState) {
		t.Fatal(f.Err)
	}
	if n := b.eng.View().Volumes[0].DirtyBytes; n != 0 {
		t.Fatalf("%d bytes stay marked", n)
	}
}

// A promotion that comes while the metadata are being made anew waits.
func TestNoPromotionWhileTheMetadataMove(t *testing.T) {
	b := decided(t)
	b.hears(wire.ResizeGrown, smallerBytes)
	b.marks(smallerBytes)
	b.expect(RemakeMeta)
	b.do(Event{Kind: Promote, Tenure: b.eng.View().Seen + 1})
	if f := b.expect(Reply); f.Of != Promote || !errors.Is(f.Err, ErrBadState) {
		t.Fatal(f.Err)
	}
}

// What the peer writes behind the new end would be written over the metadata that
// are made there: it is refused from the decision on.
func TestNothingIsTakenBehindTheNewEnd(t *testing.T) {
	b := newBox(t, equal())
	b.room, b.ceiling = volumeBytes, volumeBytes-4096
	b.hold[WritePages] = true
	b.greet(shrinks)
	b.out = nil
	led := func(step wire.ResizeStep, size int64) {
		b.receive(b.peerHello(wire.State, func(h *wire.HelloBody) {
			shrinks(h)
			h.Resize = wire.Resize{Step: step, Round: 3, SizeBytes: size}
		}))
	}
	led(wire.ResizeAsk, 0)
	if r := b.told(); r.Step != wire.ResizeOffer {
		t.Fatalf("says %+v", r)
	}
	led(wire.ResizeGrow, smallerBytes)
	b.none(RemakeMeta)
	b.marks(smallerBytes)
	b.expect(RemakeMeta)
	b.receive(wire.Message{Kind: wire.Write, ID: 1, Token: b.eng.View().Seen + 1, Offset: smallerBytes, Length: 4096, Data: block.Aligned(4096)})
	b.none(LocalIO)
	if m := b.message(wire.Refuse); m.Status != wire.BadMessage {
		t.Fatalf("%+v", m)
	}
	b.linkDown()
	b.do(Event{Kind: SizeFitted})
	if v := b.eng.View().Volumes[0]; v.SizeBytes != smallerBytes {
		t.Fatalf("%d bytes", v.SizeBytes)
	}
}

// The follower offers, is cut, and says so; another State on the way says nothing
// else.
func TestShrinkIsFollowed(t *testing.T) {
	b := newBox(t, equal())
	b.room, b.ceiling = volumeBytes, volumeBytes-4096
	b.hold[WritePages] = true
	b.greet(shrinks)
	b.out = nil
	b.receive(b.peerHello(wire.State, func(h *wire.HelloBody) { shrinks(h); h.Resize = wire.Resize{Step: wire.ResizeAsk, Round: 3} }))
	b.told()
	b.receive(b.peerHello(wire.State, func(h *wire.HelloBody) {
		shrinks(h)
		h.Resize = wire.Resize{Step: wire.ResizeGrow, Round: 3, SizeBytes: smallerBytes}
	}))
	b.do(Event{Kind: Resume})
	if r := b.told(); r.Step != wire.ResizeOffer {
		t.Fatalf("says %+v while it is being cut", r)
	}
	b.marks(smallerBytes)
	b.remade(smallerBytes)
	if r := b.told(); r.Step != wire.ResizeGrown || r.Round != 3 {
		t.Fatalf("says %+v", r)
	}
}

// follower is one that a leader has told to be cut, whose marks are durable.
func follower(t *testing.T) *box {
	t.Helper()
	b := newBox(t, equal())
	b.room, b.ceiling = volumeBytes, volumeBytes-4096
	b.hold[WritePages] = true
	b.greet(shrinks)
	for _, step := range []wire.ResizeStep{wire.ResizeAsk, wire.ResizeGrow} {
		b.receive(b.peerHello(wire.State, func(h *wire.HelloBody) {
			shrinks(h)
			h.Resize = wire.Resize{Step: step, Round: 3, SizeBytes: smallerBytes}
		}))
	}
	b.marks(smallerBytes)
	b.expect(RemakeMeta)
	b.out = nil
	return b
}

// A command that comes while the metadata are made anew does not stop that: the leader,
// which may become Primary, is not to go on with this copy as if it had.
func TestCommandBesideACut(t *testing.T) {
	b := follower(t)
	b.do(Event{Kind: Demote})
	if f := b.expect(DropLink); !errors.Is(f.Err, errSizes) {
		t.Fatal(f.Err)
	}
	b.linkDown()
	b.do(Event{Kind: SizeFitted})
	if v := b.eng.View().Volumes[0]; v.SizeBytes != smallerBytes || v.DirtyBytes != 0 || b.eng.resize.runs() {
		t.Fatalf("%+v", v)
	}
}

// Metadata that cannot be made anew, and were not touched, leave the copy as it was.
func TestCutRefusedByTheDisk(t *testing.T) {
	b := follower(t)
	b.do(Event{Kind: SizeFitted, Err: ErrWouldCut})
	if r := b.told(); r.Step != wire.ResizeRefused || r.Text == "" {
		t.Fatalf("says %+v", r)
	}
	if v := b.eng.View().Volumes[0]; v.SizeBytes != volumeBytes || v.DirtyBytes != 0 || v.Disk != state.UpToDate {
		t.Fatalf("%+v", v)
	}
}

// A disk that hangs while its copy is cut, is given up, and is cut after all has the
// smaller size when it is attached again: then it grows back. Another disk has not.
func TestDiskIsCutAfterItWasGivenUp(t *testing.T) {
	b := follower(t)
	b.linkDown()
	b.do(Event{Kind: SizeFitted, Err: errSdb})
	b.out = nil
	if err := b.attach(b.blank(smallerBytes)); !errors.Is(err, ErrBadGeometry) {
		t.Fatalf("another disk, which is smaller: %v", err)
	}
	cut := b.blank(smallerBytes)
	cut.Super = Super{Gen: equal().super.Gen, Disk: state.UpToDate}
	if err := b.attach(cut); err != nil {
		t.Fatal(err)
	}
	b.linkUp()
	h, err := wire.ParseHello(b.message(wire.Hello).Data)
	if err != nil || h.Volumes[0].SizeBytes != smallerBytes || h.Volumes[0].Disk != state.UpToDate {
		t.Fatalf("says %+v, %v", h, err)
	}
}

// Cut off between the two, the smaller copy grows back, with all of it marked.
func TestCutOffShrinkGrowsBack(t *testing.T) {
	b := decided(t)
	b.hears(wire.ResizeGrown, smallerBytes)
	b.linkDown()
	if f := b.expect(Reply); !errors.Is(f.Err, ErrBadState) {
		t.Fatal(f.Err)
	}
	if n := b.eng.View().Volumes[0].DirtyBytes; n != 0 {
		t.Fatalf("%d bytes stay marked at the copy that was not cut", n)
	}
	b.linkUp()
	b.message(wire.Hello)
	b.receive(b.peerHello(wire.Hello, func(h *wire.HelloBody) { shrinks(h); h.Volumes[0].SizeBytes = smallerBytes }))
	if p := b.eng.session.plan; p.action != actFit || !strings.Contains(p.why, "of beta has 33554432 bytes and can have the 67108864 of alpha") {
		t.Fatalf("decided %s: %s", p.action, p.why)
	}
}
