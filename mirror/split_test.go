package mirror

import (
	"errors"
	"testing"

	"hapair/mirror/block"
)

func TestSplitAnswersOnceWithTheFirstError(t *testing.T) {
	var got []error
	r := &block.Request{Op: block.Discard, Flags: block.FUA, Offset: 512, Length: 2*pieceBytes + 512, Done: func(_ *block.Request, err error) { got = append(got, err) }}
	var parts []*block.Request
	split(r, func(p *block.Request) { parts = append(parts, p) })
	at := r.Offset
	for _, p := range parts {
		if p.Offset != at || p.Length > pieceBytes || p.Flags != r.Flags || p.Op != r.Op {
			t.Fatalf("part %s of %s", p, r)
		}
		at = p.End()
	}
	if at != r.End() || len(parts) != 3 {
		t.Fatalf("%d parts end at %d, expected 3 up to %d", len(parts), at, r.End())
	}
	parts[1].Done(parts[1], block.ErrIO)
	parts[2].Done(parts[2], nil)
	if len(got) != 0 {
		t.Fatal("answered before every part was")
	}
	parts[0].Done(parts[0], nil)
	if len(got) != 1 || !errors.Is(got[0], block.ErrIO) {
		t.Fatalf("answered %v, expected ErrIO once", got)
	}
}
