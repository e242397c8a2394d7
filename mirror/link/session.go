package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"hapair/mirror/wire"

	"go.uber.org/zap"
)

// session is one life of the link, over one strand after another. It ends once,
// for the first reason given.
type session struct {
	id       uint64
	nonce    uint64 // both ends know it by this
	spreads  bool   // both ends want it to go over several paths
	log      *zap.Logger
	link     *Link
	heard    atomic.Int64    // when the peer was last heard on either stream, by Link.now
	received atomic.Uint64   // messages of the data stream that were handed to the Sink, or are about to be
	over     context.Context // ends with the session
	finish   context.CancelFunc
	changed  chan struct{} // capacity 1: the strand broke, or another is offered
	helpers  sync.WaitGroup

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
		strand   *strand
		resume   resume

		// where the strand has lanes
		lanes []*lane // never changed in place
		split splitter
		pace  pace      // of the data stream
		spare sync.Cond // there may be work for a lane, or the strand is over
	}
}

// strand is what a session goes over at the moment.
type strand struct {
	pair    *pair
	out     *outflow  // the sender's
	in      io.Reader // the data stream
	count   *counters
	control sync.Mutex     // one write at a time on the control stream
	said    atomic.Int64   // when the peer was last heard on it, by Link.now
	work    sync.WaitGroup // the goroutines of its lanes
}

func (l *Link) newStrand(p *pair) (*strand, error) {
	out, in, err := openFlows(p.data)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	count := l.countersOf(p.path)
	l.mu.Unlock()
	st := &strand{pair: p, out: out, in: in, count: count}
	st.said.Store(int64(l.now()))
	return st, nil
}

// serve runs a session from pairing to Down.
func (l *Link) serve(p *pair) {
	if !l.dials() {
		if err := p.answer(wire.Message{Kind: wire.Pong, ID: p.nonce, Token: l.greeting()}); err != nil {
			l.log.Info("no session", zap.String("because", "the peer left before it began"), zap.Error(err))
			p.close(l.log)
			return
		}
	}
	st, err := l.newStrand(p)
	if err != nil {
		l.log.Info("no session", zap.Error(err))
		p.close(l.log)
		return
	}
	s := &session{nonce: p.nonce, spreads: p.spreads && p.resumes && l.cfg.Spread, link: l, changed: make(chan struct{}, 1)}
	s.over, s.finish = context.WithCancel(context.Background())
	s.mu.filled.L, s.mu.idle.L, s.mu.spare.L = &s.mu.Mutex, &s.mu.Mutex, &s.mu.Mutex
	s.mu.strand, s.mu.resume.able = st, p.resumes
	s.heard.Store(int64(l.now()))
	l.mu.Lock()
	if !l.mu.wanted {
		l.mu.Unlock()
		p.close(l.log)
		return
	}
	l.mu.last++
	s.id = l.mu.last
	s.log = l.log.With(zap.Uint64("session", s.id))
	l.mu.session = s
	newer := l.mu.next != nil
	l.mu.Unlock()
	if newer { // came between the two: nobody dropped this one
		s.end(ErrReplaced)
	}
	s.live(st)
}

// live runs the goroutines of a session. Reading the data stream, and with it
// every call of the Sink, happens here.
func (s *session) live(st *strand) {
	st.count.sessions.Add(1)
	s.log.Info("link", zap.String("was", "down"), zap.String("now", "up"), zap.String("path", st.pair.path))
	s.link.cfg.Sink.Up(s.id, st.pair.path)
	s.helpers.Go(s.write)
	s.helpers.Go(s.watch)
	for st != nil {
		over := st
		s.helpers.Go(func() { s.readControl(over) })
		s.broke(st, s.readData(st))
		st = s.another(st)
	}
	s.helpers.Wait()
	s.link.mu.Lock()
	s.link.mu.session = nil
	s.link.mu.Unlock()
	s.quiet()
	s.mu.Lock()
	reason, tried := s.mu.reason, s.mu.resume.tried
	clear(s.mu.queue)
	s.mu.queue, s.mu.resume.history = nil, nil
	if s.mu.linger != nil {
		s.mu.linger.Stop()
	}
	s.mu.Unlock()
	s.log.Info("link", zap.String("was", "up"), zap.String("now", "down"), zap.NamedError("because", reason), zap.Duration("tried", tried))
	s.link.cfg.Sink.Down(s.id, reason, tried)
}

// quiet waits for a Flush that is still at it; it does not wait for the network.
func (s *session) quiet() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.mu.sending && !s.mu.handed {
		s.mu.idle.Wait()
	}
}

// end is final and immediate: both streams are closed, which wakes everybody.
func (s *session) end(reason error) {
	s.mu.Lock()
	r := &s.mu.resume
	if s.mu.reason == nil {
		s.mu.reason = reason
		if r.broken {
			s.mu.reason = r.cause
		}
	}
	ended := s.mu.ended
	s.mu.ended = true
	if r.broken && !ended {
		r.tried = s.link.now() - r.since
	}
	st, spare, lanes := s.mu.strand, r.next, s.mu.lanes
	r.next = nil
	s.mu.filled.Broadcast()
	s.mu.spare.Broadcast()
	s.mu.Unlock()
	if spare != nil {
		spare.close(s.log)
	}
	if ended {
		return
	}
	s.finish()
	st.pair.close(s.log)
	s.closeLanes(lanes, reason)
}

// drop is end, but leaves a Refuse under way its moment.
func (s *session) drop(reason error) {
	s.mu.Lock()
	if s.mu.reason == nil && !(s.mu.resume.broken && errors.Is(reason, ErrReplaced)) {
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
	size := sizeOf(m)
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
	if s.mu.split.on {
		s.mu.split.queued(size)
	}
	if m.Kind == wire.Refuse {
		s.mu.refusing = true
		s.mu.linger = time.AfterFunc(lingerTime, func() { s.end(ErrRefusing) })
	}
	s.mu.Unlock()
}

// hearing notes that the peer is alive.
func (s *session) hearing() { s.heard.Store(int64(s.link.now())) }

// watch pings, and gives a strand up on which nothing is heard on either stream, or of which
// one is dead.
// Where this node itself was late (stopped, starved), the peer gets its time
// anew: its words may be lying in the socket.
func (s *session) watch() {
	tick := time.NewTicker(s.link.cfg.PingInterval)
	defer tick.Stop()
	last := s.link.now()
	var streams vigil
	for {
		s.lookAgain()
		st, ok := s.whole()
		if ok {
			if err := s.tell(st, wire.Ping, uint64(s.link.now())); err != nil {
				s.broke(st, fmt.Errorf("write to control stream: %w", err))
			}
		}
		select {
		case <-s.over.Done():
			return
		case <-tick.C:
		}
		now := s.link.now()
		if now-last > 3*s.link.cfg.PingInterval {
			s.log.Warn("this node was late, the peer gets its time anew", zap.Duration("late", now-last))
			s.hearing()
			streams.anew(st, now)
		}
		last = now
		if ok {
			if err := s.silent(st, &streams, now); err != nil {
				s.broke(st, err)
			}
		}
	}
}

// silent says why a strand is to be given up; nil while it is not.
func (s *session) silent(st *strand, streams *vigil, now time.Duration) error {
	if silent := now - time.Duration(s.heard.Load()); silent > s.link.cfg.Silence {
		return fmt.Errorf("for %s, limit %s: %w", silent.Round(time.Millisecond), s.link.cfg.Silence, ErrSilent)
	}
	return streams.stuck(s, st, now)
}

// tell writes a frame without payload on the control stream. Beside what it asks
// it says how many messages have arrived.
func (s *session) tell(st *strand, kind wire.Kind, id uint64) error {
	var h [wire.HeaderBytes]byte
	if err := wire.EncodeHeader(h[:], &wire.Message{Kind: kind, ID: id, Token: s.received.Load()}); err != nil {
		return err
	}
	st.control.Lock()
	defer st.control.Unlock()
	if err := st.pair.control.SetWriteDeadline(time.Now().Add(s.link.cfg.Silence)); err != nil {
		return err
	}
	_, err := st.pair.control.Write(h[:])
	return err
}
