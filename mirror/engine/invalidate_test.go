package engine

import (
	"testing"

	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// One volume is given up: it alone is wanted as a whole.
func TestInvalidateOfOneVolume(t *testing.T) {
	s := equal()
	s.volumes = 2
	b := newBox(t, s)
	b.greet(nil)
	b.do(Event{Kind: Invalidate, Volume: 1, Only: true})
	if f := b.expect(Reply); f.Err != nil {
		t.Fatal(f.Err)
	}
	b.expect(DropLink)
	b.linkDown()
	v := b.eng.View()
	if v.Volumes[0].Disk != state.UpToDate || v.Volumes[1].Disk != state.Inconsistent {
		t.Fatalf("disks are %s and %s", v.Volumes[0].Disk, v.Volumes[1].Disk)
	}
	b.linkUp()
	h, err := wire.ParseHello(b.message(wire.Hello).Data)
	if err != nil {
		t.Fatal(err)
	}
	if h.Volumes[0].FullSync || !h.Volumes[1].FullSync {
		t.Fatalf("greets with %+v", h.Volumes)
	}
	b.receive(b.peerHello(wire.Hello, func(h *wire.HelloBody) { h.Volumes[1].Gen = packGen(genid.Set{Current: 77}) }))
	if d := b.eng.session.plan; d.action != actTarget || d.full[0] || !d.full[1] {
		t.Fatalf("decided %+v", d)
	}
}

// The source sends all of the volume that was given up, and of the other only
// what the bitmaps say.
func TestSourceOfOneInvalidatedVolume(t *testing.T) {
	s := equal()
	s.volumes = 2
	b := newBox(t, s)
	b.greet(func(h *wire.HelloBody) {
		v := &h.Volumes[1]
		v.Disk, v.FullSync, v.Gen = state.Inconsistent, true, packGen(genid.New())
	})
	b.ledger() // the peer is out of the set
	b.message(wire.SyncStart)
	if v := b.eng.View(); v.Volumes[0].DirtyBytes != 0 || v.Volumes[1].DirtyBytes != volumeBytes {
		t.Fatalf("%d and %d bytes are to be sent", v.Volumes[0].DirtyBytes, v.Volumes[1].DirtyBytes)
	}
}

// The source of a resync that is complete may give its copy up later on, in the
// same session.
func TestInvalidateOfWhatWasTheSource(t *testing.T) {
	b, done := syncing(t)
	b.do(Event{Kind: Invalidate})
	if f := b.expect(Reply); f.Err == nil {
		t.Fatal("the source of a running resync is given up")
	}
	b.ack(done)
	b.ledger() // the peer is in the set
	b.do(Event{Kind: Demote})
	b.localDone(nil)
	b.ack(b.message(wire.Flush))
	if f := b.expect(Reply); f.Err != nil {
		t.Fatal(f.Err)
	}
	b.do(Event{Kind: Invalidate})
	if f := b.expect(Reply); f.Err != nil {
		t.Fatal(f.Err)
	}
}
