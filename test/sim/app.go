package sim

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/state"
	"hapair/test/check"
)

// request is what the application remembers of one.
type request struct {
	version check.Version   // of a change
	before  []check.Version // of a flush
	vol     int
	node    *node
	sent    bool // a frame has carried it to the peer
	here    bool // the node's own disk has done it
	gone    bool // the only copy, its peer's, lost its cache since it was asked for
}

// submit lets the Primary's application do something: mostly one request,
// sometimes more than the engine takes at once.
func (w *World) submit() {
	n := w.nodes[w.rng.IntN(2)]
	if !n.up || n.paused || w.unanswered(n) > 12 {
		return
	}
	if n.eng.Role() != state.Primary || n.command != 0 || n.forced {
		return
	}
	count := 1
	if w.one(400) {
		count = 530 + w.rng.IntN(100)
		w.logf("%s: a burst of %d", n.name, count)
	}
	for range count {
		if n.up {
			w.submitOne(n)
		}
	}
}

func (w *World) submitOne(n *node) {
	q := &request{node: n, vol: w.rng.IntN(len(w.sizes))}
	hist, size := w.hists[q.vol], w.sizes[q.vol]
	if w.grows {
		size = n.eng.View().Volumes[q.vol].SizeBytes
	}
	r := &block.Request{}
	spot := int64(w.rng.IntN(11)) * (2 << 20)
	if w.wide {
		spot = w.aroundPages()
	}
	if w.grows && w.one(3) { // near the end, wherever that is
		spot = max(size-int64(w.rng.IntN(1<<20)/block.SectorBytes)*block.SectorBytes, 0)
	}
	if w.reading {
		spot %= 4 << 20 // so that reads and writes meet
	}
	r.Length = int64(1+w.rng.IntN(20)) * block.SectorBytes
	r.Offset = min(spot+int64(w.rng.IntN(24))*block.SectorBytes, size-r.Length)
	k := w.rng.IntN(20)
	if w.reading && (k >= 9 || w.now/time.Second%2 == 1) {
		k = 2
	}
	switch {
	case k < 2:
		r.Op, r.Offset, r.Length = block.Flush, 0, 0
		q.before = hist.Snapshot()
	case k < 6:
		r.Op, r.Data = block.Read, w.memory(r.Length)
	case k < 8:
		r.Op = block.WriteZeroes
		if k == 7 {
			r.Op = block.Discard
		}
		q.version = hist.Submit(r.Offset, r.Length, true)
	default:
		r.Op, r.Data = block.Write, w.memory(r.Length)
		q.version = hist.Submit(r.Offset, r.Length, false)
		fill(r.Data, uint64(q.version))
		if w.one(8) {
			r.Flags = block.FUA
		}
	}
	if q.version != 0 {
		w.order.Submit(q.vol, q.version)
	}
	w.inflight[r] = q
	w.logf("%s: %d %s version %d", n.name, q.vol, r, q.version)
	n.step(&engine.Event{Kind: engine.Submitted, Volume: q.vol, Request: r})
}

// unanswered is how many requests the application waits for. One that is served by
// a script goes elsewhere while a node is silent.
func (w *World) unanswered(n *node) (count int) {
	for _, q := range w.inflight {
		if w.play == nil || q.node == n {
			count++
		}
	}
	return count
}

func fill(data []byte, v uint64) {
	for i := 0; i < len(data); i += block.SectorBytes {
		binary.LittleEndian.PutUint64(data[i:], v)
	}
}

// answered judges what an application is told.
func (w *World) answered(n *node, r *block.Request, err error) {
	q, ok := w.inflight[r]
	if !ok {
		w.fail(fmt.Errorf("%s answers %s twice", n.name, r))
		return
	}
	delete(w.inflight, r)
	w.logf("%s answers %d %s version %d: %v", n.name, q.vol, r, q.version, err)
	hist := w.hists[q.vol]
	if err == nil {
		w.answers++
		n.answers = true
		if w.play != nil {
			w.play.answered()
		}
		w.judge(w.pen.Answers(w.now, n.name, r.String()))
		if !n.holdsPen() {
			w.fail(fmt.Errorf("pen law: %s answers %s without a lease", n.name, r))
		}
		switch r.Op {
		case block.Read:
			for i := int64(0); i < r.Length; i += block.SectorBytes {
				found := check.Version(binary.LittleEndian.Uint64(r.Data[i:]))
				w.showsOnce(n, r, q.vol, int((r.Offset+i)/block.SectorBytes), found)
				if behindAll(found) {
					found = 0
				}
				last := hist.Last()
				if n.bad {
					last = 0 // a write that failed is undecided, though its data are here
				}
				if e := hist.Seen(int((r.Offset+i)/block.SectorBytes), found, last); e != nil {
					w.fail(fmt.Errorf("%s answers %s: %w", n.name, r, e))
				}
			}
			w.everywhere(r, q)
		case block.Flush:
			hist.Flushed(q.before)
			w.order.Flushed(q.vol, q.before)
		default:
			hist.Acked(q.version)
			w.order.Acked(q.vol, q.version, r.Flags&block.FUA != 0)
			switch {
			case q.gone: // an answer that waited, for the lease; as one before, which was not flushed
				w.rebase(n.peer())
			case w.early != nil:
				w.answersEarly(n, r, q)
				w.apart(r, q)
			default:
				w.everywhere(r, q)
				w.apart(r, q)
			}
		}
	}
	w.release(r, err)
}

// everywhere is the ack law at the instant of the answer: every copy that the
// ledger counts has it, unless that copy has failed since. It holds of what a read
// showed as of what was written: a failover must not take it back.
func (w *World) everywhere(r *block.Request, q *request) {
	if w.rotted != nil {
		return // one of them has rotted
	}
	for _, n := range w.nodes {
		if n.lost || n.bad || !slices.Contains(w.record.InSync, n.name) {
			continue
		}
		for s := int(r.Offset / block.SectorBytes); s < int(r.End()/block.SectorBytes); s++ {
			if err := w.hists[q.vol].Check(s, n.vols[q.vol].disk.at(s)); err != nil {
				w.fail(fmt.Errorf("%s is answered, %s is in the in-sync set: %w", r, n.name, err))
				return
			}
		}
	}
}

// failRequests forgets the requests of a node that dies: nobody is told.
func (w *World) failRequests(n *node) {
	for r, q := range w.inflight {
		if q.node == n {
			delete(w.inflight, r)
		}
	}
}
