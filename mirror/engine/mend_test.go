package engine

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/wire"
)

// unread is a connected Primary that could not read what it asks its peer for.
func unread(t *testing.T) (*box, *block.Request, wire.Message) {
	t.Helper()
	b := capable(t, equal())
	r := b.submit(block.Read, 8192, 4096)
	b.localDone(errSdb)
	return b, r, b.message(wire.Read)
}

func (b *box) data(m wire.Message, fill byte) {
	b.receive(wire.Message{Kind: wire.Data, ID: m.ID, Offset: m.Offset, Length: m.Length, Data: bytes.Repeat([]byte{fill}, int(m.Length))})
}

// A sector that cannot be read is fetched from the peer and written again; the
// application gets what it asked for.
func TestReadErrorIsMended(t *testing.T) {
	b, r, m := unread(t)
	b.data(m, 7)
	b.none(Answer)
	f := b.expect(LocalIO)
	if f.Request.Op != block.Write || f.Request.Flags&block.FUA == 0 || f.Request.Offset != 8192 || f.Request.Data[0] != 7 {
		t.Fatalf("%s", f.Request)
	}
	b.do(Event{Kind: LocalDone, Request: f.Request})
	if err := b.answered(); err != nil || r.Data[0] != 7 {
		t.Fatalf("%v, %v", err, r.Data[0])
	}
	if n := b.expect(Note); n.Topic != OnDisk || !strings.Contains(n.Text, "/dev/sdb") {
		t.Fatalf("%s", n.Text)
	}
	if b.eng.vols[0].active.n != 0 || b.eng.vols[0].disk.String() != "UpToDate" {
		t.Fatalf("%d ops are active, the disk is %s", b.eng.vols[0].active.n, b.eng.vols[0].disk)
	}
	b.none(LedgerGiveUp)
}

// What is mended is not written over by what was there before a write.
func TestMendAndWriteKeepTheirOrder(t *testing.T) {
	b, _, m := unread(t)
	b.submit(block.Write, 8192, 4096)
	if _, sent := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Write }); sent {
		t.Fatal("written while what was there before is being fetched")
	}
	b.data(m, 7)
	b.localDone(nil)
	b.message(wire.Write)
}

// A mend waits for the write before it.
func TestMendWaitsForTheWriteBeforeIt(t *testing.T) {
	b := capable(t, equal())
	b.submit(block.Read, 8192, 4096)
	read := b.expect(LocalIO)
	b.submit(block.Write, 8192, 4096)
	b.do(Event{Kind: LocalDone, Request: read.Request, Err: errSdb})
	w := b.message(wire.Write)
	if _, sent := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Read }); sent {
		t.Fatal("fetched while it is being written")
	}
	b.localDone(nil)
	b.ack(w)
	b.message(wire.Read)
}

// A disk that takes no write either is given up; the application has its data.
func TestMendThatFails(t *testing.T) {
	b, r, m := unread(t)
	b.data(m, 7)
	b.localDone(errSdb)
	if err := b.answered(); err != nil || r.Data[0] != 7 {
		t.Fatalf("%v, %v", err, r.Data[0])
	}
	b.expect(LedgerGiveUp)
}

// When the peer cannot read it either, or leaves, the read has failed, and the
// copy stays: everything else of it may be good.
func TestMendWithoutAPeer(t *testing.T) {
	for name, end := range map[string]func(b *box, m wire.Message){
		"cannot read": func(b *box, m wire.Message) {
			b.receive(wire.Message{Kind: wire.Ack, ID: m.ID, Status: wire.IOError})
		},
		"leaves": func(b *box, _ wire.Message) { b.linkDown() },
	} {
		b, _, m := unread(t)
		end(b, m)
		if err := b.answered(); !errors.Is(err, block.ErrIO) {
			t.Fatalf("%s: answered %v", name, err)
		}
		b.none(LedgerGiveUp)
		if b.eng.vols[0].active.n != 0 || b.eng.vols[0].disk.String() != "UpToDate" {
			t.Fatalf("%s: %d ops are active, the disk is %s", name, b.eng.vols[0].active.n, b.eng.vols[0].disk)
		}
	}
}

// While it is being mended the disk fails for good: the read goes to the peer.
func TestMendWhenTheCopyIsGivenUp(t *testing.T) {
	b, r, m := unread(t)
	b.submit(block.Write, 0, 4096)
	b.localDone(errSdb)
	b.data(m, 7)
	if err := b.answered(); err != nil || r.Data[0] != 7 {
		t.Fatalf("%v, %v", err, r.Data[0])
	}
	b.none(LocalIO)
}

// One that still waits for a write to be done is forwarded as any other read.
func TestMendThatWaitedWhenTheCopyWasGivenUp(t *testing.T) {
	b := capable(t, equal())
	r := b.submit(block.Read, 8192, 4096)
	read := b.expect(LocalIO)
	b.submit(block.Write, 8192, 4096)
	b.do(Event{Kind: LocalDone, Request: read.Request, Err: errSdb})
	b.localDone(errSdb) // the write
	b.ledger()
	b.linkDown()
	b.out = nil
	b.keeper()
	b.ack(b.message(wire.Write))
	b.data(b.message(wire.Read), 7)
	for range 2 {
		if err := b.answered(); err != nil {
			t.Fatal(err)
		}
	}
	if r.Data[0] != 7 {
		t.Fatalf("read %d", r.Data[0])
	}
	b.none(LocalIO)
}

// Mends that come to nothing end as they begin, one waking the other.
func TestMendsThatEndAsTheyBegin(t *testing.T) {
	b := capable(t, equal())
	reads := make([]Effect, 3)
	for i := range reads {
		b.submit(block.Read, 8192, 4096)
		reads[i] = b.expect(LocalIO)
	}
	b.submit(block.Write, 8192, 4096)
	for _, r := range reads {
		b.do(Event{Kind: LocalDone, Request: r.Request, Err: errSdb})
	}
	b.submit(block.Write, 8192, 4096)
	b.localDone(nil)
	b.linkDown()
	b.ledger() // the first write is answered, and the mends find nobody to ask
	for range 4 {
		b.expect(Answer)
	}
	b.localDone(nil)
	b.expect(Answer)
	if v := b.eng.vols[0]; v.active.n+v.waiting.n != 0 {
		t.Fatalf("%d active, %d waiting", v.active.n, v.waiting.n)
	}
}
