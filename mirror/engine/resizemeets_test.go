package engine

import (
	"errors"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// Who follows a resize and is promoted beside it tells the leader, which would wait
// for ever, and shows no size that the leader's copy does not have.
func TestFollowerIsPromoted(t *testing.T) {
	follower := func() (*box, func(wire.ResizeStep, int64)) {
		b := newBox(t, equal())
		b.room = largerBytes
		b.greet(resizes)
		b.out = nil
		return b, func(step wire.ResizeStep, size int64) {
			b.receive(b.peerHello(wire.State, func(h *wire.HelloBody) {
				resizes(h)
				h.Resize = wire.Resize{Step: step, Round: 3, SizeBytes: size}
			}))
		}
	}
	b, led := follower()
	led(wire.ResizeAsk, 0)
	b.out = nil
	led(wire.ResizeGrow, largerBytes)
	b.do(Event{Kind: Promote, Tenure: 6})
	if r := b.told(); r.Step != wire.ResizeRefused || r.Round != 3 || r.Text == "" {
		t.Fatalf("says %+v", r)
	}
	b.none(DropLink)
	led(wire.NoResize, 0)
	if b.eng.resize.runs() {
		t.Fatal("its leader has ended it, and it runs")
	}

	b, led = follower()
	led(wire.ResizeAsk, 0)
	led(wire.ResizeGrow, largerBytes)
	b.zeroes(volumeBytes, largerBytes)
	b.remade(largerBytes)
	b.do(Event{Kind: Promote, Tenure: 6})
	if f := b.expect(DropLink); !errors.Is(f.Err, errSizes) {
		t.Fatal(f.Err)
	}
}

// What is new in a copy that follows is something else at the peer, which may be
// promoted as long as it is in the set: nobody is shown it before that has changed.
func TestReadOfACopyThatFollows(t *testing.T) {
	b := roomy(t)
	b.linkDown()
	b.greet(func(h *wire.HelloBody) {
		resizes(h)
		h.Volumes[0].SizeBytes = largerBytes
	})
	b.linkDown()
	b.remade(largerBytes)
	b.out = nil
	b.submit(block.Read, largerBytes-4096, 4096)
	b.localDone(nil)
	b.none(Answer)
	b.missed()
	b.ledger()
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// A disk that hangs while its metadata are laid out anew, is given up, and lays them
// out after all has the new size when it is attached again. Another disk has not.
func TestDiskGrowsAfterItWasGivenUp(t *testing.T) {
	b := newBox(t, equal())
	b.room = largerBytes
	b.greet(func(h *wire.HelloBody) { resizes(h); h.Role = state.Primary })
	for _, step := range []wire.ResizeStep{wire.ResizeAsk, wire.ResizeGrow} {
		b.receive(b.peerHello(wire.State, func(h *wire.HelloBody) {
			resizes(h)
			h.Role, h.Resize = state.Primary, wire.Resize{Step: step, Round: 3, SizeBytes: largerBytes}
		}))
	}
	b.zeroes(volumeBytes, largerBytes)
	b.expect(RemakeMeta)
	b.do(Event{Kind: DiskStalled, Err: errSdb})
	b.expect(AbandonDisk)
	if err := b.eng.MayAttach(); !errors.Is(err, ErrBadState) {
		t.Fatalf("an attach while its metadata are laid out: %v", err)
	}
	b.do(Event{Kind: SizeFitted, Err: errSdb})
	b.linkDown()
	b.out = nil
	if err := b.attach(b.blank(largerBytes)); !errors.Is(err, ErrBadGeometry) {
		t.Fatalf("another disk, which is larger: %v", err)
	}
	grown := b.blank(largerBytes)
	grown.Super = Super{Gen: equal().super.Gen, Disk: state.UpToDate}
	if err := b.attach(grown); err != nil {
		t.Fatal(err)
	}
	b.linkUp()
	h, err := wire.ParseHello(b.message(wire.Hello).Data)
	if err != nil || h.Volumes[0].SizeBytes != largerBytes || h.Volumes[0].Disk != state.UpToDate {
		t.Fatalf("says %+v, %v", h, err)
	}
}

// A Primary that has given its copy up while its metadata were laid out anew shows
// the new size all the same: its peer, which has the data, has grown before.
func TestForwardingPrimaryHasGrown(t *testing.T) {
	b := asked(t)
	b.zeroes(volumeBytes, largerBytes)
	b.says(wire.ResizeGrown, largerBytes)
	b.expect(RemakeMeta)
	b.do(Event{Kind: DiskStalled, Err: errSdb})
	b.expect(AbandonDisk)
	b.do(Event{Kind: SizeFitted})
	if v := b.eng.View().Volumes[0]; v.Disk != state.Failed || v.SizeBytes != largerBytes {
		t.Fatalf("%s, %d bytes", v.Disk, v.SizeBytes)
	}
}
