package engine

import (
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/wire"
)

// A flush covers what was settled when it began, on both copies, and nothing that
// came while it ran.
func TestFlushDoesNotCoverWhatCameWhileItRan(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Flush, 0, 0)
	local, peer := b.expect(LocalIO), b.message(wire.Flush)
	b.submit(block.Write, 0, 4096)
	b.localDone(nil)
	b.ack(b.message(wire.Write))
	b.do(Event{Kind: LocalDone, Request: local.Request})
	b.ack(peer)
	for range 2 {
		if err := b.answered(); err != nil {
			t.Fatal(err)
		}
	}
	b.linkDown()
	if got := b.eng.View().Volumes[0].DirtyBytes; got != 4096 {
		t.Fatalf("%d bytes are dirty: the peer may have the write in its cache only", got)
	}
}

// What the link has yet is not answered, whoever gives up: its memory would be used
// for something else.
func TestAbortWaitsForWhatIsOnTheWire(t *testing.T) {
	b, r := givenUp(t)
	b.do(Event{Kind: Abort, Err: block.ErrNotPrimary})
	b.none(Answer)
	b.linkDown()
	if f := b.expect(Answer); f.Request != r || f.Err == nil {
		t.Fatalf("%s: %v", f.Request, f.Err)
	}
}

// A read that is mended writes: it waits for a chunk of a verify or a resync that
// holds its range, and for reads at the disk.
func TestMendWaitsForChunksAndReads(t *testing.T) {
	b := capable(t, equal())
	v := b.eng.vols[0]
	get := func(k opKind) *op {
		o := b.eng.pool.get(k, v)
		o.req = &block.Request{Op: block.Read}
		o.disk.Op, o.disk.Offset, o.disk.Length = block.Read, 8192, 4096
		return o
	}
	mend := get(opApplication)
	mend.mends = true
	if v.blocks(mend) {
		t.Fatal("waits for nothing")
	}
	for _, l := range []struct {
		kind opKind
		list *opList
	}{{opVerify, &v.active}, {opResync, &v.active}, {opApplication, &v.reads}} {
		o := get(l.kind)
		l.list.push(o)
		if !v.blocks(mend) {
			t.Errorf("does not wait for an op of kind %d", l.kind)
		}
		l.list.remove(o)
	}
}

// What a filling has written counts when it is flushed.
func TestFilledChunksCountWhenTheyAreFlushed(t *testing.T) {
	b := refilling(t)
	dirty := b.eng.View().Volumes[0].DirtyBytes
	b.fetchAll()
	if got := b.eng.View().Volumes[0].DirtyBytes; got != dirty {
		t.Fatalf("%d bytes lack, %d did before anything was flushed", got, dirty)
	}
	b.localDone(nil) // the flush
	if got := b.eng.View().Volumes[0].DirtyBytes; got != 0 {
		t.Fatalf("%d bytes lack", got)
	}
}

// A write that goes to the peer alone while this copy is to be filled is fetched.
func TestWhatGoesAloneIsFetched(t *testing.T) {
	b := refilling(t)
	b.fetchAll()
	b.localDone(nil) // the flush
	b.linkDown()
	o := b.eng.pool.get(opApplication, b.eng.vols[0])
	o.req = &block.Request{Op: block.Write, Offset: 8192, Length: 4096}
	o.disk.Op, o.disk.Offset, o.disk.Length = block.Write, 8192, 4096
	before := o.vol.bits.Any(8192, 4096)
	b.eng.forwardOp(o)
	if after := o.vol.bits.Any(8192, 4096); before || !after {
		t.Fatalf("marked before %t, after %t", before, after)
	}
}
