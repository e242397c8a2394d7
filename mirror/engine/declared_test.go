package engine

import (
	"testing"

	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// created is a copy that was created as equal to its peer's, before anybody
// declared it.
func created() setup {
	s := equal()
	s.super = Super{Gen: genid.Set{Current: genid.JustCreated}, Disk: state.Inconsistent, Clean: true, AssumeClean: true}
	s.record = wire.Record{}
	return s
}

func undeclared(h *wire.HelloBody) {
	h.Record, h.Volumes[0].Disk, h.Volumes[0].AssumeClean = wire.Record{}, state.Inconsistent, true
}

var declaration = wire.Record{Token: 1, InSync: []string{"alpha", "beta"}}

// The node that hears of the declaration first takes the other's copy for what
// it is about to be: nothing is taken out of the set, nothing copied.
func TestADeclarationIsHeardHereFirst(t *testing.T) {
	b := newBox(t, created())
	b.greet(undeclared)
	b.record = declaration
	b.do(Event{Kind: LedgerRecord, Record: declaration})
	b.expect(DropLink) // the handshake without a record is void
	b.linkDown()
	b.greet(undeclared)
	b.none(LedgerExclude)
	v := b.eng.View()
	if v.Replication != state.Established || v.Volumes[0].Disk != state.UpToDate || v.Volumes[0].PeerDisk != state.UpToDate {
		t.Fatalf("replication %s, disk %s, the peer's %s", v.Replication, v.Volumes[0].Disk, v.Volumes[0].PeerDisk)
	}
}

// The node that hears of it later says so in the session that it is in.
func TestADeclarationIsHeardThereFirst(t *testing.T) {
	b := newBox(t, created())
	b.greet(func(h *wire.HelloBody) { h.Record = declaration })
	b.none(LedgerExclude)
	b.record = declaration
	b.do(Event{Kind: LedgerRecord, Record: declaration})
	b.none(DropLink)
	h, err := wire.ParseHello(b.message(wire.State).Data)
	if err != nil {
		t.Fatal(err)
	}
	if h.Volumes[0].Disk != state.UpToDate || h.Record.Token != declaration.Token {
		t.Fatalf("the peer is told %+v", h)
	}
}

// A copy that was half replaced is not current, whatever it was created as.
func TestADeclaredCopyThatWantsAllIsNotCurrent(t *testing.T) {
	b := newBox(t, equal())
	b.greet(func(h *wire.HelloBody) { undeclared(h); h.Volumes[0].FullSync = true })
	b.expect(LedgerExclude)
}
