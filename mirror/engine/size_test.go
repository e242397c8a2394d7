package engine

import (
	"strings"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// larger is a box whose disk was exchanged for one of twice the size.
func larger(t *testing.T) *box {
	t.Helper()
	s := equal()
	s.size, s.super = 2*volumeBytes, Super{Gen: genid.New(), Disk: state.Inconsistent, Clean: true}
	s.record = wire.Record{Token: 2, InSync: []string{"beta"}}
	return newBox(t, s)
}

// small is what the peer says that stayed.
func small(h *wire.HelloBody) {
	h.Volumes[0].SizeBytes, h.Volumes[0].Gen = volumeBytes, packGen(genid.Set{Current: 77})
}

// A new copy on a larger disk takes the size of the peer's, in its metadata
// first; then the two agree.
func TestNewCopyTakesThePeersSize(t *testing.T) {
	b := larger(t)
	b.greet(small)
	b.expect(DropLink)
	f := b.expect(FitSize)
	if f.Size != volumeBytes || f.Super.Gen != genid.New() || f.Super.Disk != state.Inconsistent {
		t.Fatalf("%d bytes, %+v", f.Size, f.Super)
	}
	b.linkDown()
	b.linkUp()
	b.secondsPass(2)
	for _, kind := range []EffectKind{PeerSend, WriteSuper, WritePage} {
		b.none(kind)
	}
	b.do(Event{Kind: Promote, Tenure: 3, Force: true})
	if f := b.expect(Reply); f.Err == nil {
		t.Fatal("promoted while its metadata are laid out anew")
	}
	b.do(Event{Kind: SizeFitted})
	if h, err := wire.ParseHello(b.message(wire.Hello).Data); err != nil || h.Volumes[0].SizeBytes != volumeBytes {
		t.Fatalf("says %+v, %v", h, err)
	}
	b.receive(b.peerHello(wire.Hello, small))
	if p := b.eng.session.plan; p.action != actTarget || !p.full[0] {
		t.Fatalf("decided %s, full %v", p.action, p.full)
	}
	if v := b.eng.vols[0]; v.bits.SizeBytes() != volumeBytes || b.eng.View().Volumes[0].SizeBytes != volumeBytes {
		t.Fatalf("the bitmap is for %d bytes, the view says %d", v.bits.SizeBytes(), b.eng.View().Volumes[0].SizeBytes)
	}
}

// The side that stays waits for the next session, and its applications do not
// wait for that.
func TestPeerOfANewCopyWaits(t *testing.T) {
	b := newBox(t, equal())
	b.promote()
	b.linkUp()
	b.message(wire.Hello)
	b.submit(block.Write, 0, 4096) // held while a handshake is under way
	b.none(LocalIO)
	b.receive(b.peerHello(wire.Hello, func(h *wire.HelloBody) {
		newDisk(h)
		h.Volumes[0].SizeBytes = 2 * volumeBytes
	}))
	b.none(FitSize)
	b.none(DropLink)
	b.none(StandAlone)
	b.localDone(nil)
}

// Metadata that cannot be laid out anew are those of a failed disk.
func TestFittingFails(t *testing.T) {
	b := larger(t)
	b.greet(small)
	b.linkDown()
	b.do(Event{Kind: SizeFitted, Err: errSdb})
	if f := b.expect(Problem); !strings.Contains(f.Text, "/dev/sdb") || b.eng.vols[0].disk != state.Failed {
		t.Fatalf("%s: %s", b.eng.vols[0].disk, f.Text)
	}
}
