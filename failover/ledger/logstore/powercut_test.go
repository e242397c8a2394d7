package logstore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/hashicorp/raft"
)

// sectorBytes is what a disk writes at once at least.
const sectorBytes = 512

// powerCuts watches the files of a store, and makes what a power cut would leave
// of them just before each sync: of what is not durable yet any sector, zeroes
// or what was there in the place of the others, and any length.
type powerCuts struct {
	t       *testing.T
	durable map[string][]byte
	left    []map[string][]byte // directories
	rng     *rand.Rand
}

func (c *powerCuts) sync(f *os.File) error {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd())) // f.Name is from before a rename
	ok(c.t, err)
	now, err := os.ReadFile(path)
	ok(c.t, err)
	name := filepath.Base(path)
	was := c.durable[name]
	var changed []int
	for at := 0; at < len(now); at += sectorBytes {
		end := min(at+sectorBytes, len(now))
		if end > len(was) || !bytes.Equal(now[at:end], was[at:end]) {
			changed = append(changed, at)
		}
	}
	losses := 64
	if len(changed) <= 6 {
		losses = 1 << len(changed)
	}
	for n := range losses {
		mask := uint64(n)
		if len(changed) > 6 {
			mask = c.rng.Uint64()
		}
		c.keep(name, was, now, changed, mask)
	}
	delete(c.durable, name)
	c.durable[name] = now
	return nil
}

// keep is what is left when the changed sectors of a mask are lost: with the new
// length, and with what remains of it when the end is lost as well.
func (c *powerCuts) keep(name string, was, now []byte, changed []int, mask uint64) {
	left := bytes.Clone(now)
	length := len(now)
	for i, at := range changed {
		if mask>>(i%64)&1 == 0 {
			continue
		}
		end := min(at+sectorBytes, len(left))
		clear(left[at:end])
		copy(left[at:end], was[min(at, len(was)):])
		if end == len(now) {
			length = max(len(was), at)
		}
	}
	for _, n := range []int{len(left), length} {
		dir := map[string][]byte{name: left[:n]}
		for other, b := range c.durable {
			if other != name {
				dir[other] = b
			}
		}
		c.left = append(c.left, dir)
	}
}

// Whenever the power is cut, the store opens as it was before the operation that
// ran, or after it; and before it only while it had not returned.
func TestPowerCutAnywhere(t *testing.T) {
	dir := scratch(t)
	c := &powerCuts{t: t, durable: map[string][]byte{}, rng: rand.New(rand.NewPCG(1, 1))}
	s, err := Open(dir, Options{Sync: c.sync, CompactBytes: 6000})
	ok(t, err)
	c.renamed(dir)
	cuts := 0
	do := func(op func() error) {
		t.Helper()
		before := read(t, s)
		c.left = nil
		c.keep("log", nil, c.durable["log"], nil, 0) // before it began
		ok(t, op())
		after := read(t, s)
		for _, left := range c.left {
			cuts++
			if got := c.open(left); !reflect.DeepEqual(got, before) && !reflect.DeepEqual(got, after) {
				t.Fatalf("after a power cut: %s\nbefore %s\nafter %s", brief(got), brief(before), brief(after))
			}
		}
		c.renamed(dir)
		if got := c.open(c.durable); !reflect.DeepEqual(got, after) {
			t.Fatalf("after the operation: %s, wanted %s", brief(got), brief(after))
		}
	}
	long := func(i, term uint64) *raft.Log {
		l := entry(i, term)
		l.Data = bytes.Repeat([]byte{byte(i)}, int(1+i%5*700))
		return l
	}
	next := uint64(1)
	for term := uint64(1); term <= 12; term++ {
		do(func() error { return s.SetUint64([]byte("CurrentTerm"), term) })
		do(func() error { return s.Set([]byte("LastVoteCand"), bytes.Repeat([]byte{'a'}, int(term)*150)) })
		do(func() error {
			return s.StoreLogs([]*raft.Log{long(next, term), long(next+1, term), long(next+2, term)})
		})
		next += 3
		switch {
		case term%3 == 0:
			do(func() error { return s.DeleteRange(1, next-2) }) // a snapshot: then it is compacted
		case term == 10:
			do(func() error { return s.Reset(map[string][]byte{"CurrentTerm": {1, 0, 0, 0, 0, 0, 0, 0}}) })
			next = 1
		case term%3 == 1:
			do(func() error { return s.DeleteRange(next-1, next-1) }) // another leader's log
			next--
		}
	}
	t.Logf("%d power cuts", cuts)
	ok(t, s.Close())
}

// renamed takes note of a rewrite that has taken the log's name.
func (c *powerCuts) renamed(dir string) {
	if _, err := os.Stat(filepath.Join(dir, "log.new")); err == nil {
		c.t.Fatal("a rewrite was left")
	}
	if b := c.durable["log.new"]; b != nil {
		delete(c.durable, "log.new")
		c.durable["log"] = b
	}
}

func (c *powerCuts) open(left map[string][]byte) contents {
	c.t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "logstore-test-")
	ok(c.t, err)
	defer os.RemoveAll(dir)
	for name, b := range left {
		ok(c.t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	s, err := Open(dir, Options{Sync: noSync})
	ok(c.t, err)
	defer s.Close()
	return read(c.t, s)
}

// brief leaves the contents of the entries out.
func brief(c contents) string {
	terms := make([]uint64, len(c.Logs))
	for i := range c.Logs {
		terms[i] = c.Logs[i].Term
	}
	return fmt.Sprintf("entries %d to %d of terms %d, term %d, vote %d bytes", c.First, c.Last, terms, c.Term, len(c.Cand))
}
