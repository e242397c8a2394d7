package ledger

import (
	"github.com/hashicorp/raft"
	"go.uber.org/zap"
)

// What a leader sends may begin before this node's log does: it does not know how far
// this node is, and goes back until both have an entry, or sends a snapshot. raft looks
// for the entry before in its log alone, and never finds it where a snapshot has taken
// its place; and what it refuses is sent again, by way of the same snapshot, for ever.

// held is what a node has of the ledger: a snapshot that ends with entry snap, and the
// entries first to last behind it or, in part, before; 0 for none. term tells an entry's.
type held struct {
	snap, first, last uint64
	term              func(index uint64) (term uint64, ok bool)
}

// fitting is what is to be done with an append.
type fitting uint8

const (
	appendIt fitting = iota // raft takes it, or refuses it for good reason
	haveIt                  // there is nothing new in it
	partedAt                // raft refuses it: behind the snapshot the leader has other entries
)

// fit makes an append one that raft can take. All up to the snapshot is committed, so
// it is the same with every leader. It is pure.
func (h held) fit(c *raft.AppendEntriesRequest) (*raft.AppendEntriesRequest, fitting) {
	f := *c
	if f.PrevLogEntry > 0 || len(f.Entries) > 0 { // raft would commit all it has, compared or not
		f.LeaderCommitIndex = min(f.LeaderCommitIndex, lastOf(&f))
	}
	inLog := h.first > 0 && f.PrevLogEntry >= h.first
	if h.snap == 0 || inLog || f.PrevLogEntry > h.snap || f.PrevLogEntry == h.snap && h.last <= h.snap {
		return &f, appendIt
	}
	for len(f.Entries) > 0 && h.has(f.Entries[0]) {
		f.PrevLogEntry, f.PrevLogTerm, f.Entries = f.Entries[0].Index, f.Entries[0].Term, f.Entries[1:]
	}
	switch {
	case len(c.Entries) > 0 && len(f.Entries) == 0 && f.PrevLogEntry <= h.snap:
		return &f, haveIt
	case len(f.Entries) > 0 && f.PrevLogEntry == h.snap && h.first == h.snap+1:
		return &f, partedAt
	}
	return &f, appendIt
}

// has tells whether an entry is here, or was, in the snapshot.
func (h held) has(e *raft.Log) bool {
	if e.Index <= h.snap {
		return true
	}
	term, ok := h.term(e.Index)
	return ok && term == e.Term
}

// lastOf is the last entry that an append tells of.
func lastOf(f *raft.AppendEntriesRequest) uint64 {
	if n := len(f.Entries); n > 0 {
		return f.Entries[n-1].Index
	}
	return f.PrevLogEntry
}

// fitted is an append as raft can take it, or the answer to one that has nothing new.
func (t *transport) fitted(c *raft.AppendEntriesRequest) (*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) {
	g := t.l.group()
	if g == nil || g.layer != t.layer || c.Term < g.raft.CurrentTerm() {
		return c, nil
	}
	h := t.l.held()
	f, what := h.fit(c)
	switch what {
	case haveIt:
		return nil, &raft.AppendEntriesResponse{RPCHeader: t.header(c.RPCHeader), Term: c.Term, LastLog: max(h.last, h.snap), Success: true}
	case partedAt:
		t.l.wg.Go(func() { t.l.cutBehind(g, h.snap, c.Term) })
	case appendIt:
	}
	return f, nil
}

// held is what this node's store has; the newest snapshot only, of which there is one.
func (l *Ledger) held() (h held) {
	if metas, err := l.snaps.List(); err == nil && len(metas) > 0 {
		h.snap = metas[0].Index
	}
	first, err := l.store.FirstIndex()
	last, err2 := l.store.LastIndex()
	if err == nil && err2 == nil {
		h.first, h.last = first, last
	}
	h.term = func(index uint64) (uint64, bool) {
		var e raft.Log
		err := l.store.GetLog(index, &e)
		return e.Term, err == nil
	}
	return h
}

// cutBehind forgets what is behind the snapshot: the leader of a term has other entries
// there, so none of them is committed. raft would do it, if it knew what is before them.
func (l *Ledger) cutBehind(g *group, snap, term uint64) {
	l.admin.Lock()
	defer l.admin.Unlock()
	if l.group() != g || l.usable() != nil {
		return
	}
	l.restartGroup(func() error {
		now, err := l.store.GetUint64([]byte(keyTerm))
		h := l.held()
		if err != nil || now != term || h.snap != snap || h.first != snap+1 {
			return err // or somebody else leads
		}
		l.log.Info("ledger: what the leader has not is cut off", zap.Uint64("behind", snap), zap.Uint64("last", h.last), zap.Uint64("term", term))
		return l.store.DeleteRange(h.first, h.last)
	})
}
