package sim

import (
	"encoding/binary"
	"fmt"
	"slices"

	"hapair/mirror/block"
	"hapair/mirror/engine"
	"hapair/mirror/wire"
)

// quorum reports whether a node reaches a majority of the three voters.
func (w *World) quorum(n *node) bool {
	p := n.peer()
	return n.up && !n.paused && ((w.ab && p.up && !p.paused) || (w.aw[n.i] && w.witness))
}

// deliver hands over the oldest message to node i, or the end of the session.
func (w *World) deliver(i int) {
	n := w.nodes[i]
	if w.doomed && w.one(12) {
		w.endSession()
	}
	if !n.up || n.paused || n.session == 0 {
		return
	}
	if n.session != w.alive {
		id := n.session
		n.session = 0
		n.step(&engine.Event{Kind: engine.LinkDown, Session: id, Err: fmt.Errorf("connection lost")})
		return
	}
	if len(w.queue[i]) == 0 || !w.ab {
		return
	}
	m := w.queue[i][0]
	w.queue[i] = w.queue[i][1:]
	w.logf("%s receives %s id %d token %d (%d, %d)", n.name, m.Kind, m.ID, m.Token, m.Offset, m.Length)
	c := *m
	if len(m.Data) > 0 {
		// Only now: the sender's buffer belongs to the link until the ack, or
		// until the session is over.
		c.Buffer = block.GetBuffer(len(m.Data))
		c.Data = c.Buffer.Bytes(len(m.Data))
		copy(c.Data, m.Data)
	}
	n.take(m, &c)
}

// take hands a frame over; c is what the engine gets, which may keep its data.
func (n *node) take(m, c *wire.Message) {
	before, given := n.eng.PeerOps(), len(n.pending)
	n.w.acks(n, m)
	n.taking = c
	life := n.life
	n.step(&engine.Event{Kind: engine.Received, Session: n.session, Message: c})
	n.taking = nil
	if n.life != life || !m.Kind.Changes() || n.eng.PeerOps() <= before {
		return
	}
	n.w.takes(n, m)
	if len(n.pending) == given { // it waits its turn
		p := *m
		p.Token = 0
		if len(m.Data) > 0 {
			p.Token = binary.LittleEndian.Uint64(m.Data)
		}
		p.Data = nil
		n.parked = append(n.parked, p)
	}
}

// unpark: what had to wait goes to the disk.
func (n *node) unpark(volume int, r *block.Request) bool {
	i := slices.IndexFunc(n.parked, func(m wire.Message) bool {
		return int(m.Volume) == volume && int64(m.Offset) == r.Offset && int64(m.Length) == r.Length
	})
	if i < 0 || n.taking != nil && n.taking.Kind.Changes() {
		return false
	}
	n.parked = slices.Delete(n.parked, i, i+1)
	return true
}

func (w *World) sendTo(from *node, m *wire.Message) {
	if from.session != w.alive {
		return
	}
	if err := wire.Check(m, len(m.Data)); err != nil {
		w.fail(fmt.Errorf("%s sends what the wire refuses: %w", from.name, err))
	}
	c := *m
	w.queue[1-from.i] = append(w.queue[1-from.i], &c)
}

func (w *World) endSession() { w.alive, w.doomed, w.queue = 0, false, [2][]*wire.Message{} }

func (w *World) sessionLost(n *node) {
	if n.session == w.alive {
		w.endSession()
	}
	n.session = 0
}

// connect begins a session once both ends have noticed the end of the last.
func (w *World) connect() {
	a, b := w.nodes[0], w.nodes[1]
	if !w.ab || !a.wantsLink() || !b.wantsLink() {
		return
	}
	w.sessions++
	w.alive = w.sessions
	a.session, b.session = w.alive, w.alive
	first, second := a, b
	if w.one(2) {
		first, second = b, a
	}
	first.step(&engine.Event{Kind: engine.LinkUp, Session: w.alive, Path: "crossover"})
	if second.session != 0 {
		second.step(&engine.Event{Kind: engine.LinkUp, Session: second.session, Path: "crossover"})
	}
}

func (n *node) wantsLink() bool {
	return n.up && !n.paused && n.session == 0 && !n.standAlone && n.w.now >= n.restTo
}
