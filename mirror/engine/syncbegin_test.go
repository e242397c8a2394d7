package engine

import (
	"slices"
	"testing"

	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// tells takes the pages of the bitmap that were sent.
func (b *box) tells() (pages []uint64) {
	b.out = slices.DeleteFunc(b.out, func(f Effect) bool {
		is := f.Kind == PeerSend && f.Message.Kind == wire.Bitmap
		if is {
			pages = append(pages, f.Message.Offset)
		}
		return is
	})
	return pages
}

// A target with more marked pages than the link takes at once says them in portions,
// each once, as the link has room, and that they are all after the last; what ends the
// session ends that as well.
func TestBitmapsAreToldInPortions(t *testing.T) {
	const pages = 2*pagesAtOnce + pagesAtOnce/2
	s := equal()
	s.size = pages * dirty.PageExtents * dirty.ExtentBytes
	s.record = wire.Record{Token: 2, Primary: "beta", Tenure: 2, InSync: []string{"beta"}}
	b := newBox(t, s)
	v := b.eng.vols[0]
	var marked []uint64
	for p := range v.bits.Pages() {
		if p%64 != 0 { // some have no marks
			v.bits.Set(int64(p)*dirty.PageExtents*dirty.ExtentBytes, 1)
			marked = append(marked, uint64(p))
		}
	}
	source := func(h *wire.HelloBody) {
		h.Role, h.Volumes[0].Gen, h.Volumes[0].DirtyBlocks = state.Primary, genid.Set{Current: 77}.Mint(90).Words(), 9
	}
	for end := range 2 {
		b.greet(source)
		b.receive(wire.Message{Kind: wire.SyncStart, Token: 2})
		told := b.tells()
		if len(told) != pagesAtOnce {
			t.Fatalf("%d pages at once", len(told))
		}
		b.do(Event{Kind: Tick, Queued: queuedMax})
		if more := b.tells(); len(more) > 0 {
			t.Fatalf("%d pages although the link is full", len(more))
		}
		if end == 0 {
			b.linkDown()
			b.do(Event{Kind: Tick})
			if more := b.tells(); len(more) > 0 {
				t.Fatalf("%d pages without a session", len(more))
			}
			b.out = nil
			continue
		}
		for range 2 {
			if b.eng.View().Replication == state.SyncTarget {
				t.Fatal("it waits to be filled before it has said all")
			}
			b.do(Event{Kind: Tick, Queued: queuedMax - 1})
			told = append(told, b.tells()...)
		}
		if !slices.Equal(told, marked) {
			t.Fatalf("told %d pages of %d", len(told), len(marked))
		}
	}
	b.message(wire.BitmapDone)
	if r := b.eng.View().Replication; r != state.SyncTarget {
		t.Fatal(r)
	}
	b.do(Event{Kind: Tick})
	if more := b.tells(); len(more) > 0 {
		t.Fatalf("%d pages after the last", len(more))
	}
}
