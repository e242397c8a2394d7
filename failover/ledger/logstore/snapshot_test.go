package logstore

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

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

// While the disk hangs with a new snapshot, the one there is can be read: who may fence,
// and what a node greets with, waits for no disk.
func TestASnapshotIsReadWhileTheDiskHangs(t *testing.T) {
	hangs, goesOn := make(chan struct{}), make(chan struct{})
	hang := false
	s, err := OpenSnapshots(scratch(t), Options{Sync: func(*os.File) error {
		if hang {
			close(hangs)
			<-goesOn
		}
		return nil
	}})
	ok(t, err)
	ok(t, snapshotOf(s, 5, "five"))
	hang = true
	written := make(chan error, 1)
	go func() { written <- snapshotOf(s, 9, "nine") }()
	<-hangs
	read := make(chan error, 1)
	go func() {
		l, err := s.List()
		if err == nil {
			_, _, err = s.Open(l[0].ID)
		}
		if err == nil && l[0].Index != 5 {
			err = errors.New("what is not durable yet is there")
		}
		read <- err
	}()
	select {
	case err := <-read:
		ok(t, err)
	case <-time.After(20 * time.Second):
		t.Error("a reader waits for the disk")
	}
	close(goesOn)
	ok(t, <-written)
	if l, _ := s.List(); l[0].Index != 9 {
		t.Errorf("%+v", l[0])
	}
}
