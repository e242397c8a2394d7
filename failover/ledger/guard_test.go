package ledger

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// A snapshot that comes a second time leaves what was logged after it; one that is
// beyond the log leaves nothing, and what conflicts goes as it is told.
func TestSnapshotLeavesWhatIsBeyond(t *testing.T) {
	for _, c := range []struct {
		name        string
		snapshot    uint64
		lo, hi      uint64
		first, last uint64 // of what stays
	}{
		{"the snapshot again", 5, 1, 10, 6, 10},
		{"one beyond the log", 12, 1, 10, 0, 0},
		{"compaction", 8, 1, 7, 8, 10},
		{"a conflict behind it", 5, 6, 10, 1, 5},
		{"no snapshot", 0, 3, 10, 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{Dir: filepath.Join(scratch(t), "a")}
			cfg.store.Sync = func(*os.File) error { return nil }
			store, snaps, err := openParts(&cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close() //nolint:errcheck // only read after this
			for i := uint64(1); i <= 10; i++ {
				if err := store.StoreLog(&raft.Log{Index: i, Term: 1, Type: raft.LogNoop}); err != nil {
					t.Fatal(err)
				}
			}
			if c.snapshot > 0 {
				sink, err := snaps.Create(raft.SnapshotVersionMax, c.snapshot, 1, raft.Configuration{}, 1, nil)
				if err == nil {
					err = sink.Close()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			g := &guard{Store: store, l: &Ledger{snaps: snaps}}
			if err := g.DeleteRange(c.lo, c.hi); err != nil {
				t.Fatal(err)
			}
			first, err1 := store.FirstIndex()
			last, err2 := store.LastIndex()
			if err1 != nil || err2 != nil || first != c.first || last != c.last {
				t.Errorf("%d to %d stay, wanted %d to %d (%v, %v)", first, last, c.first, c.last, err1, err2)
			}
			if cut := c.last < 10; g.cut.Load() != cut {
				t.Errorf("the end was taken away: %t, wanted %t", g.cut.Load(), cut)
			}
		})
	}
}
