package ledger

import (
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// takes is what raft makes of an append, by its rules: whether it takes it, and the log
// then. It looks for the entry before in the log alone.
func (h held) takes(log map[uint64]uint64, c *raft.AppendEntriesRequest) bool {
	last := max(h.snap, h.last)
	if _, ok := log[c.PrevLogEntry]; c.PrevLogEntry > 0 && c.PrevLogEntry != last && !ok {
		return false
	}
	if term, ok := log[c.PrevLogEntry]; ok && term != c.PrevLogTerm {
		return false
	}
	for _, e := range c.Entries {
		if _, ok := log[e.Index]; !ok && e.Index <= last {
			return false
		}
		if log[e.Index] != e.Term {
			for i := e.Index; i <= last; i++ {
				delete(log, i)
			}
			last = e.Index - 1
		}
		log[e.Index], last = e.Term, max(last, e.Index)
	}
	return true
}

// drawLogs is a leader's log, entry n at n-1, and that of a node that has all of it up
// to its snapshot, and entries behind that are the leader's up to some one.
func drawLogs(t *rapid.T) (leader []uint64, h held, log map[uint64]uint64, alike uint64) {
	term := uint64(1)
	for range rapid.IntRange(1, 12).Draw(t, "entries") {
		term += uint64(rapid.IntRange(0, 1).Draw(t, "newTerm"))
		leader = append(leader, term)
	}
	n := uint64(len(leader))
	h.snap = rapid.Uint64Range(0, n).Draw(t, "snapshot")
	h.first = rapid.Uint64Range(1, h.snap+1).Draw(t, "first")
	h.last = rapid.Uint64Range(h.snap, h.snap+6).Draw(t, "last")
	alike = rapid.Uint64Range(h.snap, max(h.snap, min(n, h.last))).Draw(t, "alike")
	log = map[uint64]uint64{}
	for i := h.first; i <= h.last; i++ {
		if log[i] = 90 + i; i <= alike { // a term that the leader has not
			log[i] = leader[i-1]
		}
	}
	if h.last < h.first {
		h.first, h.last = 0, 0
	}
	h.term = func(i uint64) (uint64, bool) { x, ok := log[i]; return x, ok }
	return leader, h, log, alike
}

// Wherever a leader begins, from before this node's log or within what both have, what
// raft takes leaves it with the leader's entries; and it is refused for nothing.
func TestAppendFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		leader, h, log, alike := drawLogs(t)
		n := uint64(len(leader))
		prev := rapid.Uint64Range(0, min(n-1, alike)).Draw(t, "prev")
		to := rapid.Uint64Range(prev+1, n).Draw(t, "to")
		c := &raft.AppendEntriesRequest{PrevLogEntry: prev, LeaderCommitIndex: n}
		if prev > 0 {
			c.PrevLogTerm = leader[prev-1]
		}
		for i := prev + 1; i <= to; i++ {
			c.Entries = append(c.Entries, &raft.Log{Index: i, Term: leader[i-1]})
		}
		was := slices.Clone(c.Entries)
		f, what := h.fit(c)
		if !slices.Equal(was, c.Entries) || c.PrevLogEntry != prev {
			t.Fatal("what was received is changed")
		}
		if f.LeaderCommitIndex > to {
			t.Fatalf("commits up to %d, told of up to %d", f.LeaderCommitIndex, to)
		}
		switch what {
		case haveIt:
			if to > h.snap {
				t.Fatalf("entry %d is new, the snapshot ends with %d", to, h.snap)
			}
			return
		case partedAt:
			if log[h.snap+1] == leader[h.snap] {
				t.Fatal("the entry behind the snapshot is the leader's")
			}
			return
		case appendIt:
		}
		if !h.takes(log, f) {
			t.Fatalf("refused: snapshot %d, log %d to %d, an append behind %d up to %d came as one behind %d", h.snap, h.first, h.last, prev, to, f.PrevLogEntry)
		}
		for i := h.snap + 1; i <= to; i++ {
			if log[i] != leader[i-1] {
				t.Fatalf("entry %d is of term %d, the leader's of %d", i, log[i], leader[i-1])
			}
		}
	})
}

// What is behind a snapshot and not the leader's is cut off, and comes from the leader
// anew; of what another leader's term has, nothing is.
func TestCutBehindTheSnapshot(t *testing.T) {
	bubble(t, ArbitrationManual, func(t *testing.T, c *cluster) {
		c.openAll()
		r := c.primary("a", "r")
		b := c.backFromAlone()
		h := b.held()
		term, err := b.store.GetUint64([]byte(keyTerm))
		if err != nil || h.first != h.snap+1 || h.last <= h.snap {
			t.Fatalf("snapshot %d, log %d to %d: %v", h.snap, h.first, h.last, err)
		}
		b.cutBehind(b.group(), h.snap, term-1)
		if now := b.held(); now.first != h.first || now.last < h.last {
			t.Fatalf("another leader's entries are gone: %d to %d, was %d to %d", now.first, now.last, h.first, h.last)
		}
		c.net.Cut("a", "b")
		b.cutBehind(b.group(), h.snap, term)
		if now := b.held(); now.last > h.snap {
			t.Fatalf("the log ends with %d behind a snapshot up to %d", now.last, h.snap)
		}
		c.net.HealAll()
		c.eventually(5*time.Second, "b has it all again", func() bool { return b.held().last >= h.last && b.Status().Promising })
		have, _ := c.node("a").Record("r")
		must2(t)(c.node("a").Exclude(limit(5*time.Second), "r", "b", have.Token))
		c.eventually(5*time.Second, "b knows what was decided since", func() bool { now, _ := b.Record("r"); return now.Token > r.Token && !now.Has("b") })
	})
}
