package engine

import (
	"testing"

	"hapair/mirror/actlog"
	"hapair/mirror/block"
	"hapair/mirror/wire"
)

// The numbers of the activity log have no gap: they go on after a ring that was made
// anew, and after the old one when that was refused.
func TestActivityLogGoesOnAfterARemake(t *testing.T) {
	for _, refused := range []error{nil, ErrNoRoom, ErrWouldCut} {
		b := asked(t)
		b.zeroes(volumeBytes, largerBytes)
		b.says(wire.ResizeGrown, largerBytes)
		f := b.expect(RemakeMeta)
		b.hold[WriteActivity] = true
		b.submit(block.Write, 2*actlog.ExtentBytes, 4096)
		b.none(WriteActivity)
		b.do(Event{Kind: SizeFitted, Err: refused})
		want := f.Log[len(f.Log)-1].Number + 1
		if refused != nil {
			want = f.Log[0].Number
		}
		if tx := b.expect(WriteActivity); tx.Activity.Number != want {
			t.Errorf("refused: %v: transaction %d, want %d", refused, tx.Activity.Number, want)
		}
	}
}
