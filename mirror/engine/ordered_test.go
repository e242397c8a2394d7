package engine

import (
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/wire"
)

// At the peer: its word from memory comes before its disk is asked.
func TestSecondarySaysWhatItHasInMemory(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	b.out = nil
	b.receive(wire.Message{Kind: wire.Write, ID: 5, Token: 1, Length: 4096, Data: make([]byte, 4096), Flags: wire.Memory})
	if m := b.message(wire.Ack); m.ID != 5 || m.Flags != wire.Memory {
		t.Fatalf("%+v", m)
	}
	b.localDone(nil)
	if m := b.message(wire.Ack); m.ID != 5 || m.Flags != 0 {
		t.Fatalf("%+v", m)
	}
}

// An ordered flush keeps its place: what came before it is on the disk, what
// comes after waits.
func TestSecondaryKeepsTheOrderOfAFlush(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	b.out = nil
	at := func(id uint64, offset uint64) {
		b.receive(wire.Message{Kind: wire.Write, ID: id, Token: 1, Offset: offset, Length: 4096, Data: make([]byte, 4096)})
	}
	at(1, 0)
	b.receive(wire.Message{Kind: wire.Flush, ID: 2, Token: 1, Flags: wire.Ordered})
	at(3, 8192)
	at(4, 16384)
	if n := b.eng.peerOps - b.eng.parked.n; n != 1 {
		t.Fatalf("%d are at the disk, though the flush has to wait for the first", n)
	}
	if r := b.localDone(nil); r.Op != block.Write || r.Offset != 0 {
		t.Fatalf("%s", r)
	}
	f := b.expect(LocalIO)
	if b.none(LocalIO); f.Request.Op != block.Flush {
		t.Fatalf("%s", f.Request)
	}
	b.do(Event{Kind: LocalDone, Request: f.Request})
	b.localDone(nil)
	b.localDone(nil)
	for id := uint64(1); id <= 4; id++ {
		if m := b.message(wire.Ack); m.ID != id {
			t.Fatalf("ack of %d, want %d", m.ID, id)
		}
	}
	if b.eng.peerOps != 0 || b.eng.parked.n != 0 || b.eng.barrier {
		t.Fatalf("%d in flight, %d parked", b.eng.peerOps, b.eng.parked.n)
	}
}

// A write with FUA that is ordered keeps its place, too, and across volumes: a log
// on one is on the disk before the data on another are asked for.
func TestSecondaryKeepsTheOrderAcrossVolumes(t *testing.T) {
	s := equal()
	s.volumes = 2
	b := newBox(t, s)
	b.greet(nil)
	b.out = nil
	write := func(id uint64, volume uint16, f wire.Flags) {
		b.receive(wire.Message{Kind: wire.Write, ID: id, Token: 1, Volume: volume, Length: 4096, Data: make([]byte, 4096), Flags: f})
	}
	write(1, 0, wire.FUA|wire.Ordered)
	write(2, 1, wire.FUA|wire.Ordered)
	write(3, 0, 0)
	for id := uint64(1); id <= 3; id++ {
		f := b.expect(LocalIO)
		if b.none(LocalIO); f.Volume != int(id-1)%2 || f.Request.Flags&block.FUA != 0 != (id < 3) {
			t.Fatalf("volume %d: %s", f.Volume, f.Request)
		}
		b.do(Event{Kind: LocalDone, Request: f.Request})
		if m := b.message(wire.Ack); m.ID != id {
			t.Fatalf("ack of %d, want %d", m.ID, id)
		}
	}
	b.receive(wire.Message{Kind: wire.Flush, ID: 4, Token: 1, Flags: wire.Ordered})
	write(5, 1, 0)
	if f := b.expect(LocalIO); f.Request.Op != block.Flush || f.Volume != 0 {
		t.Fatalf("volume %d: %s", f.Volume, f.Request)
	}
	b.none(LocalIO)
}

// The disk fails with requests that wait their turn: they are dropped, and the
// node leaves.
func TestSecondaryWithParkedRequestsWhoseDiskFails(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	b.out = nil
	b.receive(wire.Message{Kind: wire.Flush, ID: 1, Token: 1, Flags: wire.Ordered})
	b.receive(wire.Message{Kind: wire.Write, ID: 2, Token: 1, Length: 4096, Data: make([]byte, 4096)})
	b.localDone(block.ErrIO)
	b.expect(StandAlone)
	b.none(LocalIO)
	if b.eng.peerOps != 0 || b.eng.parked.n != 0 || b.eng.barrier {
		t.Fatalf("%d in flight, %d parked", b.eng.peerOps, b.eng.parked.n)
	}
}
