package engine

import (
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/wire"
)

// What the ledger that was given up still had on its way does not come back.
func TestLateAnswerOfADiscardedLedgerIsNotTaken(t *testing.T) {
	s := equal()
	s.record.Token = 50
	b := newBox(t, s)
	b.promote() // token 51
	b.submit(block.Write, 0, 4096)
	b.expect(LedgerExclude)
	b.do(Event{Kind: LedgerRecord})
	b.do(Event{Kind: Abort})
	b.do(Event{Kind: LedgerDone, Record: wire.Record{Token: 52, Tenure: 51, Primary: "alpha", InSync: []string{"alpha"}}})
	b.do(Event{Kind: LedgerRecord, Record: wire.Record{Token: 3, Tenure: 3, Primary: "beta", InSync: []string{"beta"}}})
	if got := b.eng.View().Record; got.Token != 3 {
		t.Fatalf("the record of the discarded ledger is back: %+v", got)
	}
}

// A change that failed without a record says nothing about the ledger.
func TestLedgerDoneWithoutARecordDiscardsNothing(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Write, 0, 4096)
	b.linkDown()
	b.missed()
	b.expect(LedgerExclude)
	b.do(Event{Kind: LedgerDone, Err: ErrStaleToken})
	b.none(Deposed)
	if b.eng.seen == 0 {
		t.Fatal("the tokens that were seen are forgotten (R12)")
	}
}
