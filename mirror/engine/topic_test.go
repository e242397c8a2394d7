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
