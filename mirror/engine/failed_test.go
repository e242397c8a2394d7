package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

var errSdb = fmt.Errorf("backing disk /dev/sdb: %w", block.ErrIO)

// A Secondary whose disk fails says so, with the disk's name, and does not come
// back by itself, whoever calls.
func TestSecondaryLeavesWithItsDisk(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	b.receive(wire.Message{Kind: wire.Write, Token: 1, Length: 512, Data: make([]byte, 512)})
	b.localDone(errSdb)
	for range 2 {
		m := b.message(wire.Refuse)
		if m.Status != wire.IOError || !strings.Contains(string(m.Data), "/dev/sdb") {
			t.Fatalf("refused with %s: %s", m.Status, m.Data)
		}
		if f := b.expect(StandAlone); f.Session != b.link || !errors.Is(f.Err, block.ErrIO) {
			t.Fatalf("session %d: %v", f.Session, f.Err)
		}
		b.none(PeerSend)
		b.none(DropLink)
		b.linkDown()
		b.linkUp() // hactl connect, or the peer calls
	}
	if f := b.expect(Problem); !strings.Contains(f.Text, "/dev/sdb") {
		t.Fatal(f.Text)
	}
	b.none(Problem)
}

// The Primary of a peer without a disk goes on, waits for it to come back, and
// tells its own operator which disk it was.
func TestPrimaryWaitsForAPeerWithoutADisk(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Write, 0, 4096)
	b.localDone(nil)
	b.receive(wire.Message{Kind: wire.Refuse, Status: wire.IOError, Data: []byte("the disk of volume 0 of beta has failed: " + errSdb.Error())})
	if f := b.expect(Problem); !strings.Contains(f.Text, "/dev/sdb") {
		t.Fatal(f.Text)
	}
	b.none(StandAlone)
	b.expect(DropLink)
	b.linkDown()
	b.ledger()
	if err := b.answered(); err != nil {
		t.Fatal(err)
	}
}

// A Primary without its disk stays connected, also over a broken session: only
// so does the plan see that the peer can take over.
func TestPrimaryWithoutItsDiskStaysConnected(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Write, 0, 4096)
	b.localDone(errSdb)
	if h, err := wire.ParseHello(b.message(wire.State).Data); err != nil || h.Volumes[0].Disk != state.Failed {
		t.Fatalf("the peer is told %+v, %v", h, err)
	}
	b.linkDown()
	b.greet(nil)
	if w := b.eng.View(); !w.Connected || w.Volumes[0].PeerDisk != state.UpToDate || w.Replication != state.Off {
		t.Fatalf("connected %v, the peer's disk %s, replication %s", w.Connected, w.Volumes[0].PeerDisk, w.Replication)
	}
	b.none(LedgerExclude)
	b.do(Event{Kind: Abort})
	b.linkDown()
	b.linkUp()
	b.message(wire.Refuse) // a Secondary now
	b.expect(StandAlone)
}

// A read that fails takes the copy out of service, as a write does, when the
// peer can go on.
func TestUnreadableDiskHandsOver(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Read, 8192, 4096)
	b.localDone(errSdb)
	if err := b.answered(); !errors.Is(err, block.ErrIO) {
		t.Fatalf("answered %v", err)
	}
	if f := b.expect(Problem); b.eng.vols[0].disk != state.Failed || !strings.Contains(f.Text, "/dev/sdb") {
		t.Fatalf("%s: %s", b.eng.vols[0].disk, f.Text)
	}
	if h, err := wire.ParseHello(b.message(wire.State).Data); err != nil || h.Volumes[0].Disk != state.Failed {
		t.Fatalf("the peer is told %+v, %v", h, err)
	}
}

// Without a peer that can go on the application gets the error, the copy stays,
// and the operator is told, not for every read.
func TestUnreadableDiskGoesOnAlone(t *testing.T) {
	apart := func(t *testing.T) *box { b := mirrored(t, equal()); b.linkDown(); return b }
	filling := func(t *testing.T) *box { b, _ := syncing(t); return b }
	failed := func(t *testing.T) *box {
		b := mirrored(t, equal())
		b.receive(b.peerHello(wire.State, func(h *wire.HelloBody) { h.Volumes[0].Disk = state.Failed }))
		return b
	}
	for name, box := range map[string]func(*testing.T) *box{"apart": apart, "the peer is being filled": filling, "the peer's disk has failed": failed} {
		b := box(t)
		b.out = nil
		for n := range 3 {
			b.submit(block.Read, 8192, 4096)
			b.localDone(errSdb)
			if err := b.answered(); !errors.Is(err, block.ErrIO) || b.eng.vols[0].disk != state.UpToDate {
				t.Fatalf("%s: answered %v, the disk is %s", name, err, b.eng.vols[0].disk)
			}
			f, told := b.find(Problem, nil)
			if told != (n != 1) || told && !strings.Contains(f.Text, "/dev/sdb") {
				t.Fatalf("%s, read %d: told %v, %s", name, n, told, f.Text)
			}
			b.now += unreadableEvery * 2 / 3
		}
		if got := b.eng.View().Volumes[0].Stats.Errors; got != 3 {
			t.Fatalf("%s: %d errors counted", name, got)
		}
	}
}

// A source that cannot read some of its blocks sends all the others, says so,
// and tries those again, without a new session each time. The copy is complete
// when it can read them, or they have been written anew.
func TestSourceWithUnreadableBlocks(t *testing.T) {
	b := filling(t, 0)
	b.localDone(errSdb)
	if f := b.expect(Problem); !strings.Contains(f.Text, "/dev/sdb") {
		t.Fatal(f.Text)
	}
	b.chunks(fullBytes/resyncChunkBytes - 1)
	for b.eng.vols[0].bits.Count() > resyncChunkBytes/4096 {
		b.ack(b.message(wire.Flush))
	}
	b.none(LocalIO)
	b.none(DropLink)
	b.secondsPass(int(resyncRetryAfter / time.Second))
	for range resyncChunkBytes/4096 - 1 {
		b.chunks(1)
	}
	b.localDone(errSdb)
	b.ack(b.message(wire.Flush))
	if w := b.eng.View(); w.Volumes[0].DirtyBytes != 4096 || w.Replication != state.SyncSource {
		t.Fatalf("%d bytes are left, replication is %s", w.Volumes[0].DirtyBytes, w.Replication)
	}
	b.secondsPass(int(resyncRetryAfter / time.Second))
	b.chunks(1)
	b.ack(b.message(wire.Flush))
	b.bothFlush()
	b.message(wire.SyncDone)
}

// A source that can read nothing any more does not try all of it at once.
func TestSourceThatCanReadNothing(t *testing.T) {
	b := filling(t, 0)
	for n := 0; ; n++ {
		f, more := b.find(LocalIO, nil)
		if !more {
			if n < resyncFailuresMax || n > resyncFailuresMax+resyncOpsMax {
				t.Fatalf("%d reads before it rests", n)
			}
			break
		}
		b.do(Event{Kind: LocalDone, Request: f.Request, Err: errSdb})
	}
	b.secondsPass(int(resyncRetryAfter / time.Second))
	b.expect(LocalIO)
	b.expect(Problem)
	b.none(Problem)
}

// Of two flushes at a disk one fails, and may have lost what it was to make durable:
// the other one, which comes back well after it, covers nothing. Neither does one that the
// peer asked for.
func TestFlushBesideOneThatFailed(t *testing.T) {
	b := mirrored(t, equal())
	b.eng.passOn = true
	for range 2 {
		b.submit(block.Flush, 0, 0)
	}
	b.localDone(errSdb)
	b.localDone(nil)
	for range 2 {
		b.ack(b.message(wire.Flush))
		if err := b.answered(); !errors.Is(err, block.ErrIO) {
			t.Errorf("a flush is answered with %v", err)
		}
	}
	b = newBox(t, equal())
	b.greet(func(h *wire.HelloBody) { h.Role = state.Primary })
	for id := range uint64(2) {
		b.receive(wire.Message{Kind: wire.Flush, ID: id + 1, Token: b.eng.seen})
	}
	b.localDone(errSdb)
	b.localDone(nil)
	if f, ok := b.find(PeerSend, func(f *Effect) bool { return f.Message.Kind == wire.Ack && f.Message.Status == wire.OK }); ok {
		t.Errorf("a flush is acknowledged: %+v", f.Message)
	}
}

// A read that comes back after its disk has failed is not believed: the flush
// that failed may have lost what was answered.
func TestReadFromADiskThatHasFailedMeanwhile(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Read, 8192, 4096)
	b.submit(block.Flush, 0, 0)
	f, ok := b.find(LocalIO, func(f *Effect) bool { return f.Request.Op == block.Flush })
	if !ok {
		t.Fatalf("no flush; pending:%s", b.pending())
	}
	b.do(Event{Kind: LocalDone, Request: f.Request, Err: errSdb})
	b.localDone(nil)
	if f, ok := b.find(Answer, func(f *Effect) bool { return f.Request.Op == block.Read }); !ok || !errors.Is(f.Err, block.ErrIO) {
		t.Fatalf("answered %t: %v", ok, f.Err)
	}
}
