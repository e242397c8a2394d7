package engine

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

var errHangs = fmt.Errorf("no answer for 30s: %w", block.ErrNoAnswer)

// stalls brings the news that the disk does not answer.
func (b *box) stalls() { b.do(Event{Kind: DiskStalled, Err: errors.New("no answer for 30s")}) }

// abandoned answers, as the layer below does, what a disk that was given up has
// not answered.
func (b *box) abandoned() {
	b.t.Helper()
	b.expect(AbandonDisk)
	for {
		f, ok := b.find(LocalIO, nil)
		if !ok {
			return
		}
		f.Request.Kept = len(f.Request.Data) > 0
		b.do(Event{Kind: LocalDone, Request: f.Request, Err: errHangs})
	}
}

// A Primary whose disk hangs goes on through its peer, with what was at the disk
// and what comes. The memory of those requests is the disk's from then on.
func TestPrimaryLeavesAHangingDisk(t *testing.T) {
	b := capable(t, equal())
	w, r := b.submit(block.Write, 0, 4096), b.submit(block.Read, 8192, 4096)
	f := b.submit(block.Flush, 0, 0)
	b.message(wire.Write)
	b.message(wire.Flush)
	before := &r.Data[0]
	b.stalls()
	b.none(Answer)
	b.abandoned()
	b.none(Answer)
	b.ledger()
	b.expect(DropLink)
	b.linkDown()
	b.keeper()
	b.ack(b.message(wire.Write))
	if a := b.expect(Answer); a.Request != w || a.Err != nil || !w.Kept {
		t.Fatalf("%s: %v, kept %t", a.Request, a.Err, w.Kept)
	}
	m := b.message(wire.Read)
	theirs := bytes.Repeat([]byte{7}, 4096)
	b.receive(wire.Message{Kind: wire.Data, ID: m.ID, Offset: 8192, Length: 4096, Data: theirs})
	if a := b.expect(Answer); a.Request != r || a.Err != nil || !r.Kept || &r.Data[0] == before || !bytes.Equal(r.Data, theirs) {
		t.Fatalf("%s: %v, kept %t, memory of its own %t", a.Request, a.Err, r.Kept, &r.Data[0] != before)
	}
	b.ack(b.message(wire.Flush))
	if a := b.expect(Answer); a.Request != f || a.Err != nil {
		t.Fatalf("%s: %v", a.Request, a.Err)
	}
	if n := b.eng.View().Volumes[0].AtDisk; n != 0 {
		t.Fatalf("%d requests at the disk", n)
	}
}

// Nobody could go on with the data: an error would be no better than an answer
// that comes late. The operator is told, once, and again when it is another stall.
func TestLonelyPrimaryWaitsForItsDisk(t *testing.T) {
	b := ahead(t)
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	b.out, b.now = nil, time.Minute
	b.submit(block.Write, 0, 4096)
	for range 3 {
		b.stalls()
		b.now += stallTold / 2
	}
	if f := b.expect(Problem); !strings.Contains(f.Text, "does not answer") {
		t.Fatal(f.Text)
	}
	b.none(Problem)
	b.none(AbandonDisk)
	b.none(Answer)
	b.localDone(nil)
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	b.now += 2 * stallTold
	b.stalls()
	b.expect(Problem)
}

// A Secondary whose disk hangs leaves, so that the Primary goes on; it may be
// asked for anything later.
func TestSecondaryLeavesAHangingDisk(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	memory := block.GetBuffer(512)
	b.receive(wire.Message{Kind: wire.Write, ID: 9, Token: 1, Length: 512, Data: memory.Bytes(512), Buffer: memory})
	b.stalls()
	if m := b.message(wire.Refuse); m.Status != wire.IOError || !strings.Contains(string(m.Data), "no answer") {
		t.Fatalf("refused with %s: %s", m.Status, m.Data)
	}
	b.expect(StandAlone)
	b.abandoned()
	b.linkDown()
	if v := b.eng.View().Volumes[0]; v.Disk != state.Failed || v.AtDisk != 0 {
		t.Fatalf("disk %s, %d requests at it", v.Disk, v.AtDisk)
	}
	for range 8 {
		if block.GetBuffer(512) == memory {
			t.Fatal("the memory that the disk has is used again")
		}
	}
	b.stalls() // what came in between
	b.expect(AbandonDisk)
}

// With pass-on the application hears of a disk that hangs as of one that fails.
func TestPassOnTellsOfAHangingDisk(t *testing.T) {
	b := capable(t, equal())
	b.eng.passOn = true
	b.submit(block.Write, 0, 4096)
	b.ack(b.message(wire.Write))
	b.stalls()
	b.abandoned()
	if err := b.answered(); !errors.Is(err, block.ErrNoAnswer) {
		t.Fatal(err)
	}
}

// impatient is a connected Primary that gives its peer 20 s.
func impatient(t *testing.T) *box {
	t.Helper()
	b := mirrored(t, equal())
	b.eng.set.PeerTimeout, b.now = 20*time.Second, time.Minute
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure, Until: 24 * time.Hour})
	b.tick(0)
	return b
}

// tick lets time pass as a running process sees it.
func (b *box) tick(d time.Duration) {
	for ; d > 0; d -= min(d, slowBlind/2) {
		b.now += min(d, slowBlind/2)
		b.do(Event{Kind: Tick})
	}
	b.do(Event{Kind: Tick})
}

// The link is alive and a write is not answered: the Primary goes on alone and
// comes back to its peer after a rest, which grows while it stays slow.
func TestSlowPeerRests(t *testing.T) {
	b := impatient(t)
	for _, rest := range []time.Duration{slowRestMin, 2 * slowRestMin} {
		b.submit(block.Write, 0, 4096)
		b.localDone(nil)
		b.tick(20*time.Second - time.Millisecond)
		b.none(RestLink)
		b.tick(time.Millisecond)
		if f := b.expect(RestLink); f.Session != b.link || f.For != rest {
			t.Fatalf("session %d rests for %v, want %d for %v", f.Session, f.For, b.link, rest)
		}
		b.message(wire.Refuse)
		b.expect(Problem)
		b.tick(time.Second)
		b.none(RestLink)
		b.linkDown()
		if rest == slowRestMin { // else it is not in the set any more
			b.ledger()
		}
		if err := b.answered(); err != nil {
			t.Fatal(err)
		}
		b.out = nil
		b.greet(behind)
		b.ledger() // confirms that it is not in the set
		b.targetReady()
		b.localDone(nil) // the chunk is read
		b.ack(b.message(wire.WriteZeroes))
	}
}

// Who has been patient with itself only: a process that was stopped has not read
// what the peer answered.
func TestStoppedProcessDoesNotCallItsPeerSlow(t *testing.T) {
	b := impatient(t)
	b.submit(block.Write, 0, 4096)
	b.localDone(nil)
	b.now += time.Minute
	b.tick(time.Second)
	b.none(RestLink)
	b.ack(b.message(wire.Write))
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// A peer that has the only copy is waited for.
func TestKeeperMayBeSlow(t *testing.T) {
	b := refilling(t) // every write goes to both
	b.fetchAll()
	b.eng.set.PeerTimeout, b.now = 20*time.Second, time.Minute
	b.tick(0)
	b.submit(block.Write, 0, 4096)
	b.tick(time.Minute)
	b.none(RestLink)
}

// A rest is forgiven in time.
func TestOldSlownessIsForgiven(t *testing.T) {
	b := impatient(t)
	b.eng.slow.rest, b.eng.slow.at = slowRestMax/2, b.now+1
	b.now += 1 + slowForgiven*slowRestMax + time.Second
	b.tick(0)
	b.submit(block.Write, 0, 4096)
	b.tick(21 * time.Second)
	if f := b.expect(RestLink); f.For != slowRestMin {
		t.Fatalf("rests for %v", f.For)
	}
}

// A peer that is given much at once answers one after the other: it goes on.
func TestBusyPeerIsNotSlow(t *testing.T) {
	b := impatient(t)
	var sent []wire.Message
	for i := range int64(8) {
		b.submit(block.Write, i*8192, 4096)
		b.localDone(nil)
		sent = append(sent, b.message(wire.Write))
	}
	for _, m := range sent {
		b.tick(15 * time.Second)
		b.none(RestLink)
		b.ack(m)
	}
}

// Nobody could go on with the data, whatever the role: the disk is waited for.
func TestOnlyCopyWaitsForItsDisk(t *testing.T) {
	alone := wire.Record{Token: 3, Tenure: 2, Primary: "beta", InSync: []string{"alpha"}}
	for name, make := range map[string]func() *box{
		"keeper": func() *box {
			b := newBox(t, equal())
			b.record = alone
			b.do(Event{Kind: LedgerRecord, Record: b.record})
			b.greet(diskless(b.record))
			b.receive(wire.Message{Kind: wire.Write, ID: 5, Token: 2, Length: 4096, Data: make([]byte, 4096)})
			return b
		},
		"Secondary": func() *box {
			s := equal()
			s.record = wire.Record{Token: 3, Tenure: 2, InSync: []string{"alpha"}}
			s.held = []EffectKind{WriteSuper}
			return newBox(t, s)
		},
		"Secondary whose peer is away": func() *box {
			s := equal()
			s.held = []EffectKind{WriteSuper}
			return newBox(t, s)
		},
		"lonely Primary on its way down": func() *box {
			b := ahead(t)
			b.answered() //nolint:errcheck // the write
			b.out = nil
			b.do(Event{Kind: Demote})
			return b
		},
	} {
		b := make()
		b.stalls()
		b.none(AbandonDisk)
		b.none(Reply)
		if v := b.eng.View().Volumes[0]; v.Disk == state.Failed {
			t.Errorf("%s: the only good copy is given up", name)
		}
	}
}

// What hangs here may hang there: two disks on one array are not given up for each
// other.
func TestPrimaryWaitsWhenItsPeerIsSilentAsWell(t *testing.T) {
	b := capable(t, equal())
	b.now = time.Minute
	b.submit(block.Write, 0, 4096)
	b.now += peerLively + time.Second
	b.stalls()
	b.none(AbandonDisk)
	b.ack(b.message(wire.Write))
	b.stalls()
	b.expect(AbandonDisk)
}

// A promotion or a demotion on a hanging disk gives way, where the peer can serve.
func TestChangeOfRoleOnAHangingDisk(t *testing.T) {
	b := newBox(t, equal())
	b.greet(able)
	b.hold[WriteSuper] = true
	b.record.Token++
	b.record.Tenure, b.record.Primary = b.record.Token, "alpha"
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	b.do(Event{Kind: Promote, Tenure: b.record.Tenure})
	b.none(Reply)
	b.stalls()
	b.expect(AbandonDisk)
	b.expect(Reply) // the plan sees a Primary whose disk has failed
	b = capable(t, equal())
	b.do(Event{Kind: Demote})
	b.stalls()
	b.expect(AbandonDisk)
	b.expect(Reply)
}

// An application waits for a chunk about which the target was asked.
func TestSlowTargetThatIsAsked(t *testing.T) {
	b := ahead(t)
	b.answered() //nolint:errcheck // the write
	b.eng.set.PeerTimeout, b.now = 20*time.Second, time.Minute
	b.do(Event{Kind: LeaseRenewed, Tenure: b.record.Tenure, Until: 24 * time.Hour})
	b.tick(0)
	b.greet(func(h *wire.HelloBody) { behind(h); h.Features = wire.FeatureVerify })
	b.ledger()
	told := b.message(wire.State)
	b.message(wire.SyncStart)
	b.peer = b.peer.Begin(gens(t, &told))
	b.receive(b.peerHello(wire.State, func(h *wire.HelloBody) { b.asTarget(h); h.Features = wire.FeatureVerify }))
	b.eng.session.resync.equalRatio = askScale
	b.receive(wire.Message{Kind: wire.BitmapDone})
	b.message(wire.Verify)
	b.localDone(nil) // read here; the peer says nothing
	b.submit(block.Write, 0, 4096)
	b.tick(21 * time.Second)
	b.expect(RestLink)
}

// What an operator declares worthless on a disk that hangs is not said to be.
func TestInvalidateOnAHangingDisk(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	b.hold[WriteSuper] = true
	b.do(Event{Kind: Invalidate})
	b.ledger()
	b.stalls()
	if f := b.expect(Reply); f.Err == nil {
		t.Fatal("invalidated, it says")
	}
}
