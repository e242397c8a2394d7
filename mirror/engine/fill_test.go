package engine

import (
	"errors"
	"testing"
	"time"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

const fillBytes = 1 << 20

// blank is a new disk for volume 0.
func (b *box) blank(size int64) *VolumeConfig {
	return &VolumeConfig{Super: Super{Gen: genid.New(), Disk: state.Inconsistent, Clean: true}, Bitmap: dirty.New(size), Log: actlog.New(8),
		Geometry: block.Geometry{SizeBytes: size, LogicalBlockBytes: 512, PhysicalBlockBytes: 4096, MaxTransferBytes: block.MaxTransferBytes}}
}

func (b *box) attach(c *VolumeConfig) error {
	b.t.Helper()
	b.do(Event{Kind: Attach, Disks: []*VolumeConfig{c}})
	return b.expect(Reply).Err
}

// smallForwarding is a Primary that goes on through its peer, with a write on its
// way there.
func smallForwarding(t *testing.T) *box {
	t.Helper()
	s := equal()
	s.size = fillBytes
	b := capable(t, s)
	b.submit(block.Write, 0, 4096)
	b.localDone(errSdb)
	b.ledger()
	b.linkDown()
	b.keeper()
	return b
}

// refilling is a Primary that goes on through its peer and has a disk again.
func refilling(t *testing.T) *box {
	t.Helper()
	b := smallForwarding(t)
	b.ack(b.message(wire.Write))
	b.out = nil
	if err := b.attach(b.blank(fillBytes)); err != nil {
		t.Fatal(err)
	}
	return b
}

// fetchAll plays the peer until all chunks are here and flushed.
func (b *box) fetchAll() {
	b.t.Helper()
	for {
		f, more := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Read })
		if !more {
			break
		}
		b.data(f.Message, 7)
		b.localDone(nil)
	}
}

// A Primary fills its new disk while it is used, and is in the set when the
// peer, its superblock and the ledger say so, in this order.
func TestPrimaryFillsItsNewDisk(t *testing.T) {
	b := refilling(t)
	if b.super[0].Disk != state.Inconsistent || !b.super[0].FullSync {
		t.Fatalf("on disk it is %s", b.super[0].Disk)
	}
	b.fetchAll()
	if w := b.eng.View(); !w.Filling || w.ResyncDone != fillBytes || w.ResyncTotal != fillBytes || w.Volumes[0].DirtyBytes != fillBytes {
		t.Fatalf("%d of %d bytes, %d are marked", w.ResyncDone, w.ResyncTotal, w.Volumes[0].DirtyBytes)
	}
	b.localDone(nil) // the flush
	b.bothFlush()
	if m := b.message(wire.Ack); m.ID != idFilled {
		t.Fatalf("%s", &m)
	}
	b.none(LedgerInclude)
	shared := genid.Set{Current: 4711}
	b.hold[WriteSuper] = true
	b.receive(b.peerHello(wire.SyncDone, func(h *wire.HelloBody) { h.Volumes[0].Gen = shared.Words() }))
	b.none(LedgerInclude)
	delete(b.hold, WriteSuper)
	b.do(b.durable(b.expect(WriteSuper)))
	if s := b.super[0]; s.Disk != state.UpToDate || s.FullSync || s.Gen.Current != shared.Current {
		t.Fatalf("on disk it is %s under %s", s.Disk, s.Gen)
	}
	b.ledger()
	b.message(wire.InSync)
	if w := b.eng.View(); w.Replication != state.Established || w.Forwards || w.Filling {
		t.Fatalf("replication is %s", w.Replication)
	}
	b.out = nil
	b.submit(block.Write, 0, 4096) // as ever
	b.localDone(nil)
	b.ack(b.message(wire.Write))
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// What the keeper cannot read is left alone for a while, and then asked for block by
// block: only what cannot be read is left. When it has been written anew, the copy is
// complete.
func TestFillFromAKeeperWithABadBlock(t *testing.T) {
	const bad = fillBytes/2 + 4096
	b, written := refilling(t), false
	serve := func() (reads int) {
		for ; ; reads++ {
			f, more := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Read })
			m := f.Message
			switch {
			case !more || reads > fillBytes/4096: // asked again and again
				return reads
			case !written && m.Offset <= bad && bad < m.Offset+m.Length:
				b.receive(wire.Message{Kind: wire.Ack, ID: m.ID, Status: wire.IOError})
			default:
				b.data(m, 7)
				b.localDone(nil)
			}
		}
	}
	settle := func() int64 {
		for f, more := b.find(LocalIO, nil); more; f, more = b.find(LocalIO, nil) {
			b.do(Event{Kind: LocalDone, Request: f.Request})
		}
		return b.eng.View().Volumes[0].DirtyBytes
	}
	if n, left := serve(), settle(); n != fillBytes/resyncChunkBytes || left != resyncChunkBytes {
		t.Fatalf("%d reads, %d bytes are left", n, left)
	}
	b.tick(resyncRetryAfter - time.Second)
	if n := serve(); n != 0 {
		t.Fatalf("%d reads within the rest", n)
	}
	b.tick(2 * time.Second)
	if n, left := serve(), settle(); n != resyncChunkBytes/4096 || left != 4096 {
		t.Fatalf("%d reads, %d bytes are left", n, left)
	}
	b.submit(block.Write, bad, 4096)
	b.localDone(nil)
	b.ack(b.message(wire.Write))
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	written = true
	b.tick(2 * resyncRetryAfter)
	if n := serve(); n != 1 {
		t.Fatalf("%d reads, of what can be read now", n)
	}
	b.localDone(nil) // the flush
	b.bothFlush()
	if m := b.message(wire.Ack); m.ID != idFilled {
		t.Fatalf("%s", &m)
	}
}

// While it is filled, writes go to both, logged; reads to the peer; and neither
// crosses a chunk.
func TestUseWhileFilling(t *testing.T) {
	b := refilling(t)
	chunk := b.message(wire.Read)
	b.submit(block.Write, int64(chunk.Offset), 4096)
	if _, sent := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Write }); sent {
		t.Fatal("written while what was there before is being fetched")
	}
	b.data(chunk, 7)
	b.localDone(nil)
	w := b.message(wire.Write)
	b.none(Answer)
	b.localDone(nil)
	b.none(Answer)
	b.ack(w)
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	b.submit(block.Read, 0, 4096)
	b.none(LocalIO)
	b.submit(block.Flush, 0, 0)
	if f := b.expect(LocalIO); f.Request.Op != block.Flush {
		t.Fatalf("%s", f.Request)
	}
}

// A session that breaks keeps what has been fetched, and what went to the peer
// alone meanwhile is fetched as well.
func TestFillGoesOnInTheNextSession(t *testing.T) {
	b := refilling(t)
	first := b.message(wire.Read)
	b.data(first, 7)
	b.localDone(nil)
	for {
		if _, more := b.find(PeerSend, nil); !more {
			break
		}
	}
	b.linkDown()
	b.out = nil
	b.keeper()
	if got := b.eng.View().ResyncTotal; got != fillBytes {
		t.Fatalf("%d bytes are left: what was not flushed counts as lost", got)
	}
	b.ack(b.message(wire.Flush)) // what the write before left in the caches
	b.localDone(nil)
	b.fetchAll()
	b.localDone(nil)
	b.bothFlush()
	if m := b.message(wire.Ack); m.ID != idFilled {
		t.Fatalf("%s", &m)
	}
	b.linkDown()
	b.none(LedgerInclude)
	b.keeper() // it has everything; the peer's word was lost
	b.bothFlush()
	if m := b.message(wire.Ack); m.ID != idFilled {
		t.Fatalf("%s", &m)
	}
}

// The copy is complete, its superblock says so, and the session ends before the
// ledger is asked: it is filled again, and first its superblock says so.
func TestFilledAgainIsInconsistentAgain(t *testing.T) {
	b := refilling(t)
	b.fetchAll()
	b.localDone(nil)
	b.bothFlush()
	b.hold[WriteSuper] = true
	b.receive(b.peerHello(wire.SyncDone, func(h *wire.HelloBody) { h.Volumes[0].Gen = genid.Set{Current: 4711}.Words() }))
	b.linkDown()
	b.do(b.durable(b.expect(WriteSuper)))
	if b.super[0].Disk != state.UpToDate {
		t.Fatalf("on disk it is %s", b.super[0].Disk)
	}
	b.none(LedgerInclude)
	b.out = nil
	b.linkUp()
	if f, sent := b.find(PeerSend, nil); sent {
		t.Fatalf("%s before the superblock says that the copy is being filled", &f.Message)
	}
	delete(b.hold, WriteSuper)
	b.do(b.durable(b.expect(WriteSuper)))
	if s := b.super[0]; s.Disk != state.Inconsistent || !s.FullSync {
		t.Fatalf("on disk it is %s, full %v", s.Disk, s.FullSync)
	}
	b.message(wire.Hello)
}

// The new disk fails as well: on through the peer, as before.
func TestNewDiskFails(t *testing.T) {
	b := refilling(t)
	b.submit(block.Write, 0, 4096)
	chunk := b.message(wire.Read)
	b.data(chunk, 7)
	b.localDone(errSdb)
	b.ack(b.message(wire.Write))
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	if w := b.eng.View(); w.Filling || !w.Forwards || w.Volumes[0].Disk != state.Failed {
		t.Fatalf("filling %v, the disk is %s", w.Filling, w.Volumes[0].Disk)
	}
	b.none(LedgerGiveUp)
}

// The ledger has counted the copy, and the session ended before anybody heard:
// what waited for the peer is one-sided now, or begins here.
func TestBackInTheSetWithoutASession(t *testing.T) {
	b := refilling(t)
	b.fetchAll()
	b.localDone(nil)
	b.bothFlush()
	b.receive(b.peerHello(wire.SyncDone, func(h *wire.HelloBody) { h.Volumes[0].Gen = genid.Set{Current: 4711}.Words() }))
	b.submit(block.Write, 0, 4096)
	b.localDone(nil)
	b.submit(block.Read, 8192, 4096)
	b.linkDown()
	b.ledger()
	b.localDone(nil) // the read
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
	b.none(Answer)
	b.ledger() // the peer is out
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

func TestAttachIsRefused(t *testing.T) {
	b := forwarding(t)
	for name, refused := range map[string]struct {
		disk *VolumeConfig
		why  error
	}{"no disk": {nil, ErrBadState}, "smaller": {b.blank(volumeBytes / 2), ErrBadGeometry}} {
		if err := b.attach(refused.disk); !errors.Is(err, refused.why) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := mirrored(t, equal()).attach(nil); !errors.Is(err, ErrBadState) {
		t.Errorf("a good disk: %v", err)
	}
	hanging := capable(t, equal())
	hanging.submit(block.Write, 0, 4096)
	hanging.submit(block.Write, 8192, 4096)
	hanging.localDone(errSdb)
	hanging.ledger()
	hanging.linkDown()
	hanging.keeper()
	hanging.out = nil
	if err := hanging.attach(hanging.blank(volumeBytes)); !errors.Is(err, ErrBadState) {
		t.Errorf("with a request at the old disk: %v", err)
	}
}

// A Secondary takes the same disk as after a crash, for what its metadata say: it
// gets what it lacks, and may be the only copy there is. Another one, be it of this
// node, is filled as a whole.
func TestSecondaryTakesADisk(t *testing.T) {
	hello := func(change func(*VolumeConfig)) *wire.HelloBody {
		b := newBox(t, equal())
		b.greet(able)
		b.receive(wire.Message{Kind: wire.Write, Token: 1, Length: 512, Data: make([]byte, 512)})
		b.localDone(errSdb)
		b.linkDown()
		b.out = nil
		disk := b.blank(volumeBytes)
		change(disk)
		if err := b.attach(disk); err != nil {
			t.Fatal(err)
		}
		b.linkUp()
		h, err := wire.ParseHello(b.message(wire.Hello).Data)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	blank := hello(func(*VolumeConfig) {})
	old := hello(func(c *VolumeConfig) { c.Super = Super{Gen: genid.Set{Current: 55}, Disk: state.Outdated, Clean: true} })
	declared := hello(func(c *VolumeConfig) {
		c.Super = Super{Gen: genid.Set{Current: 77}, Disk: state.Inconsistent, AssumeClean: true}
	})
	for name, h := range map[string]*wire.HelloBody{"a blank one": blank, "one of last week": old, "one declared equal": declared} {
		if v := h.Volumes[0]; v.Disk != state.Inconsistent || !v.FullSync || v.DirtyBlocks == 0 {
			t.Errorf("%s: %+v", name, h)
		}
	}
	same := hello(func(c *VolumeConfig) {
		c.Super = Super{Gen: genid.Set{Current: 77}, Disk: state.UpToDate}
		c.Log.Acquire(0, 1)
		tx, _, _ := c.Log.Prepare(0, func(uint32) bool { return true })
		c.Log.Commit(tx)
	})
	if v := same.Volumes[0]; v.Disk != state.UpToDate || !same.Suspect || v.DirtyBlocks != actlog.ExtentBytes/4096 {
		t.Errorf("the same one: %+v", same)
	}
}

// A keeper that crashed may lack what it had answered and not flushed: to go on
// would be to change the disk under a running file system.
func TestKeeperThatCrashedWithUnflushedWrites(t *testing.T) {
	suspect := func(h *wire.HelloBody) { able(h); h.Suspect = true }
	b := forwarding(t) // with a write that was answered
	b.linkDown()
	b.greet(suspect)
	b.receive(wire.Message{Kind: wire.Ack, ID: idForward})
	b.message(wire.Refuse)
	b.linkDown()
	b.submit(block.Write, 0, 4096)
	if err := b.answered(); !errors.Is(err, block.ErrIO) {
		t.Fatalf("answered %v", err)
	}

	b = refilling(t) // whether or not it has a disk
	b.linkDown()
	b.greet(func(h *wire.HelloBody) {
		suspect(h)
		h.Volumes[0].Gen = genid.Set{Current: 4711, Bitmap: 99}.Words()
	})
	b.receive(wire.Message{Kind: wire.Ack, ID: idForward})
	b.linkDown()
	b.out = nil
	b.submit(block.Write, 0, 4096)
	if err := b.answered(); !errors.Is(err, block.ErrIO) {
		t.Fatalf("answered %v", err)
	}
	b.none(LedgerExclude)

	b = forwarding(t)
	b.submit(block.Flush, 0, 0)
	b.ack(b.message(wire.Flush))
	b.linkDown()
	b.greet(suspect)
	b.receive(wire.Message{Kind: wire.Ack, ID: idForward})
	if got := b.eng.View().Replication; got != state.Forwarding {
		t.Fatalf("all was flushed; replication is %s", got)
	}
}

// What was fetched for a disk that failed is not written to the one after it.
func TestFillOfAnotherDiskIsDropped(t *testing.T) {
	b := refilling(t)
	first := b.message(wire.Read)
	var late []wire.Message
	for range fillBytes/resyncChunkBytes - 1 {
		late = append(late, b.message(wire.Read))
	}
	b.data(first, 7)
	b.localDone(errSdb)
	b.out = nil
	b.hold[WriteSuper] = true
	b.do(Event{Kind: Attach, Disks: []*VolumeConfig{b.blank(fillBytes)}})
	for _, m := range late {
		b.data(m, 7)
	}
	b.none(LocalIO)
	b.do(b.durable(b.expect(WriteSuper)))
	if f := b.expect(Reply); f.Err != nil {
		t.Fatal(f.Err)
	}
	delete(b.hold, WriteSuper)
	b.fetchAll()
	b.localDone(nil)
	b.bothFlush()
	if m := b.message(wire.Ack); m.ID != idFilled {
		t.Fatalf("%s", &m)
	}
}

// What is being written is not fetched before it is written.
func TestFillWaitsForTheWriteInFlight(t *testing.T) {
	b := smallForwarding(t)
	w := b.message(wire.Write)
	if err := b.attach(b.blank(fillBytes)); err != nil {
		t.Fatal(err)
	}
	first := func(f *Effect) bool { return f.Message.Kind == wire.Read && f.Message.Offset == 0 }
	if _, asked := b.find(PeerSend, first); asked {
		t.Fatal("fetched while it is being written")
	}
	b.ack(w)
	if _, asked := b.find(PeerSend, first); !asked {
		t.Fatalf("not fetched when it was written; pending:%s", b.pending())
	}
}
