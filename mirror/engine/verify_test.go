package engine

import (
	"errors"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// verifier is a box whose peer answers Verify from a copy of its own; both
// copies read all zeroes but for what the story puts there.
type verifier struct {
	*box
	theirs map[int64]byte // first byte of a block at the peer
	ours   map[int64]byte
	silent bool // the peer does not answer
}

const oneMiB = 1 << 20

// verifying is a connected Primary, or with secondary two Secondaries.
func verifying(t *testing.T, secondary bool, held ...EffectKind) *verifier {
	t.Helper()
	s := equal()
	s.size, s.held = oneMiB, held
	b := newBox(t, s)
	b.hold[WriteSuper] = false
	b.greet(knows)
	if !secondary {
		b.promote()
	}
	b.out = nil
	return &verifier{box: b, theirs: map[int64]byte{}, ours: map[int64]byte{}}
}

// knows makes a hello that of a release which can verify.
func knows(h *wire.HelloBody) { h.Features = wire.FeatureVerify }

func (x *verifier) order(o VerifyOrder) error {
	x.t.Helper()
	x.do(Event{Kind: Verify, Verify: o})
	return x.expect(Reply).Err
}

func content(of map[int64]byte, offset, length int64) []byte {
	data := make([]byte, length)
	for at := int64(0); at < length; at += 4096 {
		data[at] = of[offset+at]
	}
	return data
}

// read ends the oldest read of a verify here, and digests it.
func (x *verifier) read(err error) bool {
	x.t.Helper()
	f, ok := x.find(LocalIO, func(f *Effect) bool { return f.Request.Op == block.Read && f.Request.Owner.(*op).kind == opVerify })
	if !ok {
		return false
	}
	copy(f.Request.Data, content(x.ours, f.Request.Offset, f.Request.Length))
	x.do(Event{Kind: LocalDone, Request: f.Request, Err: err})
	if d, ok := x.find(Digest, nil); ok {
		x.do(Event{Kind: Digested, Request: d.Request, Payload: wire.AppendDigests(nil, d.Request.Data)})
	}
	return true
}

// answer is the peer's to the oldest Verify.
func (x *verifier) answer(status wire.Status) bool {
	x.t.Helper()
	f, ok := x.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Verify })
	if !ok || x.silent {
		return false
	}
	m := wire.Message{Kind: wire.Verified, ID: f.Message.ID, Status: status}
	if status == wire.OK {
		m.Data = wire.AppendDigests(nil, content(x.theirs, int64(f.Message.Offset), int64(f.Message.Length)))
	}
	x.receive(m)
	return true
}

// all lets everything of a verify happen until nothing is asked any more.
func (x *verifier) all() {
	x.t.Helper()
	for {
		read, answered := x.read(nil), x.answer(wire.OK)
		if !read && !answered {
			return
		}
	}
}

func (x *verifier) view() VerifyView { return x.eng.View().Verify }

// clean fails when an op, a range or a check is left.
func (x *verifier) clean() {
	x.t.Helper()
	v := x.eng.vols[0]
	if free := len(x.eng.pool.free); free != opsMax || v.active.n+v.waiting.n+x.eng.verify.unlocked.n != 0 || x.eng.verify.flight != 0 {
		x.t.Fatalf("%d of %d ops came back; %d active, %d waiting, %d unlocked, %d in flight", free, opsMax, v.active.n, v.waiting.n, x.eng.verify.unlocked.n, x.eng.verify.flight)
	}
}

func TestVerifyOfEqualCopies(t *testing.T) {
	for name, secondary := range map[string]bool{"Primary": false, "two Secondaries": true} {
		x := verifying(t, secondary)
		if err := x.order(VerifyOrder{Volume: AllVolumes}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		x.all()
		w := x.view()
		if w.State != VerifyDone || w.Done != oneMiB || w.Total != oneMiB || w.Differing != 0 {
			t.Fatalf("%s: %+v", name, w)
		}
		if f := x.expect(Proven); f.Offset != 0 || f.Size != oneMiB {
			t.Fatalf("%s: proven equal: %d+%d", name, f.Offset, f.Size)
		}
		x.none(Problem)
		x.clean()
	}
}

// What differs at the first look is looked at again with its range locked: a
// write in flight is no difference, and one that comes meanwhile waits.
func TestVerifyTakesNoWriteInFlightForADifference(t *testing.T) {
	x := verifying(t, false)
	x.theirs[8192] = 7 // the peer has the write already
	if err := x.order(VerifyOrder{Volume: AllVolumes}); err != nil {
		t.Fatal(err)
	}
	x.answer(wire.OK)
	x.read(nil)
	x.ours[8192] = 7
	f, ok := x.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Verify && f.Message.Length == 4096 })
	if !ok || f.Message.Offset != 8192 {
		t.Fatalf("the block is not looked at again:%s", x.pending())
	}
	x.submit(block.Write, 8192, 4096)
	if _, ok := x.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Write }); ok {
		t.Fatal("a write goes ahead although its block is being looked at")
	}
	x.submit(block.Read, 8192, 4096) // does not wait for the check, but for the write before it
	x.receive(wire.Message{Kind: wire.Verified, ID: f.Message.ID, Data: wire.AppendDigests(nil, content(x.theirs, 8192, 4096))})
	x.all()
	x.message(wire.Write)
	if w := x.view(); w.State != VerifyDone || w.Differing != 0 || x.eng.vols[0].bits.Count() != 0 {
		t.Fatalf("%+v", w)
	}
	x.none(Problem)
}

// The session may end at any step: nothing is left, and the next session goes
// on where the verify was.
func TestVerifyGoesOnAfterABreak(t *testing.T) {
	for step := range 12 {
		x := verifying(t, false)
		x.theirs[8192] = 1
		if err := x.order(VerifyOrder{Volume: AllVolumes, Repair: true}); err != nil {
			t.Fatal(err)
		}
		for i := range step {
			if i%2 == 0 {
				x.read(nil)
			} else {
				x.answer(wire.OK)
			}
		}
		x.linkDown()
		for x.read(nil) {
		}
		x.clean()
		at := x.view().Position.Offset
		if w := x.view(); w.State != VerifyRunning || w.Waits == "" || w.Done != at {
			t.Fatalf("step %d: %+v", step, w)
		}
		x.out = nil
		x.eng.vols[0].bits.ClearAll() // as after the resync
		x.greet(knows)
		x.do(Event{Kind: Tick})
		if m := x.message(wire.Verify); int64(m.Offset) != at {
			t.Fatalf("step %d: was at %d, goes on at %d", step, at, m.Offset)
		}
	}
}

// A peer that becomes Primary writes without the lock here: what is in flight
// proves nothing then, and the verify waits.
func TestVerifyOfASecondaryYieldsToAPrimary(t *testing.T) {
	x := verifying(t, true)
	x.theirs[8192] = 1
	if err := x.order(VerifyOrder{Volume: AllVolumes}); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		x.read(nil)
		x.answer(wire.OK)
	}
	// The second look is asked for.
	// The peer was Primary for a moment; its copy is read after its write, ours before.
	x.receive(wire.Message{Kind: wire.Write, Token: 1, Offset: 8192, Length: 512, Data: make([]byte, 512)})
	x.answer(wire.OK)
	x.read(nil)
	x.theirs[8192] = 0
	if w := x.view(); w.State != VerifyRunning || w.Differing != 0 {
		t.Fatalf("%+v", w)
	}
	x.receive(x.peerHello(wire.State, func(h *wire.HelloBody) { knows(h); h.Role = state.Primary }))
	x.all()
	if w := x.view(); w.State != VerifyRunning || w.Waits == "" || w.Differing != 0 || x.eng.vols[0].bits.Count() != 0 {
		t.Fatalf("%+v", w)
	}
	x.receive(x.peerHello(wire.State, knows))
	x.do(Event{Kind: Tick})
	x.all()
	if w := x.view(); w.State != VerifyDone || w.Differing != 0 {
		t.Fatalf("%+v", w)
	}
}

func TestVerifyStopsAndResumes(t *testing.T) {
	x := verifying(t, false)
	if err := x.order(VerifyOrder{Volume: AllVolumes}); err != nil {
		t.Fatal(err)
	}
	x.read(nil)
	x.answer(wire.OK)
	x.do(Event{Kind: VerifyStop})
	x.none(Reply) // checks are in flight
	x.all()
	if f := x.expect(Reply); f.Err != nil || f.Of != VerifyStop {
		t.Fatalf("%+v", f)
	}
	w := x.view()
	if w.State != VerifyStopped || w.Position.Offset != verifyChunkBytes {
		t.Fatalf("%+v", w)
	}
	x.clean()
	x.do(Event{Kind: VerifyStop})
	if f := x.expect(Reply); !errors.Is(f.Err, ErrBadState) {
		t.Fatalf("stopped twice: %v", f.Err)
	}
	if err := x.order(VerifyOrder{Volume: AllVolumes, Resume: true, From: w.Position}); err != nil {
		t.Fatal(err)
	}
	x.all()
	if w := x.view(); w.State != VerifyDone {
		t.Fatalf("%+v", w)
	}
}

// A run that had come farther than the volume now reaches begins anew.
func TestVerifyResumesInAVolumeThatShrank(t *testing.T) {
	x := verifying(t, false)
	from := VerifyPosition{Offset: x.eng.vols[0].geo.SizeBytes + verifyChunkBytes}
	if err := x.order(VerifyOrder{Volume: AllVolumes, Resume: true, From: from}); err != nil {
		t.Fatal(err)
	}
	if w := x.view(); w.State != VerifyRunning || w.Position.Offset != 0 {
		t.Fatalf("%+v", w)
	}
	x.read(nil)
}

func TestRefusalsOfAVerify(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*wire.HelloBody)
		order  VerifyOrder
		want   string
	}{
		{"an older peer", func(*wire.HelloBody) {}, VerifyOrder{Volume: AllVolumes}, "beta runs a release that cannot verify"},
		{"a Primary over there", func(h *wire.HelloBody) { knows(h); h.Role = state.Primary }, VerifyOrder{Volume: AllVolumes}, "beta is Primary, and a verify is led by the Primary"},
		{"repair without a Primary", knows, VerifyOrder{Volume: AllVolumes, Repair: true}, "no node is Primary: which copy is right is not proven by what an application sees"},
	} {
		b := newBox(t, equal())
		b.greet(c.change)
		x := &verifier{box: b}
		if err := x.order(c.order); err == nil || !errors.Is(err, ErrBadState) || err.Error() != c.want+": does not fit the present state" {
			t.Errorf("%s: %v", c.name, err)
		}
		b.none(LocalIO)
		if _, ok := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Verify }); ok {
			t.Errorf("%s: asked all the same", c.name)
		}
	}
	x := verifying(t, false)
	x.linkDown()
	if err := x.order(VerifyOrder{Volume: AllVolumes}); err == nil {
		t.Error("a verify without a peer")
	}
}

// Beside an application there is one check in flight, and a bound on the rate;
// without one there are several.
func TestVerifyYieldsToApplications(t *testing.T) {
	asked := func(x *verifier) (n int) {
		for ; ; n++ {
			if _, ok := x.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Verify }); !ok {
				return n
			}
		}
	}
	s := equal()
	b := newBox(t, s)
	b.greet(knows)
	b.promote()
	x := &verifier{box: b}
	x.now = time.Second
	if err := x.order(VerifyOrder{Volume: AllVolumes}); err != nil {
		t.Fatal(err)
	}
	if n := asked(x); n != verifyOpsMax {
		t.Fatalf("%d in flight without an application", n)
	}
	x = verifying(t, false)
	x.now = time.Second
	x.submit(block.Write, 0, 4096)
	if err := x.order(VerifyOrder{Volume: AllVolumes}); err != nil {
		t.Fatal(err)
	}
	x.now += 50 * time.Millisecond
	x.do(Event{Kind: Tick})
	if n := asked(x); n != 1 {
		t.Fatalf("%d in flight beside an application", n)
	}
}

func TestVerifyKeepsToItsRate(t *testing.T) {
	b := newBox(t, equal())
	b.greet(knows)
	b.promote()
	x := &verifier{box: b, theirs: map[int64]byte{}, ours: map[int64]byte{}}
	if err := x.order(VerifyOrder{Volume: AllVolumes, Rate: 4 << 20}); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		x.now += 50 * time.Millisecond
		x.do(Event{Kind: Tick})
		x.all()
	}
	if done := x.view().Done; done < 19<<20 || done > 21<<20 {
		t.Fatalf("%d bytes in 5 s at 4 MiB/s", done)
	}
}
