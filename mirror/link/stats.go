package link

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// pathsMax bounds the paths that are counted apart; more share the last.
const pathsMax = 16

// counters of one path, over all sessions on it.
type counters struct {
	path                string
	sessions, resumed   atomic.Uint64
	bytesIn, bytesOut   atomic.Uint64
	framesIn, framesOut atomic.Uint64
	rtt, rttLast        atomic.Int64
}

// roundTrip takes one measurement. Only the control reader of the one live
// session calls it.
func (c *counters) roundTrip(d time.Duration) {
	if d < 0 || d > time.Minute { // an echo of what this node never sent
		return
	}
	c.rttLast.Store(int64(d))
	if old := c.rtt.Load(); old != 0 {
		d = time.Duration(old) + (d-time.Duration(old))/8
	}
	c.rtt.Store(int64(d))
}

// countersOf returns the counters of a path; l.mu is held.
func (l *Link) countersOf(path string) *counters {
	if c, ok := l.mu.paths[path]; ok {
		return c
	}
	if len(l.mu.paths) >= pathsMax {
		path = "other"
		if c, ok := l.mu.paths[path]; ok {
			return c
		}
	}
	c := &counters{path: path}
	l.mu.paths[path] = c
	return c
}

// PathStats is what a link has done over one path since it was made.
type PathStats struct {
	Path                string
	Sessions            uint64 // that began on it
	Resumed             uint64 // how often one went on over it that had broken, or was moved
	BytesIn, BytesOut   uint64 // of the data stream, headers included
	FramesIn, FramesOut uint64
	RoundTrip           time.Duration // smoothed over about eight pings, 0 before the first
	LastRoundTrip       time.Duration
}

// Stats is a moment of a link.
type Stats struct {
	Session        uint64        // number of the live session, 0 when there is none
	Path           string        // of it
	Also           []string      // the other paths that it goes over
	Broken         bool          // it has no streams at the moment
	Heard          time.Duration // since something came from the peer, in the live session
	QueuedMessages int
	QueuedBytes    int64
	Paths          []PathStats // sorted by path
}

// Queued is how many bytes of what was sent wait for the peer in the live session.
func (l *Link) Queued() int64 {
	l.mu.Lock()
	s := l.mu.session
	l.mu.Unlock()
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.bytes
}

// Stats returns the state of the link and its counters.
func (l *Link) Stats() Stats {
	var out Stats
	l.mu.Lock()
	s := l.mu.session
	for _, c := range l.mu.paths {
		out.Paths = append(out.Paths, PathStats{Path: c.path, Sessions: c.sessions.Load(), Resumed: c.resumed.Load(),
			BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(), FramesIn: c.framesIn.Load(), FramesOut: c.framesOut.Load(),
			RoundTrip: time.Duration(c.rtt.Load()), LastRoundTrip: time.Duration(c.rttLast.Load())})
	}
	l.mu.Unlock()
	slices.SortFunc(out.Paths, func(a, b PathStats) int { return strings.Compare(a.Path, b.Path) })
	if s != nil {
		st, whole := s.whole()
		out.Broken = !whole
		out.Session, out.Path, out.Also, out.Heard = s.id, st.pair.path, s.paths()[1:], l.now()-time.Duration(s.heard.Load())
		s.mu.Lock()
		out.QueuedMessages, out.QueuedBytes = s.mu.messages, s.mu.bytes
		s.mu.Unlock()
	}
	return out
}
