package engine

import (
	"errors"
	"testing"

	"hapair/mirror/genid"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

// outlived is a node whose superblock has a token of another ledger than the one that
// it goes by now, which has told nothing yet.
func outlived(t *testing.T, token uint64) *box {
	t.Helper()
	s := equal()
	s.super.Tenure, s.record = token, wire.Record{}
	return newBox(t, s)
}

// toldOf has the ledger name a Primary, alone in sync.
func (b *box) toldOf(primary string, token uint64) {
	b.t.Helper()
	b.record = wire.Record{Token: token, Tenure: token, Primary: primary, InSync: []string{primary}}
	b.do(Event{Kind: LedgerRecord, Current: true, Record: b.record})
}

// Every ledger was lost, and tokens are counted anew: the operator's force opens the
// devices, and nothing less.
func TestForcedUnderALedgerThatCountsAnew(t *testing.T) {
	b := outlived(t, 57)
	promote := func(tenure uint64, force bool) error {
		b.do(Event{Kind: Promote, Tenure: tenure, Force: force})
		return b.expect(Reply).Err
	}
	if err := promote(2, true); !errors.Is(err, ErrStaleToken) {
		t.Fatalf("forced before the ledger has said so: %v", err)
	}
	b.toldOf("alpha", 2)
	if err := promote(2, false); !errors.Is(err, ErrStaleToken) {
		t.Fatalf("promoted without force: %v", err)
	}
	if got := b.eng.View().Seen; got != 57 {
		t.Fatalf("what was seen is %d, and is to keep out whoever has less", got)
	}
	if err := promote(1, true); !errors.Is(err, ErrStaleToken) {
		t.Fatalf("forced under a token that is past: %v", err)
	}
	if err := promote(2, true); err != nil {
		t.Fatal(err)
	}
	if got := b.super[0].Tenure; got != 2 {
		t.Fatalf("the superblock keeps token %d: the next promotion would need force as well", got)
	}
}

// served is a peer that is Primary, and has gone on alone.
func served(h *wire.HelloBody) {
	h.Role, h.Volumes[0].Gen = state.Primary, genid.Set{Current: 88, Bitmap: 77}.Words()
}

// A copy with a token of another ledger joins a Primary: until its own ledger tells
// the same as the Primary's, it takes nothing; but the Primary is not deposed.
func TestTokenOfAnotherLedgerDeposesNobody(t *testing.T) {
	b := outlived(t, 9)
	now := wire.Record{Token: 6, Tenure: 5, Primary: "beta", InSync: []string{"beta"}}
	joins := func() {
		t.Helper()
		b.greet(func(h *wire.HelloBody) { served(h); h.Record = now })
		b.receive(wire.Message{Kind: wire.SyncStart, Token: 5})
	}
	refused := func() {
		t.Helper()
		m := b.message(wire.Refuse)
		if m.Status != wire.StaleToken || m.Token > 5 || b.super[0].Tenure != 9 {
			t.Fatalf("refused with %s, token %d; the superblock has %d", m.Status, m.Token, b.super[0].Tenure)
		}
		b.linkDown()
	}
	joins()
	refused()
	b.do(Event{Kind: LedgerRecord, Current: true, Record: wire.Record{Token: 5, Tenure: 5, Primary: "beta", InSync: []string{"alpha", "beta"}}})
	joins() // this node has not been told yet what the Primary has
	refused()
	b.do(Event{Kind: LedgerRecord, Current: true, Record: now})
	joins()
	if got := b.eng.View(); got.Replication != state.SyncTarget || got.Seen != 5 || b.super[0].Tenure != 5 {
		t.Fatalf("%+v, the superblock has token %d; pending:%s", got, b.super[0].Tenure, b.pending())
	}
}

// A token that was seen in this life is of a ledger that somebody goes by: no record
// that both tell makes this node forget it.
func TestTokenOfThisLifeStays(t *testing.T) {
	b := outlived(t, 9)
	b.do(Event{Kind: LedgerRecord, Current: true, Record: wire.Record{Token: 9, Tenure: 9, InSync: []string{"alpha", "beta"}}})
	b.record = wire.Record{Token: 9, Tenure: 9, InSync: []string{"alpha", "beta"}}
	b.greet(nil)
	b.receive(wire.Message{Kind: wire.Flush, Token: 11})
	b.localDone(nil)
	b.linkDown()
	b.greet(nil)
	b.receive(wire.Message{Kind: wire.Flush, Token: 9})
	if m := b.message(wire.Refuse); m.Status != wire.StaleToken || m.Token != 11 {
		t.Fatalf("refused with %s, token %d", m.Status, m.Token)
	}
}

// Two Secondaries: the source sends what its ledger says, not what its superblock
// brought, or the target would keep that for a token of this life.
func TestSourceSendsTheTokenOfItsLedger(t *testing.T) {
	b := outlived(t, 57)
	b.record = wire.Record{Token: 1, InSync: []string{"alpha"}}
	b.do(Event{Kind: LedgerRecord, Current: true, Record: b.record})
	b.greet(nil)
	b.ledger()
	if m := b.message(wire.SyncStart); m.Token != 0 {
		t.Fatalf("SyncStart carries token %d", m.Token)
	}
	if got := b.super[0].Tenure; got != 0 {
		t.Fatalf("the superblock keeps token %d", got)
	}
}
