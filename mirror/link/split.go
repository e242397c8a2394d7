package link

import (
	"fmt"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/wire"
)

// Where a session goes over several paths at once, the data stream says what the
// order is: messages that go over another path, a lane, leave a mark in their place,
// and whoever reads takes that many from the lane when it comes to the mark. So
// what is delivered is what was queued, in that order, whatever each path takes.
//
// A lane takes as much as it sends while the data stream sends what lies before: both
// are done at once, and a slow lane keeps nobody.

const (
	// lanesMax bounds the lanes of a session.
	lanesMax = 3
	// A run is what a lane takes at once.
	runMessagesMax = batchFrames
	runBytesMax    = block.MaxTransferBytes + wire.HeaderBytes // the longest message
	runBytesMin    = 16 << 10                                  // less is not worth a mark
	// frontBytesMax is what the data stream takes at once, so that something is left.
	frontBytesMax = 256 << 10
	// wakeBytes is how much must wait before a lane looks at it.
	wakeBytes = 4 * runBytesMin
)

// mark says that the next count messages come over a lane.
func mark(lane, count int) wire.Message {
	return wire.Message{Kind: wire.Ping, Token: isElsewhere, ID: uint64(lane), Length: uint64(count)}
}

// isMark tells a mark in a queue from messages: nobody queues another Ping.
func isMark(m *wire.Message) bool { return m.Kind == wire.Ping }

// parseMark reads a mark on a data stream with so many lanes; an error wraps
// ErrProtocol.
func parseMark(m *wire.Message, lanes int) (lane, count int, err error) {
	switch {
	case m.Kind != wire.Ping || m.Token != isElsewhere || m.Offset != 0:
		return 0, 0, fmt.Errorf("%s on the data stream: %w", m.Kind, ErrProtocol)
	case m.ID >= uint64(lanes):
		return 0, 0, fmt.Errorf("messages over lane %d, there are %d: %w", m.ID, lanes, ErrProtocol)
	case m.Length == 0 || m.Length > runMessagesMax:
		return 0, 0, fmt.Errorf("%d messages over a lane at once, must be 1 to %d: %w", m.Length, runMessagesMax, ErrProtocol)
	}
	return int(m.ID), int(m.Length), nil
}

func sizeOf(m *wire.Message) int64 { return int64(wire.HeaderBytes + len(m.Data)) }

// splitter shares a queue between the data stream and the lanes. It is pure; whose
// the queue is guards it. The zero splitter is off.
type splitter struct {
	on     bool
	marked int            // elements of the queue to the last mark, that included
	free   int64          // bytes of those behind it
	busy   int64          // bytes that the data stream took and has not sent
	away   []wire.Message // taken by lanes, in the order of their marks in the queue
	next   []wire.Message // for ordered
}

// begin turns it on: of all that is queued a lane may take.
func (p *splitter) begin(queue []wire.Message) {
	*p = splitter{on: true}
	for i := range queue {
		p.free += sizeOf(&queue[i])
	}
}

// queued accounts for a message at the end of the queue.
func (p *splitter) queued(size int64) { p.free += size }

// front moves what the data stream carries next from the queue to batch.
func (p *splitter) front(batch, queue []wire.Message) (taken, left []wire.Message) {
	n, bytes := 0, int64(0)
	for n < len(queue) && n < batchFrames {
		size := sizeOf(&queue[n])
		if n > 0 && bytes+size > frontBytesMax {
			break
		}
		if bytes += size; n >= p.marked {
			p.free -= size
		}
		n++
	}
	p.busy += bytes
	taken = append(batch, queue[:n]...)
	clear(queue[:n]) // keeps no payload alive
	p.marked = max(p.marked-n, 0)
	return taken, queue[n:]
}

// cut moves messages from the queue to run, for a lane, at most want bytes, and leaves
// a mark in their place: after about ahead bytes that are left to the data stream. It
// takes nothing that is too little, or lies before another mark: a lane sends in
// the order of its marks.
func (p *splitter) cut(run, queue []wire.Message, lane int, ahead, want int64) (taken, left []wire.Message) {
	at := p.marked
	for ; at < len(queue) && ahead > sizeOf(&queue[at])/2; at++ {
		ahead -= sizeOf(&queue[at])
	}
	end, bytes := at, int64(0)
	for end < len(queue) && end-at < runMessagesMax {
		size := sizeOf(&queue[end])
		if bytes+size > min(want, runBytesMax) {
			break
		}
		end, bytes = end+1, bytes+size
	}
	if bytes < runBytesMin {
		return run, queue
	}
	for i := p.marked; i < end; i++ {
		p.free -= sizeOf(&queue[i])
	}
	run = append(run, queue[at:end]...)
	p.away = append(p.away, queue[at:end]...)
	queue[at] = mark(lane, end-at)
	n := at + 1 + copy(queue[at+1:], queue[end:])
	clear(queue[n:]) // keeps no payload alive
	p.marked = at + 1
	return run, queue[:n]
}

// order appends to dst the messages of a part of the queue that is next, those that
// lanes have taken in their places.
func (p *splitter) order(dst, part []wire.Message) []wire.Message {
	for i := range part {
		if !isMark(&part[i]) {
			dst = append(dst, part[i])
			continue
		}
		n := part[i].Length
		dst = append(dst, p.away[:n]...)
		clear(p.away[:n])
		p.away = p.away[n:]
	}
	return dst
}

// ordered is order into memory of its own, which is valid until the next call.
func (p *splitter) ordered(part []wire.Message) []wire.Message {
	clear(p.next) // keeps no payload alive
	p.next = p.order(p.next[:0], part)
	return p.next
}

// pace is how fast a path carries what a stream is given, of late.
type pace struct {
	bytes, took float64       // of what has left; the last ones count most; took in nanoseconds
	waits       float64       // bytes that the socket has taken and not sent, at most
	at          time.Duration // when that was so
}

const (
	// probeBytes is what a lane takes whose pace is not known.
	probeBytes = 256 << 10
	// paceFades is after how long without use a lane is thought to be twice as fast, so
	// that one that was slow once is tried again.
	paceFades = time.Second
)

// rate is in bytes a nanosecond; 0 when it is not known.
func (p *pace) rate() float64 {
	if p.took == 0 {
		return 0
	}
	return p.bytes / p.took
}

// add takes what was sent in one go, until now. What a socket had room for tells
// nothing of its path.
func (p *pace) add(bytes int64, took, now time.Duration) {
	const keep = 7.0 / 8
	waited := max(p.waits-p.rate()*float64(now-took-p.at), 0)
	p.at = now
	left := waited + float64(bytes) - unsentMax
	if left <= 0 {
		p.waits = waited + float64(bytes)
		return
	}
	p.waits = unsentMax
	p.bytes, p.took = p.bytes*keep+left, p.took*keep+float64(max(took, 1))
}

// share is how much of free bytes a lane should take, and how much before it the data
// stream is to have beside what keeps it busy, so that both are done with it at once.
// Where that is not known it is little, but a message of least bytes.
func share(free, busy, least int64, main, lane *pace, now time.Duration) (ahead, want int64) {
	m, l := main.rate(), lane.rate()
	if m == 0 || l == 0 {
		if want = min(free/4, probeBytes); least > want && least <= free/4 {
			want = least
		}
		return min(free-want, 10*want), want
	}
	l *= 1 + float64(now-lane.at)/float64(paceFades)
	want = min(int64(float64(free+busy)*l/(l+m)), free, runBytesMax)
	return max(int64(float64(want)*m/l)-busy, 0), want
}

// enough is how much must be free for a lane's share to be so many bytes.
func enough(bytes int64, main, lane *pace, now time.Duration) int64 {
	const some = 512 << 10 // a share of it is less than the bounds
	_, want := share(some, 0, 0, main, lane, now)
	return max(wakeBytes, bytes*some/max(want, 1))
}
