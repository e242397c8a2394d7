package engine

import (
	"errors"
	"testing"

	"hapair/mirror/block"
)

// A note says what it is about, so that nobody has to read its text for that.
func TestNotesHaveTheirTopic(t *testing.T) {
	b := mirrored(t, equal())
	b.submit(block.Write, 0, 4096)
	b.localDone(errors.New("medium error"))
	if n := b.expect(Note); n.Topic != OnDisk {
		t.Errorf("%q is about topic %d", n.Text, n.Topic)
	}
	b.do(Event{Kind: LinkDown, Session: b.eng.session.id, Err: errors.New("gone")})
	if n := b.expect(Note); n.Topic != OnConnection {
		t.Errorf("%q is about topic %d", n.Text, n.Topic)
	}
}

// A peer that is out of the set is asked out anew at each session, to be sure;
// that it is out was told.
func TestExclusionIsToldOnce(t *testing.T) {
	b := ahead(t)
	told := map[string]int{}
	for range 3 {
		b.greet(behind)
		if _, asked := b.find(LedgerExclude, nil); asked {
			b.do(Event{Kind: LedgerDone, Record: b.record})
		}
		b.linkDown()
	}
	for {
		n, ok := b.find(Note, nil)
		if !ok {
			break
		}
		told[n.Text]++
	}
	if text := "beta is out of the in-sync set, token 3"; told[text] != 1 {
		t.Errorf("told %v, wanted %q once", told, text)
	}
}
