package logstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

func noSync(*os.File) error { return nil }

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{Sync: noSync})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func entry(i, term uint64) *raft.Log {
	return &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: fmt.Appendf(nil, "data %d", i), AppendedAt: time.Unix(0, int64(i))}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// contents is what a reader of the store can tell.
type contents struct {
	First, Last uint64
	Logs        []raft.Log
	Term, Vote  uint64
	Cand        string
}

func read(t testing.TB, s *Store) (c contents) {
	t.Helper()
	var err error
	c.First, err = s.FirstIndex()
	ok(t, err)
	c.Last, err = s.LastIndex()
	ok(t, err)
	for i := c.First; i <= c.Last && i > 0; i++ {
		var l raft.Log
		ok(t, s.GetLog(i, &l))
		c.Logs = append(c.Logs, l)
	}
	c.Term, err = s.GetUint64([]byte("CurrentTerm"))
	ok(t, err)
	c.Vote, err = s.GetUint64([]byte("LastVoteTerm"))
	ok(t, err)
	b, err := s.Get([]byte("LastVoteCand"))
	ok(t, err)
	c.Cand = string(b)
	return c
}

func TestReopen(t *testing.T) {
	dir := scratch(t)
	s, err := Open(dir, Options{})
	ok(t, err)
	ok(t, s.StoreLogs([]*raft.Log{entry(1, 1), entry(2, 1), entry(3, 2)}))
	ok(t, s.SetUint64([]byte("CurrentTerm"), 7))
	ok(t, s.Set([]byte("LastVoteCand"), []byte("n2")))
	ok(t, s.DeleteRange(3, 3))
	ok(t, s.StoreLog(entry(3, 3)))
	want := read(t, s)
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
	ok(t, s.Close())
	got := read(t, open(t, dir))
	if !reflect.DeepEqual(got, want) || got.Last != 3 || got.Logs[2].Term != 3 || got.Term != 7 || got.Cand != "n2" {
		t.Fatalf("got %+v, wanted %+v", got, want)
	}
}

func TestRefusals(t *testing.T) {
	s := open(t, t.TempDir())
	ok(t, s.StoreLogs([]*raft.Log{entry(5, 1), entry(6, 1), entry(7, 1)}))
	if err := s.StoreLog(entry(9, 1)); err == nil {
		t.Error("a gap was stored")
	}
	if err := s.StoreLog(entry(7, 1)); err == nil {
		t.Error("an entry was overwritten")
	}
	if err := s.DeleteRange(6, 6); err == nil {
		t.Error("the middle was removed")
	}
	if err := s.GetLog(4, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("absent entry: %v", err)
	}
	if v, err := s.GetUint64([]byte("none")); v != 0 || err != nil {
		t.Errorf("absent value: %d, %v", v, err)
	}
	ok(t, s.DeleteRange(5, 7))
	ok(t, s.StoreLog(entry(100, 2)))
	if c := read(t, s); c.First != 100 || c.Last != 100 {
		t.Errorf("after a snapshot: %+v", c)
	}
}

// script runs operations and returns what the store held after each, with the
// size of the file then.
func script(t *testing.T, dir string) (states []contents, sizes []int64) {
	s, err := Open(dir, Options{Sync: noSync})
	ok(t, err)
	note := func(err error) {
		t.Helper()
		ok(t, err)
		states, sizes = append(states, read(t, s)), append(sizes, s.size)
	}
	note(nil)
	note(s.SetUint64([]byte("CurrentTerm"), 1))
	note(s.StoreLogs([]*raft.Log{entry(1, 1), entry(2, 1), entry(3, 1)}))
	note(s.SetUint64([]byte("LastVoteTerm"), 2))
	note(s.Set([]byte("LastVoteCand"), []byte("b")))
	note(s.DeleteRange(2, 3))
	note(s.StoreLog(entry(2, 2)))
	note(s.DeleteRange(1, 1))
	note(s.StoreLogs([]*raft.Log{entry(3, 2), entry(4, 2)}))
	ok(t, s.Close())
	return states, sizes
}

// A file cut at any byte opens as it was after the last whole operation, and
// takes new ones.
func TestCutAtEveryByte(t *testing.T) {
	dir := scratch(t)
	states, sizes := script(t, dir)
	whole, err := os.ReadFile(filepath.Join(dir, "log"))
	ok(t, err)
	at := 0
	for cut := int(sizes[0]); cut <= len(whole); cut++ {
		for at+1 < len(sizes) && int64(cut) >= sizes[at+1] {
			at++
		}
		sub := scratch(t)
		ok(t, os.WriteFile(filepath.Join(sub, "log"), whole[:cut], 0o600))
		s, err := Open(sub, Options{Sync: noSync})
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if got := read(t, s); !reflect.DeepEqual(got, states[at]) {
			t.Fatalf("cut at %d: got %+v, wanted %+v", cut, got, states[at])
		}
		if want := int64(cut) - sizes[at]; s.CutTail() != want {
			t.Fatalf("cut at %d: tail of %d, wanted %d", cut, s.CutTail(), want)
		}
		ok(t, s.SetUint64([]byte("CurrentTerm"), 99))
		ok(t, s.Close())
		if again := read(t, open(t, sub)); again.Term != 99 {
			t.Fatalf("cut at %d: lost what was written after", cut)
		}
	}
}

// A byte changed in any frame but the last is refused as corruption; in the last
// it cannot be told from an unfinished write, and that operation is gone.
func TestEveryByteFlipped(t *testing.T) {
	dir := scratch(t)
	states, sizes := script(t, dir)
	whole, err := os.ReadFile(filepath.Join(dir, "log"))
	ok(t, err)
	lastFrame := sizes[len(sizes)-2]
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 0x41
		sub := scratch(t)
		ok(t, os.WriteFile(filepath.Join(sub, "log"), bad, 0o600))
		s, err := Open(sub, Options{Sync: noSync})
		if int64(i) < lastFrame {
			var c *CorruptError
			if !errors.Is(err, ErrCorrupt) || !errors.As(err, &c) || c.Offset > int64(i) {
				t.Fatalf("byte %d of %d flipped: %v", i, len(whole), err)
			}
			continue
		}
		ok(t, err)
		if got := read(t, s); !reflect.DeepEqual(got, states[len(states)-2]) {
			t.Fatalf("byte %d flipped: %+v", i, got)
		}
		ok(t, s.Close())
	}
}

func TestFailedSyncIsFinal(t *testing.T) {
	dir, broken := t.TempDir(), false
	s, err := Open(dir, Options{Sync: func(*os.File) error {
		if broken {
			return errors.New("input/output error")
		}
		return nil
	}})
	ok(t, err)
	defer s.Close()
	ok(t, s.StoreLog(entry(1, 1)))
	broken = true
	if err := s.StoreLog(entry(2, 1)); err == nil {
		t.Fatal("a failed sync was answered")
	}
	broken = false
	if err := s.SetUint64([]byte("CurrentTerm"), 3); err == nil {
		t.Fatal("written after a failed sync")
	}
	if c := read(t, s); c.Last != 1 || c.Term != 0 {
		t.Fatalf("%+v", c)
	}
}

func TestStalled(t *testing.T) {
	enter, leave := make(chan bool), make(chan bool)
	slow := false
	s, err := Open(t.TempDir(), Options{Sync: func(*os.File) error {
		if slow {
			enter <- true
			<-leave
		}
		return nil
	}})
	ok(t, err)
	defer s.Close()
	if s.Stalled() != 0 {
		t.Fatal("idle, but stalled")
	}
	slow = true
	done := make(chan error)
	go func() { done <- s.StoreLog(entry(1, 1)) }()
	<-enter
	if s.Stalled() <= 0 {
		t.Error("not stalled")
	}
	leave <- true
	ok(t, <-done)
	if s.Stalled() != 0 {
		t.Error("still stalled")
	}
}

func TestCompaction(t *testing.T) {
	dir := scratch(t)
	s, err := Open(dir, Options{Sync: noSync, CompactBytes: 4096})
	ok(t, err)
	for i := uint64(1); i <= 2000; i++ {
		ok(t, s.StoreLog(entry(i, 1)))
		if i%50 == 0 {
			ok(t, s.DeleteRange(1, i-10))
		}
		ok(t, s.SetUint64([]byte("CurrentTerm"), i))
		if s.size > 20_000 {
			t.Fatalf("%d bytes after entry %d", s.size, i)
		}
	}
	want := read(t, s)
	ok(t, s.Close())
	if got := read(t, open(t, dir)); !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, wanted %+v", got, want)
	}
}

func TestReset(t *testing.T) {
	dir := scratch(t)
	s := open(t, dir)
	ok(t, s.StoreLog(entry(1, 1)))
	ok(t, s.SetUint64([]byte("CurrentTerm"), 4))
	ok(t, s.Reset(map[string][]byte{"kept": []byte("x")}))
	ok(t, s.Close())
	s = open(t, dir)
	if c := read(t, s); !reflect.DeepEqual(c, contents{}) {
		t.Fatalf("%+v", c)
	}
	if b, err := s.Get([]byte("kept")); err != nil || string(b) != "x" {
		t.Fatalf("%q, %v", b, err)
	}
}

// The store behaves as a simple model does, across reopening.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "logstore")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		opt := Options{Sync: noSync, CompactBytes: 600}
		s, err := Open(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.Close() }()
		var logs []uint64 // terms
		first, term := uint64(1), uint64(0)
		for range rapid.IntRange(0, 60).Draw(t, "n") {
			next := first + uint64(len(logs))
			switch rapid.IntRange(0, 5).Draw(t, "op") {
			case 0, 1:
				term++
				err = s.StoreLogs([]*raft.Log{entry(next, term), entry(next+1, term)})
				logs = append(logs, term, term)
			case 2:
				n := rapid.IntRange(0, len(logs)).Draw(t, "head")
				err = s.DeleteRange(first, first+uint64(n)-1)
				logs, first = logs[n:], first+uint64(n)
			case 3:
				n := rapid.IntRange(0, len(logs)).Draw(t, "tail")
				err = s.DeleteRange(next-uint64(n), next-1)
				logs = logs[:len(logs)-n]
			case 4:
				err = s.SetUint64([]byte("CurrentTerm"), term)
			case 5:
				s.Close()
				s, err = Open(dir, opt)
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range logs {
				var l raft.Log
				if err := s.GetLog(first+uint64(i), &l); err != nil || l.Term != want {
					t.Fatalf("entry %d: term %d, wanted %d: %v", first+uint64(i), l.Term, want, err)
				}
			}
			if last, _ := s.LastIndex(); len(logs) > 0 && last != first+uint64(len(logs))-1 || len(logs) == 0 && last != 0 {
				t.Fatalf("last %d", last)
			}
		}
	})
}

func TestSnapshots(t *testing.T) {
	dir := scratch(t)
	conf := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}
	write := func(s *Snapshots, index uint64, data string) {
		t.Helper()
		sink, err := s.Create(1, index, 2, conf, 1, nil)
		ok(t, err)
		_, err = io.WriteString(sink, data)
		ok(t, err)
		ok(t, sink.Close())
	}
	s, err := OpenSnapshots(dir, Options{})
	ok(t, err)
	if l, err := s.List(); len(l) != 0 || err != nil {
		t.Fatalf("%v, %v", l, err)
	}
	write(s, 5, "five")
	write(s, 5, "five again")
	s, err = OpenSnapshots(dir, Options{})
	ok(t, err)
	l, err := s.List()
	ok(t, err)
	if len(l) != 1 || l[0].Index != 5 || l[0].Configuration.Servers[0].ID != "a" {
		t.Fatalf("%+v", l)
	}
	_, r, err := s.Open(l[0].ID)
	ok(t, err)
	if b, err := io.ReadAll(r); err != nil || string(b) != "five again" {
		t.Fatalf("%q, %v", b, err)
	}
	sink, err := s.Create(1, 9, 2, conf, 1, nil)
	ok(t, err)
	ok(t, sink.Cancel())
	ok(t, sink.Close())
	if l, _ = s.List(); l[0].Index != 5 {
		t.Fatal("a cancelled snapshot counts")
	}
	whole, err := os.ReadFile(filepath.Join(dir, "snapshot"))
	ok(t, err)
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 1
		sub := scratch(t)
		ok(t, os.WriteFile(filepath.Join(sub, "snapshot"), bad, 0o600))
		if _, err := OpenSnapshots(sub, Options{}); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
	ok(t, s.Remove())
	if s, err = OpenSnapshots(dir, Options{}); err != nil || s.meta != nil {
		t.Fatalf("after removal: %v", err)
	}
}

func FuzzReplay(f *testing.F) {
	seal := func(ops ...[]byte) []byte {
		b := []byte(fileMagic)
		for i, op := range ops {
			frame := append(frameBuffer(), op...)
			sealFrame(frame, uint64(i+1))
			b = append(b, frame...)
		}
		return b
	}
	f.Add(seal())
	f.Add(seal(appendEntry(nil, entry(1, 1)), appendSet(nil, "k", []byte("v")), appendDelete(nil, 1, 1)))
	f.Add(seal(appendEntry(nil, entry(1, 1)), appendEntry(nil, entry(9, 1))))
	f.Add(seal([]byte{opEntry, 1, 2}))
	f.Add(seal(appendSet(nil, "k", nil))[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		im, good, seq, err := parse("log", b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		again, good2, seq2, err := parse("log", b[:good])
		if err != nil || good2 != good || seq2 != seq || !reflect.DeepEqual(im, again) {
			t.Fatalf("after cutting the tail: %v, %d and %d", err, good, good2)
		}
	})
}

// FuzzPayload reaches what a checksum keeps FuzzReplay from.
func FuzzPayload(f *testing.F) {
	f.Add(appendEntry(nil, entry(1, 1)))
	f.Add(appendDelete(appendEntry(appendEntry(nil, entry(1, 1)), entry(2, 1)), 1, 1))
	f.Add(appendSet(nil, "k", []byte("v")))
	f.Add([]byte{opSet, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		im := newImage()
		if err := im.replay(b); err == nil && im.bytes < 0 {
			t.Fatalf("%d bytes live", im.bytes)
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	b, err := encodeSnapshot(&raft.SnapshotMeta{Version: 1, Index: 3, Term: 1, Size: 2}, []byte("hi"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if meta, data, err := parseSnapshot(b); err == nil && meta.Size != int64(len(data)) {
			t.Fatalf("%d bytes, meta says %d", len(data), meta.Size)
		}
	})
}

// scratch is a directory in memory where there is one: these tests open
// thousands of stores.
func scratch(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "logstore-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
