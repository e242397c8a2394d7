package engine

import (
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/dirty"
	"hapair/mirror/genid"
	"hapair/mirror/state"
)

// A copy whose superblock cannot be written at the end of an undo is still worth nothing
// on disk, and nobody is told that it was put back.
func TestAnUndoWhoseSuperblockIsNotWritten(t *testing.T) {
	b := undone(t)
	b.do(Event{Kind: Undo})
	b.expect(Reply)
	b.hold[WriteSuper] = true
	was := Super{Gen: genid.Set{Current: 80, Bitmap: 77}, Disk: state.UpToDate}
	b.do(Event{Kind: UndoDone, Copies: []Super{was}, Marks: []*dirty.Bitmap{dirty.New(b.size)}})
	f := b.expect(WriteSuper)
	b.none(Reply)
	b.do(Event{Kind: SuperDone, Volume: f.Volume, Version: f.Version, Err: block.ErrIO})
	if f := b.expect(Reply); f.Of != UndoDone || f.Err == nil {
		t.Fatalf("%d: %v", f.Of, f.Err)
	}
	if s := b.super[0]; s.Disk != state.Inconsistent || s.Gen.Current != genid.JustCreated {
		t.Fatalf("on disk the copy is %+v: the test is none", s)
	}
}
