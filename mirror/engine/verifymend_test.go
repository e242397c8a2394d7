package engine

import (
	"strings"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

const sore = 20480 // a block that cannot be read here

// ableAndKnows makes a hello that of a release which serves reads and verifies.
func ableAndKnows(h *wire.HelloBody) { h.Features = wire.FeatureRead | wire.FeatureVerify }

// unreadable is a verify of a Primary that has come upon a block it cannot read,
// and what it asks its peer for.
func unreadable(t *testing.T) (*verifier, wire.Message) {
	t.Helper()
	x := verifying(t, false)
	x.linkDown()
	x.greet(ableAndKnows)
	x.out = nil
	if err := x.order(VerifyOrder{Volume: AllVolumes, Repair: true}); err != nil {
		t.Fatal(err)
	}
	x.lookOver()
	return x, x.message(wire.Read)
}

// lookOver lets everything of a verify happen; the block cannot be read.
func (x *verifier) lookOver() {
	x.t.Helper()
	for {
		f, ok := x.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Verify })
		if !ok {
			return
		}
		var err error
		if m := &f.Message; m.Offset <= sore && sore < m.Offset+m.Length {
			err = errSdb
		}
		x.out = append([]Effect{f}, x.out...)
		x.answer(wire.OK)
		x.read(err)
	}
}

// What the Primary cannot read is fetched from its peer and written again, under a
// hot extent; then nothing is wrong any more.
func TestVerifyMendsWhatCannotBeReadHere(t *testing.T) {
	x, m := unreadable(t)
	if m.Offset != sore || m.Length != 4096 {
		t.Fatalf("asks for %d bytes at %d", m.Length, m.Offset)
	}
	if !x.eng.vols[0].active.head.logged {
		t.Fatal("the extent is not hot")
	}
	x.data(m, 7)
	f := x.expect(LocalIO)
	if f.Request.Op != block.Write || f.Request.Flags&block.FUA == 0 || f.Request.Offset != sore || f.Request.Data[0] != 7 {
		t.Fatalf("%s", f.Request)
	}
	if w := x.view(); w.State != VerifyRunning {
		t.Fatalf("%s before the block is written", w.State)
	}
	x.none(Proven)
	x.do(Event{Kind: LocalDone, Request: f.Request})
	w := x.view()
	if w.State != VerifyDone || w.Unreadable != 1 || w.Repaired != 1 || w.Found[0].Kind != "unreadable_here" || !w.Found[0].Repaired {
		t.Fatalf("%+v", w)
	}
	x.expect(Proven)
	x.none(Problem)
	x.none(Answer)
	if n, ok := x.find(Note, func(f *Effect) bool { return f.Topic == OnDisk }); !ok || !strings.Contains(n.Text, "fetched from beta and written again") {
		t.Fatalf("the log says %q", n.Text)
	}
	x.clean()
}

// A write that came meanwhile goes first, or after, never beside it.
func TestVerifyMendAndWriteKeepTheirOrder(t *testing.T) {
	x, m := unreadable(t)
	x.submit(block.Write, sore, 4096)
	if f, sent := x.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Write }); sent {
		t.Fatalf("%s while what was there before is being fetched", &f.Message)
	}
	x.data(m, 7)
	x.localDone(nil)
	x.message(wire.Write)
}

// A block that the peer cannot read either, or a verify that is not to repair, ends
// as a finding, and costs no disk.
func TestVerifyMendThatFails(t *testing.T) {
	x, m := unreadable(t)
	x.receive(wire.Message{Kind: wire.Ack, ID: m.ID, Status: wire.IOError})
	w := x.view()
	if w.State != VerifyDone || w.Unreadable != 1 || w.Repaired != 0 || w.Found[0].Repaired || x.eng.View().Volumes[0].Disk != state.UpToDate {
		t.Fatalf("%+v", w)
	}
	x.expect(Problem)
	x.none(Proven)
	x.clean()
}

// A session that ends in the middle has the block looked at again in the next.
func TestVerifyMendGoesOnAfterABreak(t *testing.T) {
	x, _ := unreadable(t)
	x.linkDown()
	if w := x.view(); w.Unreadable != 0 || w.Position.Offset > sore {
		t.Fatalf("%+v", w)
	}
	x.none(Problem)
	x.greet(ableAndKnows)
	x.eng.now = x.now
	x.do(Event{Kind: Tick})
	x.lookOver()
	x.data(x.message(wire.Read), 7)
	x.localDone(nil)
	x.lookOver()
	if w := x.view(); w.State != VerifyDone || w.Repaired != 1 {
		t.Fatalf("%+v", w)
	}
	x.clean()
}

// A demotion waits until the block is written.
func TestDemotionWaitsForAMend(t *testing.T) {
	x, m := unreadable(t)
	x.do(Event{Kind: Demote})
	x.localDone(nil) // its own flush
	x.ack(x.message(wire.Flush))
	x.none(Reply)
	x.data(m, 7)
	x.localDone(nil)
	if f := x.expect(Reply); f.Err != nil || x.eng.View().Role != state.Secondary {
		t.Fatalf("%v, %s", f.Err, x.eng.View().Role)
	}
}

// A disk that takes no write either is given up.
func TestVerifyMendOnADiskThatFails(t *testing.T) {
	x, m := unreadable(t)
	x.data(m, 7)
	x.localDone(errSdb)
	x.expect(LedgerGiveUp)
	x.none(Answer)
	x.clean()
}
