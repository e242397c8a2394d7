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
	h.Volumes[0].SizeBytes, h.Volumes[0].Gen = volumeBytes, genid.Set{Current: 77}.Words()
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
	for _, kind := range []EffectKind{PeerSend, WriteSuper, WritePages} {
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

// Which copy may be cut, and what an operator reads about one that may not.
func TestSizesOfAHandshake(t *testing.T) {
	declared := func(size int64) func(*wire.HelloBody) {
		return func(h *wire.HelloBody) {
			h.Volumes[0].SizeBytes, h.Volumes[0].AssumeClean, h.Record = size, true, wire.Record{}
		}
	}
	for _, c := range []handshake{
		{name: "size", beta: func(h *wire.HelloBody) { h.Volumes[0].SizeBytes = 4096 }, status: wire.BadGeometry, lasting: true,
			wantSentence: "volume 0 has 67108864 bytes on alpha and 4096 bytes on beta; a copy is fitted to the other only while it is new: if alpha may lose what it has, run hactl create-metadata there"},
		{name: "new disk, too small", beta: func(h *wire.HelloBody) { gen(genid.JustCreated, 0)(h); h.Volumes[0].SizeBytes = 4096 }, status: wire.BadGeometry, lasting: true,
			wantSentence: "volume 0 has 67108864 bytes on alpha and 4096 bytes on beta, whose copy is new: it needs a disk that offers as much"},
		{name: "new disk, larger", beta: func(h *wire.HelloBody) { gen(genid.JustCreated, 0)(h); h.Volumes[0].SizeBytes *= 2 }, action: actFit,
			wantSentence: "volume 0 of beta holds nothing yet and has 134217728 bytes, alpha has 67108864"},
		{name: "a new disk that is Primary by force is not new", beta: func(h *wire.HelloBody) {
			gen(genid.JustCreated, 0)(h)
			h.Role, h.Volumes[0].SizeBytes = state.Primary, 2*volumeBytes
		}, status: wire.BadGeometry, lasting: true,
			wantSentence: "volume 0 has 134217728 bytes on beta and 67108864 bytes on alpha; a copy is fitted to the other only while it is new: if beta may lose what it has, run hactl create-metadata there"},
		{name: "new pair declared equal", alpha: declared(volumeBytes), beta: declared(2 * volumeBytes), action: actFit,
			wantSentence: "volume 0 of beta holds nothing yet and has 134217728 bytes, alpha has 67108864"},
		{name: "declared equal once, and Primary since", alpha: declared(volumeBytes), beta: func(h *wire.HelloBody) { declared(2 * volumeBytes)(h); h.LastPrimary = true },
			status: wire.BadGeometry, lasting: true,
			wantSentence: "volume 0 has 134217728 bytes on beta and 67108864 bytes on alpha; a copy is fitted to the other only while it is new: if beta may lose what it has, run hactl create-metadata there"},
		{name: "blocks", beta: func(h *wire.HelloBody) { h.Volumes[0].LogicalBlockBytes = 4096 }, status: wire.BadGeometry, lasting: true,
			wantSentence: "volume 0 has logical blocks of 512 bytes on alpha and of 4096 bytes on beta; both disks need the same"},
	} {
		c.judge(t)
	}
}
