package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"hapair/mirror/wire"

	"go.uber.org/zap"
)

// session is one life of the link. It ends once, for the first reason given.
type session struct {
	id    uint64
	pair  *pair
	log   *zap.Logger
	link  *Link
	count *counters
	heard atomic.Int64 // when the peer was last heard on either stream, by Link.now
	done  chan struct{}

	mu struct {
		sync.Mutex
		idle     sync.Cond      // there is no sender
		filled   sync.Cond      // there is work for the writer, or the session is over
		queue    []wire.Message // not yet taken by a sender
		messages int            // in queue or with the sender
		bytes    int64          // of these
		sending  bool           // somebody is the sender
		handed   bool           // the writer is to take over from it
		refusing bool           // a Refuse is queued or gone: nothing more is
		ended    bool
		reason   error
		linger   *time.Timer
	}
	out     *outflow   // the sender's
	in      io.Reader  // the data stream
	control sync.Mutex // one write at a time on the control stream
}

// serve runs a session from pairing to Down.
func (l *Link) serve(p *pair) {
	if !l.dials() {
		for _, conn := range []net.Conn{p.data, p.control} {
			if err := greet(conn, wire.Pong, p.nonce); err != nil {
				l.log.Info("no session", zap.String("because", "the peer left before it began"), zap.Error(err))
				p.close(l.log)
				return
			}
		}
	}
	out, in, err := openFlows(p.data)
	if err != nil {
		l.log.Info("no session", zap.Error(err))
		p.close(l.log)
		return
	}
	s := &session{pair: p, link: l, out: out, in: in, done: make(chan struct{})}
	s.mu.filled.L, s.mu.idle.L = &s.mu.Mutex, &s.mu.Mutex
	s.heard.Store(int64(l.now()))
	l.mu.Lock()
	if !l.mu.wanted {
		l.mu.Unlock()
		p.close(l.log)
		return
	}
	l.mu.last++
	s.id = l.mu.last
	s.count = l.countersOf(p.path)
	l.mu.session = s
	newer := l.mu.next != nil
	l.mu.Unlock()
	s.log = l.log.With(zap.Uint64("session", s.id), zap.String("path", p.path))
	if newer { // came between the two: nobody dropped this one
		s.end(ErrReplaced)
	}
	s.live()
}

// live runs the goroutines of a session. Reading the data stream, and with it
// every call of the Sink, happens here.
func (s *session) live() {
	var helpers sync.WaitGroup
	s.count.sessions.Add(1)
	s.log.Info("link", zap.String("was", "down"), zap.String("now", "up"))
	s.link.cfg.Sink.Up(s.id, s.pair.path)
	helpers.Go(s.write)
	helpers.Go(s.readControl)
	helpers.Go(s.watch)
	s.end(s.readData())
	helpers.Wait()
	s.link.mu.Lock()
	s.link.mu.session = nil
	s.link.mu.Unlock()
	s.mu.Lock()
	for s.mu.sending && !s.mu.handed { // a Flush that is still at it; it does not wait
		s.mu.idle.Wait()
	}
	reason := s.mu.reason
	clear(s.mu.queue)
	s.mu.queue = nil
	if s.mu.linger != nil {
		s.mu.linger.Stop()
	}
	s.mu.Unlock()
	s.log.Info("link", zap.String("was", "up"), zap.String("now", "down"), zap.NamedError("because", reason))
	s.link.cfg.Sink.Down(s.id, reason)
}

// end is final and immediate: both streams are closed, which wakes everybody.
func (s *session) end(reason error) {
	s.mu.Lock()
	if s.mu.reason == nil {
		s.mu.reason = reason
	}
	ended := s.mu.ended
	s.mu.ended = true
	s.mu.filled.Broadcast()
	s.mu.Unlock()
	if ended {
		return
	}
	close(s.done)
	s.pair.close(s.log)
}

// drop is end, but leaves a Refuse under way its moment.
func (s *session) drop(reason error) {
	s.mu.Lock()
	if s.mu.reason == nil {
		s.mu.reason = reason
	}
	refusing := s.mu.refusing
	s.mu.Unlock()
	if !refusing || errors.Is(reason, ErrReplaced) {
		s.end(reason)
	}
}

// send queues m; flush follows.
func (s *session) send(m *wire.Message) {
	size := int64(wire.HeaderBytes + len(m.Data))
	s.mu.Lock()
	if s.mu.ended || s.mu.refusing {
		s.mu.Unlock()
		return
	}
	if s.mu.messages >= MaxQueued || s.mu.bytes+size > s.link.cfg.QueueBytes {
		messages, bytes := s.mu.messages, s.mu.bytes
		s.mu.Unlock()
		s.end(fmt.Errorf("%d messages of %d bytes wait, limits %d and %d: %w", messages, bytes, MaxQueued, s.link.cfg.QueueBytes, ErrQueueFull))
		return
	}
	s.mu.messages++
	s.mu.bytes += size
	s.mu.queue = append(s.mu.queue, *m)
	if m.Kind == wire.Refuse {
		s.mu.refusing = true
		s.mu.linger = time.AfterFunc(lingerTime, func() { s.end(ErrRefusing) })
	}
	s.mu.Unlock()
}

// hearing notes that the peer is alive.
func (s *session) hearing() { s.heard.Store(int64(s.link.now())) }

// watch pings, and ends a session in which nothing is heard on either stream.
// Where this node itself was late (stopped, starved), the peer gets its time
// anew: its words may be lying in the socket.
func (s *session) watch() {
	tick := time.NewTicker(s.link.cfg.PingInterval)
	defer tick.Stop()
	last := s.link.now()
	for id := uint64(1); ; id++ {
		if err := s.tell(wire.Ping, uint64(s.link.now())); err != nil {
			s.end(fmt.Errorf("write to control stream: %w", err))
			return
		}
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
		now := s.link.now()
		if now-last > 3*s.link.cfg.PingInterval {
			s.log.Warn("this node was late, the peer gets its time anew", zap.Duration("late", now-last))
			s.hearing()
		}
		last = now
		if silent := now - time.Duration(s.heard.Load()); silent > s.link.cfg.Silence {
			s.end(fmt.Errorf("for %s, limit %s: %w", silent.Round(time.Millisecond), s.link.cfg.Silence, ErrSilent))
			return
		}
	}
}

// tell writes a frame without payload on the control stream.
func (s *session) tell(kind wire.Kind, id uint64) error {
	var h [wire.HeaderBytes]byte
	if err := wire.EncodeHeader(h[:], &wire.Message{Kind: kind, ID: id}); err != nil {
		return err
	}
	s.control.Lock()
	defer s.control.Unlock()
	if err := s.pair.control.SetWriteDeadline(time.Now().Add(s.link.cfg.Silence)); err != nil {
		return err
	}
	_, err := s.pair.control.Write(h[:])
	return err
}
