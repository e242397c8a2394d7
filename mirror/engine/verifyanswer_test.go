package engine

import (
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/wire"
)

// The other side: it digests what it reads, and a role that changed meanwhile
// ends no session.
func TestVerifyIsAnswered(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	ask := wire.Message{Kind: wire.Verify, ID: 5, Token: 1, Offset: 4096, Length: 8192}
	b.receive(ask)
	b.localDone(nil)
	b.do(Event{Kind: Digested, Request: b.expect(Digest).Request, Payload: make([]byte, 64)})
	if m := b.message(wire.Verified); m.ID != 5 || m.Status != wire.OK || len(m.Data) != 64 {
		t.Fatalf("%+v", m)
	}
	b.receive(ask)
	b.localDone(block.ErrIO)
	if m := b.message(wire.Verified); m.Status != wire.IOError {
		t.Fatalf("%+v", m)
	}
	b.receive(wire.Message{Kind: wire.Verify, Offset: volumeBytes, Length: 4096, Token: 1})
	if m := b.message(wire.Verified); m.Status != wire.BadMessage {
		t.Fatalf("%+v", m)
	}
	b.receive(ask)
	b.localDone(nil)
	b.promote()
	b.do(Event{Kind: Digested, Request: b.expect(Digest).Request, Payload: make([]byte, 64)})
	if m := b.message(wire.Verified); m.Status != wire.BadState {
		t.Fatalf("a Primary's copy changes without the asker's lock: %+v", m)
	}
	b.receive(ask)
	if m := b.message(wire.Verified); m.Status != wire.StaleToken {
		t.Fatalf("%+v", m)
	}
	b.none(DropLink)
	if free := len(b.eng.pool.free); free != opsMax || b.eng.answering != 0 {
		t.Fatalf("%d of %d ops came back", free, opsMax)
	}
}
