package engine

import (
	"errors"
	"strings"
	"testing"

	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// One volume is given up: it alone is wanted as a whole.
func TestInvalidateOfOneVolume(t *testing.T) {
	s := equal()
	s.volumes = 2
	b := newBox(t, s)
	b.greet(nil)
	b.do(Event{Kind: Invalidate, Volume: 1, Only: true})
	b.ledger()
	if f := b.expect(Reply); f.Err != nil {
		t.Fatal(f.Err)
	}
	b.expect(DropLink)
	b.linkDown()
	v := b.eng.View()
	if v.Volumes[0].Disk != state.Outdated || v.Volumes[1].Disk != state.Inconsistent {
		t.Fatalf("disks are %s and %s", v.Volumes[0].Disk, v.Volumes[1].Disk)
	}
	b.linkUp()
	h, err := wire.ParseHello(b.message(wire.Hello).Data)
	if err != nil {
		t.Fatal(err)
	}
	if h.Volumes[0].FullSync || !h.Volumes[1].FullSync {
		t.Fatalf("greets with %+v", h.Volumes)
	}
	b.receive(b.peerHello(wire.Hello, func(h *wire.HelloBody) { h.Volumes[1].Gen = genid.Set{Current: 77}.Words() }))
	if d := b.eng.session.plan; d.action != actTarget || d.full[0] || !d.full[1] {
		t.Fatalf("decided %+v", d)
	}
}

// The source sends all of the volume that was given up, and of the other only
// what the bitmaps say.
func TestSourceOfOneInvalidatedVolume(t *testing.T) {
	s := equal()
	s.volumes = 2
	b := newBox(t, s)
	b.greet(func(h *wire.HelloBody) {
		v := &h.Volumes[1]
		v.Disk, v.FullSync, v.Gen = state.Inconsistent, true, genid.New().Words()
	})
	b.ledger() // the peer is out of the set
	b.message(wire.SyncStart)
	if v := b.eng.View(); v.Volumes[0].DirtyBytes != 0 || v.Volumes[1].DirtyBytes != volumeBytes {
		t.Fatalf("%d and %d bytes are to be sent", v.Volumes[0].DirtyBytes, v.Volumes[1].DirtyBytes)
	}
}

// The source of a resync that is complete may give its copy up later on, in the
// same session.
func TestInvalidateOfWhatWasTheSource(t *testing.T) {
	b, done := syncing(t)
	b.do(Event{Kind: Invalidate})
	if f := b.expect(Reply); f.Err == nil {
		t.Fatal("the source of a running resync is given up")
	}
	b.ack(done)
	b.ledger() // the peer is in the set
	b.do(Event{Kind: Demote})
	b.localDone(nil)
	b.ack(b.message(wire.Flush))
	if f := b.expect(Reply); f.Err != nil {
		t.Fatal(f.Err)
	}
	b.do(Event{Kind: Invalidate})
	b.ledger()
	if f := b.expect(Reply); f.Err != nil {
		t.Fatal(f.Err)
	}
}

// The ledger takes a copy out of the set before it is worth nothing; until then it
// is as good as it was.
func TestInvalidatedCopyLeavesTheSetFirst(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	b.do(Event{Kind: Invalidate})
	b.none(DropLink)
	b.none(Reply)
	if v := b.eng.View().Volumes[0]; v.Disk != state.UpToDate || b.super[0].Disk != state.UpToDate || b.super[0].FullSync {
		t.Fatalf("not out of the set, and the copy is %s, on disk %+v", v.Disk, b.super[0])
	}
	b.ledger()
	if f := b.expect(Reply); f.Err != nil || b.super[0].Disk != state.Inconsistent || !b.super[0].FullSync {
		t.Fatalf("%v: %+v", f.Err, b.super[0])
	}
}

// The record that says so may come before the answer, and end the session: no
// other begins before the copy is given up, or it would be back in the set.
func TestNoSessionBeforeTheCopyIsGivenUp(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	b.do(Event{Kind: Invalidate})
	b.expect(LedgerLeave)
	b.record.Token, b.record.InSync = b.record.Token+1, []string{"beta"}
	b.do(Event{Kind: LedgerRecord, Record: b.record})
	b.expect(DropLink)
	b.linkDown()
	b.out = nil
	b.linkUp()
	b.none(PeerSend)
	b.do(Event{Kind: LedgerDone, Record: b.record, Err: ErrStaleToken})
	if f := b.expect(Reply); f.Err != nil {
		t.Fatal(f.Err)
	}
	b.expect(DropLink)
	b.linkDown()
	b.linkUp()
	h, err := wire.ParseHello(b.message(wire.Hello).Data)
	if err != nil || !h.Volumes[0].FullSync {
		t.Fatalf("greets with %+v, %v", h, err)
	}
}

// Where the ledger cannot be asked, or keeps the copy in the set, it is kept.
func TestInvalidateWithoutTheLedgersWord(t *testing.T) {
	noQuorum := errors.New("no quorum")
	for name, c := range map[string]struct {
		change func(*wire.Record)
		err    error
		text   string
	}{
		"no quorum":    {err: noQuorum, text: "the ledger cannot take this copy out of the in-sync set, so it is kept: no quorum"},
		"made Primary": {err: ErrStaleToken, text: `the ledger keeps this copy in the in-sync set (token 1, Primary ""): does not fit the present state`},
		"only copy": {change: func(r *wire.Record) { r.Token, r.InSync = 2, []string{"alpha"} }, err: ErrStaleToken,
			text: "this is the only copy in the in-sync set: does not fit the present state"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, equal())
			b.greet(nil)
			b.do(Event{Kind: Invalidate})
			b.expect(LedgerLeave)
			r := b.record
			if c.change != nil {
				c.change(&r)
			}
			if errors.Is(c.err, noQuorum) {
				r = wire.Record{}
			}
			b.do(Event{Kind: LedgerDone, Record: r, Err: c.err})
			if f := b.expect(Reply); f.Err == nil || !strings.Contains(f.Err.Error(), c.text) {
				t.Fatalf("says %v, want %s", f.Err, c.text)
			}
			if v := b.eng.View().Volumes[0]; v.Disk != state.UpToDate {
				t.Fatalf("the copy is %s", v.Disk)
			}
		})
	}
}

// A record that has moved on and still counts both copies is asked anew.
func TestInvalidateAsksAgainUnderTheNewToken(t *testing.T) {
	b := newBox(t, equal())
	b.greet(nil)
	b.do(Event{Kind: Invalidate})
	b.expect(LedgerLeave)
	b.record.Token++
	b.do(Event{Kind: LedgerDone, Record: b.record, Err: ErrStaleToken})
	if f := b.expect(LedgerLeave); f.Token != b.record.Token || f.Node != "alpha" {
		t.Fatalf("asks for %s under %d", f.Node, f.Token)
	}
}
