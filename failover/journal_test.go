package failover

import (
	"strings"
	"testing"
	"time"
)

func TestJournalIsBoundedAndCounts(t *testing.T) {
	var j Journal
	for i := range 3 * journalEntries {
		j.add(Entry{Kind: EntryStep, Text: strings.Repeat("x", i%7), Token: 1})
		j.add(Entry{Kind: EntryStep, Text: strings.Repeat("x", i%7), Token: 1})
	}
	all := j.Since(0)
	if len(all) != journalEntries {
		t.Fatalf("%d entries", len(all))
	}
	for i, e := range all {
		if e.Seq != uint64(2*journalEntries+i+1) || e.Count != 2 {
			t.Fatalf("entry %d: seq %d, count %d", i, e.Seq, e.Count)
		}
	}
	if last := j.Since(all[len(all)-2].Seq); len(last) != 1 || last[0].Seq != all[len(all)-1].Seq {
		t.Fatalf("since: %v", last)
	}
	e := Entry{Text: "promoted db0 on n2, token 8", Took: 3400 * time.Millisecond, Parts: []Part{{"detect", 1200 * time.Millisecond}, {"ledger", 900 * time.Millisecond}}}
	if got, want := e.String(), "promoted db0 on n2, token 8, 3.4 s: detect 1.2, ledger 0.9"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
