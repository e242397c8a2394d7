package logstore

import (
	"errors"
	"io"
	"testing"

	"github.com/hashicorp/raft"
)

// snapshotOf writes a snapshot that ends with an entry.
func snapshotOf(s *Snapshots, index uint64, data string) error {
	sink, err := s.Create(1, index, 2, raft.Configuration{}, 1, nil)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(sink, data); err != nil {
		return err
	}
	return sink.Close()
}

// raft takes its own snapshot beside one that the leader sends: the one that was begun
// first may be written last, and its end is behind what is applied and no more logged then.
func TestAnOlderSnapshotReplacesNoNewerOne(t *testing.T) {
	dir := scratch(t)
	s, err := OpenSnapshots(dir, Options{Sync: noSync})
	ok(t, err)
	old, err := s.Create(1, 5, 2, raft.Configuration{}, 1, nil)
	ok(t, err)
	ok(t, snapshotOf(s, 9, "nine"))
	if err := old.Close(); !errors.Is(err, ErrOlderSnapshot) {
		t.Errorf("5 after 9: %v", err)
	}
	reopened, err := OpenSnapshots(dir, Options{Sync: noSync})
	ok(t, err)
	for _, s := range []*Snapshots{s, reopened} {
		if l, err := s.List(); err != nil || len(l) != 1 || l[0].Index != 9 {
			t.Errorf("%+v, %v", l, err)
		}
	}
	ok(t, snapshotOf(s, 9, "nine, alone"))
	ok(t, s.Remove())
	ok(t, snapshotOf(s, 5, "of another ledger"))
}
