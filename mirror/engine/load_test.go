package engine

import (
	"errors"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// Under load the bitmap of a Primary without its peer grows between its hello and the
// peer's. That changes nothing of what the two agree on, and does not end the session
// each time; but where nothing was marked, and where the peer is in the set.
func TestMarksThatGrowDoNotEndTheHandshake(t *testing.T) {
	b := ahead(t)
	b.linkUp()
	b.message(wire.Hello)
	b.submit(block.Write, 8<<20, 4096)
	for range 2 { // its extent is cold
		if _, ok := b.find(LocalIO, nil); ok {
			break
		}
	}
	before := b.eng.vols[0].bits.Count()
	b.eng.vols[0].bits.Set(16<<20, 4096)
	if b.eng.vols[0].bits.Count() == before {
		t.Fatal("nothing was marked: the test is none")
	}
	b.out = nil
	b.receive(b.peerHello(wire.Hello, behind))
	b.none(DropLink)
	if !b.eng.View().Connected {
		t.Fatal("not connected")
	}

	b = newBox(t, equal()) // in the set
	b.promote()
	b.linkUp()
	b.message(wire.Hello)
	b.eng.vols[0].bits.Set(16<<20, 4096)
	b.receive(b.peerHello(wire.Hello, nil))
	b.expect(DropLink)
}

// What no window takes waits for the peer, and does not have this node pull ahead of one
// that is not behind.
func TestWhatIsLargerThanTheWindow(t *testing.T) {
	b := replicated(t, state.ProtocolA)
	b.do(Event{Kind: Configure, Settings: Settings{Protocol: state.ProtocolA, CongestionFill: 8192, PullAhead: true}})
	b.submit(block.Write, 0, 16384)
	m := b.message(wire.Write)
	b.localDone(nil)
	b.unanswered()
	b.none(RestLink)
	b.write(1<<20, 1) // others go on
	b.localDone(nil)
	b.wellAnswered()
	b.ack(m)
	b.wellAnswered()
}

// With on_no_quorum: error what waits for the range of a write fails with it, a tick
// later: nobody is left waiting.
func TestWhatWaitsForAColdWriteFailsToo(t *testing.T) {
	b := mirrored(t, equal())
	b.eng.set.FailFrozen = true
	b.hold[WriteActivity] = true
	b.submit(block.Write, 0, 4096)
	b.submit(block.Write, 0, 8192)
	b.expect(WriteActivity)
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure})
	b.do(Event{Kind: Tick})
	for range 2 {
		b.now += frozenMax
		b.do(Event{Kind: Tick})
	}
	for range 2 {
		if err := b.answered(); !errors.Is(err, block.ErrIO) {
			t.Fatalf("answered %v", err)
		}
	}
	if n := b.eng.vols[0].waiting.n; n != 0 {
		t.Fatalf("%d wait", n)
	}
}

// What is being mended counts: checks that come upon blocks which cannot be read do not
// pile up as long as there are such blocks.
func TestMendsBoundAVerify(t *testing.T) {
	s := equal()
	s.size = oneMiB
	b := newBox(t, s)
	b.greet(ableAndKnows)
	b.promote()
	b.out = nil
	x := &verifier{box: b, theirs: map[int64]byte{}, ours: map[int64]byte{}}
	if err := x.order(VerifyOrder{Volume: AllVolumes, Repair: true}); err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		f, ok := x.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Verify })
		if !ok {
			break
		}
		x.out = append([]Effect{f}, x.out...)
		x.answer(wire.OK)
		x.read(errSdb)
	}
	if n := b.eng.verify.mending; n == 0 || n > verifyOpsMax {
		t.Fatalf("%d are being mended", n)
	}
}

// Who has just become Primary, and holds the lease, leads a verify, though the peer has
// not said yet that it is not Primary any more.
func TestVerifyOfANewPrimary(t *testing.T) {
	b := newBox(t, equal())
	b.greet(func(h *wire.HelloBody) { knows(h); h.Role = state.Primary })
	b.promote()
	if why := b.eng.verifyWaits(true); why != "" {
		t.Fatal(why)
	}
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure})
	if b.eng.verifyWaits(true) == "" {
		t.Fatal("it leads without a lease")
	}
}
