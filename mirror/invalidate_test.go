package mirror

import (
	"errors"
	"slices"
	"testing"

	"hapair/mirror/state"
)

// A copy is given up only once the ledger has taken it out of the in-sync set; a
// ledger that nobody can ask is said to be the reason, and the copy stays good.
func TestInvalidateAsksTheLedgerFirst(t *testing.T) {
	p := newPair(t)
	p.established()
	p.promote(0)
	b := p.nodes[1]
	p.ledger.mu.Lock()
	p.ledger.down = true
	p.ledger.mu.Unlock()
	if err := b.Invalidate(t.Context(), AllVolumes); !errors.Is(err, ErrUndecided) {
		t.Fatalf("without a quorum: %v", err)
	}
	if v := b.View(); v.Volumes[0].Disk != state.UpToDate || v.Replication != state.Established {
		t.Fatalf("refused, and the copy is %s, %s", v.Volumes[0].Disk, v.Replication)
	}
	p.ledger.mu.Lock()
	p.ledger.down = false
	p.ledger.mu.Unlock()
	must(t, b.Invalidate(t.Context(), AllVolumes))
	b.await(t, "back in the set", func(v View) bool {
		return v.Replication == state.Established && v.Record.Token >= 3 && slices.Contains(v.Record.InSync, "beta") && v.Volumes[0].Disk == state.UpToDate
	})
	p.equal()
}
