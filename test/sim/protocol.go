package sim

import (
	"encoding/binary"
	"fmt"
	"slices"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/state"
	"hapair/mirror/wire"
	"hapair/test/check"
)

// early is a world in which applications are answered before the peer's disk has
// their writes: in one half of the seeds by protocol B, in the other by A, and
// an operator changes it now and then, on one node and then on the other.
type early struct {
	loosest state.Protocol
	fill    int64
	pull    bool              // a Primary whose window is full pulls ahead
	of      [2]state.Protocol // that each node is configured for
	sent    []frame           // of changes, that the other copy is not known to have on its disk
	writer  string            // who answered a change last
}

// frame is a change on its way to the peer, and what became of it.
type frame struct {
	to       int
	session  uint64
	id       uint64
	vol      int
	version  check.Version
	length   int64
	taken    bool // it is in the peer's memory, or further
	answered bool
}

// NewEarly makes the world of a seed with a protocol other than C.
func NewEarly(seed uint64, keepLog bool) *World {
	w := New(seed, keepLog)
	w.loosen(seed)
	return w
}

// loosen has a world's nodes go by protocol A, those of odd seeds by B.
func (w *World) loosen(seed uint64) {
	w.early = &early{loosest: state.ProtocolB, fill: int64(1+w.rng.IntN(64)) << 10}
	if seed%2 == 0 {
		w.early.loosest, w.early.pull = state.ProtocolA, seed%6 == 0
		for _, h := range w.hists {
			h.FlushedByOne()
		}
	}
	w.early.of = [2]state.Protocol{w.early.loosest, w.early.loosest}
	for _, n := range w.nodes { // again, by this protocol
		n.stop()
		n.start()
	}
}

// settings are what a node is configured for.
func (w *World) settings(n *node) (s engine.Settings) {
	s.PeerTimeout = w.patience
	s.FailFrozen = w.told != nil && w.told.failFrozen[n.i]
	if w.early != nil {
		s.Protocol, s.CongestionFill, s.PullAhead = w.early.of[n.i], w.early.fill, w.early.pull
	}
	return s
}

// earlyTrouble is an operator who thinks it over.
func (w *World) earlyTrouble() {
	if !w.one(4*w.every) || !w.happens("protocol") {
		return
	}
	n := w.nodes[w.rng.IntN(2)]
	w.early.of[n.i] = w.early.loosest
	if w.one(3) {
		w.early.of[n.i] = state.Protocol(w.rng.IntN(int(w.early.loosest)))
	}
	w.logf("%s is configured for protocol %s", n.name, w.early.of[n.i])
	if n.up && !n.paused {
		n.step(&engine.Event{Kind: engine.Configure, Settings: w.settings(n)})
	}
}

// sends notes a change that goes to the peer.
func (w *World) sends(n *node, m *wire.Message) {
	if w.early == nil {
		return
	}
	f := frame{to: 1 - n.i, session: n.session, id: m.ID, vol: int(m.Volume), length: int64(m.Length)}
	var sent *request
	for r, q := range w.inflight { // those of one place go one after the other
		if q.node == n && q.vol == f.vol && !q.sent && r.Op.Changes() && r.Offset == int64(m.Offset) && r.Length == f.length && (sent == nil || q.version < sent.version) {
			sent = q
		}
	}
	if sent != nil { // else it goes again, to a keeper
		sent.sent, f.version = true, sent.version
		w.early.sent = append(w.early.sent, f)
	}
}

// takes notes that a frame was taken by its receiver.
func (w *World) takes(n *node, m *wire.Message) {
	for i := range w.sentTo(n, m.ID) {
		w.early.sent[i].taken = true
	}
}

// acks notes that the peer has said its disk has it.
func (w *World) acks(n *node, m *wire.Message) {
	if w.early != nil && m.Kind == wire.Ack && m.Flags&wire.Memory == 0 {
		w.early.sent = slices.DeleteFunc(w.early.sent, func(f frame) bool { return f.to != n.i && f.session == n.session && f.id == m.ID })
	}
}

// sentTo lists the frames with an id in the session of their receiver.
func (w *World) sentTo(n *node, id uint64) func(func(int) bool) {
	return func(yield func(int) bool) {
		if w.early == nil {
			return
		}
		for i := range w.early.sent {
			if f := &w.early.sent[i]; f.to == n.i && f.session == n.session && f.id == id && !yield(i) {
				return
			}
		}
	}
}

// inLine: a copy lacks nothing any more of what it was sent in earlier sessions.
func (w *World) inLine(n *node) {
	if w.early != nil {
		w.early.sent = slices.DeleteFunc(w.early.sent, func(f frame) bool { return f.to == n.i && f.session != w.alive })
	}
}

// holds is what a sector of a copy will be: what is on the disk, or at it.
func (n *node) holds(vol, sector int) check.Version {
	if n.w.grows && int64(sector)*block.SectorBytes >= n.vols[vol].size {
		return 0 // its copy ends before
	}
	at := n.vols[vol].disk.at(sector)
	for _, p := range n.pending {
		if r := p.request; r != nil && p.volume == vol && r.Op.Changes() && r.Offset <= int64(sector)*block.SectorBytes && int64(sector)*block.SectorBytes < r.End() {
			at = 0
			if r.Op == block.Write {
				at = check.Version(binary.LittleEndian.Uint64(r.Data[int64(sector)*block.SectorBytes-r.Offset:]))
			}
		}
	}
	for _, m := range n.parked { // never more than one of these for a sector
		if int(m.Volume) == vol && m.Offset <= uint64(sector)*block.SectorBytes && uint64(sector)*block.SectorBytes < m.Offset+m.Length {
			at = 0
			if m.Kind == wire.Write {
				at = check.Version(m.Token)
			}
		}
	}
	return at
}

// memoryLost: a process that ends forgets what it had been given and had not
// written.
func (n *node) memoryLost() {
	n.unwritten(n.pending)
	n.parked = nil
}

// unwritten: a copy lacks what it was given and never writes.
func (n *node) unwritten(left []*work) {
	if n.w.early == nil {
		return
	}
	for _, p := range left {
		n.lost = n.lost || p.request != nil && p.request.Op.Changes()
	}
	n.lost = n.lost || len(n.parked) > 0
}

// answersEarly is the ack law of protocols A and B at the instant of an answer:
// a copy that the ledger counts has the write on its disk or in its memory, or,
// in A, it is on its way there, and not too much is.
func (w *World) answersEarly(n *node, r *block.Request, q *request) {
	behind := int64(0)
	for i := range w.early.sent {
		f := &w.early.sent[i]
		f.answered = f.answered || f.vol == q.vol && f.version == q.version && f.session == n.session && f.to != n.i
		if f.answered && f.to != n.i && f.session == n.session {
			behind += f.length
		}
	}
	if behind > w.early.fill {
		w.fail(fmt.Errorf("ack law: %s is answered, and %d bytes are behind, at most %d may be", r, behind, w.early.fill))
	}
	w.early.writer = n.name
	if w.rotted != nil {
		return // one of them has rotted
	}
	for _, c := range w.nodes {
		if c.lost || c.bad || !slices.Contains(w.record.InSync, c.name) {
			continue
		}
		for s := int(r.Offset / block.SectorBytes); s < int(r.End()/block.SectorBytes); s++ {
			has := n.vols[q.vol].disk.at(s)
			if c != n {
				has = c.holds(q.vol, s)
			}
			if err := w.hists[q.vol].Check(s, has); err != nil && !(c != n && w.onItsWay(c, q)) {
				w.fail(fmt.Errorf("%s is answered, %s is in the in-sync set: %w", r, c.name, err))
				return
			}
		}
	}
}

// onItsWay: in A, a frame carries it to c.
func (w *World) onItsWay(c *node, q *request) bool {
	return w.early.loosest == state.ProtocolA && slices.ContainsFunc(w.early.sent, func(f frame) bool {
		return f.to == c.i && f.vol == q.vol && f.version == q.version && !f.taken
	})
}

// inOrder: what the new Primary has is in order across its volumes; whole: it lost
// no cache. What it may have lost, then or by protocol A, is accepted after that.
func (w *World) inOrder(n *node, whole bool) {
	if w.rotted != nil {
		return // a block of long ago is no loss
	}
	w.judge(w.order.Survives(n.holds, whole))
	if !whole || w.early != nil && w.early.loosest == state.ProtocolA {
		w.order.Forget()
	}
}

// cut is a failover in A: what was on its way to the new Primary is lost, and
// nothing else. As frames are taken in the order in which they were sent, what
// is left is all that was answered up to an instant.
func (w *World) cut(n *node) {
	if w.early == nil || w.early.loosest != state.ProtocolA {
		return
	}
	lost := make([]map[check.Version]bool, len(w.sizes))
	for i := range lost {
		lost[i] = map[check.Version]bool{}
	}
	gone := map[uint64]bool{} // by session
	for _, f := range w.early.sent {
		switch {
		case f.to != n.i:
		case !f.taken:
			lost[f.vol][f.version], gone[f.session] = true, true
		case gone[f.session]:
			w.fail(fmt.Errorf("ack law: %s was given version %d of volume %d and not what was sent before", n.name, f.version, f.vol))
		}
	}
	for i, h := range w.hists {
		v := n.vols[i]
		h.Lose(lost[i], w.early.writer != n.name, func(sector int) check.Version { return v.disk.stable[sector] })
	}
	w.recount()
}
