package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"hapair/mirror/stream"
	"hapair/mirror/wire"

	"go.uber.org/zap"
)

const (
	// What a lane has brought and the data stream has not come to yet is bounded by
	// inboxBytes and inboxMessages, and one message more; the rest waits in
	// the sockets.
	inboxBytes    = 8 << 20
	inboxMessages = 4096
	// unsentMax bounds what a socket takes that has not left: more would be decided
	// about too early.
	unsentMax = 128 << 10
	// A lane that brings nothing for gapSteps times gapStep, while the data stream waits for
	// it and the peer is heard, is silent. In steps: a node that did not run has
	// counted one of them.
	gapStep  = 50 * time.Millisecond
	gapSteps = 5
	// slowSteps bounds the steps for which one run is waited for at all.
	slowSteps = 20
)

// lane is one more stream of a strand, over another path, that carries messages both
// ways. One that is not open yet is only known.
type lane struct {
	number int // its place among the strand's lanes; both ends know it by that
	path   string
	conn   net.Conn
	in     io.Reader
	out    *outflow // its sender's
	count  *counters
	inbox  *inbox
	pace   pace  // of what is sent; the session's mu guards it
	wake   int64 // so much must be free for the lane to look again; likewise
}

func (l *Link) newLane(conn net.Conn, path string, number int) (*lane, error) {
	out, in, err := openFlows(conn)
	if err != nil {
		return nil, err
	}
	if err := limitUnsent(conn); err != nil {
		return nil, err
	}
	l.mu.Lock()
	count := l.countersOf(path)
	l.mu.Unlock()
	return &lane{number: number, path: path, conn: conn, in: in, out: out, count: count, inbox: newInbox(), wake: wakeBytes}, nil
}

// limitUnsent bounds what the socket of a stream takes, where there is one.
func limitUnsent(conn net.Conn) error {
	if socket := socketOf(conn); socket != nil {
		return stream.LimitUnsent(socket, unsentMax)
	}
	return nil
}

func (n *lane) close(because error, log *zap.Logger) {
	closeConn(n.conn, log)
	n.inbox.fail(because)
}

// inbox is what a lane has brought, for the data stream to come to.
type inbox struct {
	filled chan struct{} // capacity 1

	mu struct {
		sync.Mutex
		room  sync.Cond
		queue []wire.Message
		bytes int64
		err   error
	}
}

func newInbox() *inbox {
	b := &inbox{filled: make(chan struct{}, 1)}
	b.mu.room.L = &b.mu.Mutex
	return b
}

func (b *inbox) tell() {
	select {
	case b.filled <- struct{}{}:
	default:
	}
}

// put waits for room; false when nobody will take it.
func (b *inbox) put(m *wire.Message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.mu.err == nil && (b.mu.bytes >= inboxBytes || len(b.mu.queue) >= inboxMessages) {
		b.mu.room.Wait()
	}
	if b.mu.err != nil {
		return false
	}
	b.mu.queue = append(b.mu.queue, *m)
	b.mu.bytes += sizeOf(m)
	b.tell()
	return true
}

// take returns the next one, if it is there; its Buffer is the caller's.
func (b *inbox) take(m *wire.Message) (ok bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.err != nil || len(b.mu.queue) == 0 {
		return false, b.mu.err
	}
	*m = b.mu.queue[0]
	b.mu.queue[0] = wire.Message{}
	b.mu.queue = b.mu.queue[1:]
	b.mu.bytes -= sizeOf(m)
	b.mu.room.Signal()
	return true, nil
}

// fail drops what is there: the peer is asked for it again. The first reason counts.
func (b *inbox) fail(because error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.err != nil {
		return
	}
	b.mu.err = because
	for i := range b.mu.queue {
		b.mu.queue[i].Release()
	}
	b.mu.queue = nil
	b.mu.room.Broadcast()
	b.tell()
}

// readLane fills the inbox of a lane until its stream ends.
func (s *session) readLane(st *strand, n *lane) {
	defer st.work.Done()
	in := inflow{conn: n.in, count: &n.count.bytesIn, buf: make([]byte, readBufferBytes)}
	var m wire.Message
	for {
		err := in.next(&m)
		if err == nil && (m.Kind == wire.Ping || m.Kind == wire.Pong) {
			err = fmt.Errorf("%s on a lane: %w", m.Kind, ErrProtocol)
		}
		if err != nil {
			s.broke(st, fmt.Errorf("read from lane over path %s: %w", n.path, err))
			return
		}
		n.count.framesIn.Add(1)
		if !n.inbox.put(&m) {
			m.Release()
			return
		}
		m = wire.Message{}
	}
}

// fromLanes hands over the messages that a mark on the data stream stands for.
func (s *session) fromLanes(at *wire.Message) error {
	s.mu.Lock()
	lanes := s.mu.lanes
	s.mu.Unlock()
	number, count, err := parseMark(at, len(lanes))
	if err != nil {
		return err
	}
	n, waited := lanes[number], 0
	var m wire.Message
	for range count {
		if err := s.await(n, &m, &waited); err != nil {
			return err
		}
		s.hand(&m)
	}
	return nil
}

// await takes the next message of a lane. One that brings nothing, or was waited for
// too long for this run, is given up, and its strand with it.
func (s *session) await(n *lane, m *wire.Message, waited *int) error {
	if ok, err := n.inbox.take(m); ok || err != nil {
		return err
	}
	s.link.cfg.Sink.Drained()
	step := time.NewTicker(gapStep)
	defer step.Stop()
	for quiet, seen := 0, n.count.bytesIn.Load(); ; {
		select {
		case <-n.inbox.filled:
		case <-step.C:
			if s.link.now()-time.Duration(s.heard.Load()) > 2*s.link.cfg.PingInterval {
				continue // nothing comes from the peer at all: watch judges that
			}
			had := seen
			if seen = n.count.bytesIn.Load(); seen != had {
				quiet = 0
			} else {
				quiet++
			}
			if *waited++; quiet >= gapSteps || *waited >= slowSteps {
				return fmt.Errorf("messages over path %s have not come for %s: %w", n.path, time.Duration(*waited)*gapStep, ErrSilent)
			}
		}
		if ok, err := n.inbox.take(m); ok || err != nil {
			return err
		}
	}
}

// writeLane sends what the lane takes off the queue, until the strand is over.
func (s *session) writeLane(st *strand, n *lane) {
	defer st.work.Done()
	for s.takeRun(st, n) {
		begun := s.link.now()
		err := n.out.encode()
		if err == nil {
			err = n.out.push(true)
		}
		if err != nil {
			s.broke(st, fmt.Errorf("write to lane over path %s: %w", n.path, err))
			return
		}
		messages, bytes, now := len(n.out.part), n.out.bytes, s.link.now()
		n.count.framesOut.Add(uint64(messages))
		n.count.bytesOut.Add(uint64(bytes))
		s.mu.Lock()
		n.pace.add(bytes, now-begun, now)
		s.mu.messages -= messages
		s.mu.bytes -= bytes
		s.mu.Unlock()
	}
}

// takeRun waits until there is a run for a lane; false when the strand is over.
func (s *session) takeRun(st *strand, n *lane) bool {
	clear(n.out.batch) // keeps no payload alive
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.mu.ended && s.mu.strand == st && !s.mu.resume.broken {
		p := &s.mu.split
		if now := s.link.now(); p.free >= n.wake && !s.mu.refusing {
			n.wake = wakeBytes
			least := sizeOf(&s.mu.queue[len(s.mu.queue)-1])
			ahead, want := share(p.free, p.busy, least, &s.mu.pace, &n.pace, now)
			n.out.batch, s.mu.queue = p.cut(n.out.batch[:0], s.mu.queue, n.number, ahead, want)
			if n.out.part = n.out.batch; len(n.out.part) > 0 {
				s.mu.messages++ // the mark
				s.mu.bytes += wire.HeaderBytes
				return true
			}
			n.wake = max(p.free+1, enough(max(runBytesMin, least), &s.mu.pace, &n.pace, now))
		}
		s.mu.spare.Wait()
	}
	return false
}

// lookAgain has the lanes look at what waits, however much that is: the pace of one may
// be thought otherwise of by now.
func (s *session) lookAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.mu.lanes {
		n.wake = wakeBytes
	}
	s.offerRunsLocked()
}

// offerRunsLocked has the lanes look at what waits, if it is enough.
func (s *session) offerRunsLocked() {
	for _, n := range s.mu.lanes {
		if s.mu.split.on && s.mu.split.free >= n.wake {
			s.mu.spare.Broadcast()
		}
	}
}

// overLocked is why nothing goes over a strand any more; nil while it does.
func (s *session) overLocked(st *strand) error {
	if s.mu.ended || s.mu.strand != st || s.mu.resume.broken || s.mu.refusing {
		return errors.Join(errGone, s.mu.resume.cause)
	}
	return nil
}
