package ledger

import (
	"testing"
	"time"

	"hapair/failover/ledger/record"
)

// A record is told while a renewal is being judged: the judge asks the view, so
// the view must not ask for the judge's lock.
func TestARecordIsToldWhileARenewalIsJudged(t *testing.T) {
	l := &Ledger{clock: func() time.Duration { return 0 }, view: newView(identity{})}
	l.voter = newVoter(l, 0)
	l.voter.setCaught(true)
	s := &record.State{Records: map[string]Record{"pg": {Token: 1, Tenure: 1, Primary: "alpha", InSync: []string{"alpha"}}}}
	l.voter.mu.Lock() // as judge has it
	told := make(chan struct{})
	go func() {
		defer close(told)
		l.view.take(s, "", l.tellRecord)
	}()
	select {
	case <-told:
	case <-time.After(20 * time.Second):
		t.Error("the record waits for the judge")
	}
	l.voter.mu.Unlock()
	<-told
	if r, ok := l.view.get("pg"); !ok || r.Primary != "alpha" {
		t.Errorf("%+v, %t", r, ok)
	}
}
