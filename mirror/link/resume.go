package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"hapair/mirror/wire"

	"go.uber.org/zap"
)

// A session outlives its streams. Each end remembers what it sent until the
// other has said that it has it; when the streams break, the dialing end opens
// others, over whichever path answers, the two tell each other how many messages
// they have, and each sends again what the other lacks, in order. Whoever is
// above sees a moment in which nothing arrives, and nothing else.
//
// What is sent again is still there: the memory of a message is lent until the
// peer acknowledges it or the session ends, and a peer that has acknowledged
// has it.

// errMoving is why a strand ends that another is to take the place of.
var errMoving = errors.New("the session moves to another path")

// errGone says that the peer has ended the session.
var errGone = errors.New("the peer has ended the session")

// errOvertaken says that streams which the peer offered are not what it uses any more: it
// is about to offer others.
var errOvertaken = errors.New("the peer has gone on since it offered the streams")

// ErrCannotMove is what Move returns where a new session would be needed.
var ErrCannotMove = errors.New("the session cannot be moved")

// What the Token of the frames that open a stream says.
const (
	canResume  = 1 << 0 // whoever says it remembers what it sends
	isResuming = 1 << 1 // Ping: for the session Offset, of which Length messages have arrived. Pong: likewise
	isGone     = 1 << 2 // Pong: there is no such session

	canSpread   = 1 << 3 // whoever says it is to go over several paths
	isLane      = 1 << 4 // Ping: for the strand that Offset opened, as its lane number Length. Pong: taken
	isElsewhere = 1 << 5 // Ping, in a data stream: the next Length messages come over lane ID
)

// historyMax bounds the messages that are remembered. The peer confirms them
// with each ping; one that does not for so long gets a new session instead.
const historyMax = MaxQueued

// resume is what a session knows of how it could go on.
type resume struct {
	able    bool           // the peer can, too
	history []wire.Message // sent, and not known to have arrived
	base    uint64         // how many were sent, and have arrived, before these
	high    uint64         // how many were sent over any strand before this one

	broken bool          // nothing is sent until another strand is there
	since  time.Duration // valid while broken, by Link.now
	cause  error         // likewise
	next   *pair         // likewise: what is to take its place
	tried  time.Duration // of a session that ended broken: for how long
}

// remember keeps what was sent; the session's mu is held.
func (r *resume) remember(part []wire.Message) {
	if !r.able {
		return
	}
	if len(r.history)+len(part) > historyMax {
		r.able, r.history = false, nil
		return
	}
	r.history = append(r.history, part...)
}

// confirmed forgets what the peer has.
func (s *session) confirmed(arrived uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.mu.resume
	if !r.able || arrived <= r.base {
		return
	}
	n := min(arrived-r.base, uint64(len(r.history))) // more is with the sender
	left := copy(r.history, r.history[n:])
	clear(r.history[left:]) // keeps no payload alive
	r.history, r.base = r.history[:left], r.base+n
}

// whole returns the strand; ok is false while it is broken.
func (s *session) whole() (st *strand, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.strand, !s.mu.resume.broken && !s.mu.ended
}

// broke gives a strand up because of cause: another may take its place, or the
// session ends.
func (s *session) broke(st *strand, cause error) {
	s.mu.Lock()
	r := &s.mu.resume
	if s.mu.ended || st != s.mu.strand || r.broken {
		s.mu.Unlock()
		return
	}
	if !r.able || s.mu.refusing || s.mu.reason != nil || lasting(cause) {
		s.mu.Unlock()
		s.end(cause)
		return
	}
	r.broken, r.since, r.cause = true, s.link.now(), cause
	lanes := s.mu.lanes
	s.mu.spare.Broadcast()
	s.mu.Unlock()
	st.pair.close(s.log)
	s.closeLanes(lanes, cause)
	if len(lanes) > 0 && !errors.Is(cause, errMoving) {
		s.holdLanes()
	}
	s.notice()
}

// lasting reports whether the fault is not that of the network.
func lasting(cause error) bool {
	var format *wire.FormatError
	return errors.Is(cause, ErrProtocol) || errors.As(cause, &format)
}

func (s *session) notice() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// another waits for a strand to take the place of one that broke, or for the end
// of the session: nil. Only run calls it, and the Sink is not called meanwhile.
func (s *session) another(old *strand) *strand {
	s.quiet() // nobody writes to the old one any more
	old.work.Wait()
	s.mu.Lock()
	since, ended := s.mu.resume.since, s.mu.ended
	s.mu.Unlock()
	if ended {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.link.ctx, since+s.link.cfg.Resume-s.link.now())
	defer cancel()
	stop := context.AfterFunc(s.over, cancel) // an end wakes whoever dials
	defer stop()
	for ctx.Err() == nil {
		p, arrived, err := s.nextStrand(ctx)
		if err == nil {
			var st *strand
			if st, err = s.adopt(old, p, arrived); err == nil {
				return st
			}
			p.close(s.log)
		}
		if errors.Is(err, errGone) || errors.Is(err, ErrProtocol) {
			s.log.Info("session cannot be resumed", zap.Error(err))
			break
		}
		s.log.Debug("session not resumed yet", zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(backoffMin):
		}
	}
	s.end(ErrPeerClosed) // the cause of the break comes first
	return nil
}

// nextStrand makes streams, or takes what is offered, and exchanges with the peer
// how many messages have arrived.
func (s *session) nextStrand(ctx context.Context) (p *pair, arrived uint64, err error) {
	if p = s.offered(); p == nil && s.link.dials() {
		if p, err = s.link.open(ctx, ""); err != nil {
			return nil, 0, err
		}
	}
	for p == nil {
		select {
		case <-s.changed:
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
		p = s.offered()
	}
	mine := wire.Message{Kind: wire.Pong, ID: p.nonce, Token: canResume | isResuming, Offset: s.nonce, Length: s.received.Load()}
	arrived = p.arrived
	if s.link.dials() {
		mine.Kind = wire.Ping
		arrived, err = s.link.offerResume(ctx, p, mine)
	} else {
		err = p.answer(mine)
	}
	if err != nil {
		p.close(s.log)
	}
	return p, arrived, err
}

// offered takes what was put there to go on with; nil when nothing was.
func (s *session) offered() *pair {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.mu.resume.next
	s.mu.resume.next = nil
	return p
}

// offerResume offers p for a session that there is.
func (l *Link) offerResume(ctx context.Context, p *pair, mine wire.Message) (arrived uint64, err error) {
	answer, err := l.exchange(ctx, p, mine)
	switch {
	case err != nil:
		return 0, err
	case answer.Token&isResuming == 0 || answer.Token&isGone != 0:
		return 0, errGone
	}
	return answer.Length, nil
}

// adopt goes on over p: what has not arrived is queued again.
func (s *session) adopt(old *strand, p *pair, arrived uint64) (*strand, error) {
	st, err := s.link.newStrand(p)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	r := &s.mu.resume
	cause, took := r.cause, s.link.now()-r.since
	again, err := s.replaceLocked(old, st, arrived)
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	useless, better := s.besideLocked()
	s.mu.Unlock()
	if useless != nil {
		useless.close(s.log)
	}
	if better {
		s.broke(st, errMoving)
	}
	s.hearing()
	st.count.resumed.Add(1)
	s.log.Info("link moved", zap.String("was", old.pair.path), zap.String("now", p.path), zap.NamedError("because", cause),
		zap.Duration("took", took), zap.Int("again", again))
	s.link.cfg.Sink.Moved(s.id, old.pair.path, p.path, cause)
	s.flush()
	return st, nil
}

// replaceLocked has st take the place of a strand that broke, and queues again what has
// not arrived.
func (s *session) replaceLocked(old, st *strand, arrived uint64) (again int, err error) {
	r := &s.mu.resume
	if s.mu.ended {
		return 0, errGone
	}
	if !s.link.dials() && arrived < r.base { // the peer has said more since it offered them
		return 0, fmt.Errorf("streams for a peer with %d messages, it has said that it has %d: %w", arrived, r.base, errOvertaken)
	}
	if again, err = s.rewindLocked(old.out, arrived); err != nil {
		return 0, err
	}
	s.mu.strand, r.broken, r.cause = st, false, nil
	s.mu.sending, s.mu.handed = false, false
	s.mu.lanes, s.mu.split = nil, splitter{}
	return again, nil
}

// rewindLocked queues all that was sent after the first arrived messages, and
// whatever waits behind. There is no sender. It returns how many were sent before. Some of
// what has arrived may be queued again already: for an offer of streams that the
// peer had given up, and that was found later than those it uses.
func (s *session) rewindLocked(o *outflow, arrived uint64) (again int, err error) {
	r := &s.mu.resume
	all, sent := r.history, r.base+uint64(len(r.history))
	if !o.kept {
		sent += uint64(len(o.part)) // of a part some may have gone
		all = append(append(all, o.part...), o.batch[o.next:]...)
	}
	r.high = max(r.high, sent)
	if arrived < r.base || arrived > r.high {
		return 0, fmt.Errorf("peer says that %d messages have arrived, %d to %d can have: %w", arrived, r.base, r.high, ErrProtocol)
	}
	s.mu.queue = s.mu.split.order(all, s.mu.queue)[arrived-r.base:]
	r.history, r.base = nil, arrived
	s.mu.messages, s.mu.bytes = len(s.mu.queue), 0
	for i := range s.mu.queue {
		s.mu.bytes += sizeOf(&s.mu.queue[i])
	}
	return int(r.high - arrived), nil
}

// Move has the session go on over another path: streams over it are opened first,
// so nothing waits for longer than a round trip. Only the node that dials can; the
// other one, and one whose peer cannot resume, gets ErrCannotMove. Where the path
// is the session's already nothing is done.
func (l *Link) Move(ctx context.Context, path string) error {
	s := l.live()
	if s == nil || !l.dials() {
		return fmt.Errorf("move to path %s: %w", path, ErrCannotMove)
	}
	s.mu.Lock()
	st, able, broken := s.mu.strand, s.mu.resume.able, s.mu.resume.broken
	s.mu.Unlock()
	switch {
	case !able:
		return fmt.Errorf("move to path %s: peer of an earlier release: %w", path, ErrCannotMove)
	case broken || st.pair.path == path:
		return nil
	}
	p, err := l.open(ctx, path)
	if err != nil {
		return fmt.Errorf("move to path %s: %w", path, err)
	}
	if p.path != path || !s.goOn(p) {
		p.close(l.log)
		return fmt.Errorf("move to path %s: %w", path, ErrCannotMove)
	}
	return nil
}

// Leave gives up what goes over a path, because of cause; the session goes on
// over another one if it can.
func (l *Link) Leave(path string, cause error) {
	if s := l.live(); s != nil {
		if st, ok := s.whole(); ok && slices.Contains(s.paths(), path) {
			s.broke(st, cause)
		}
	}
}

// paths are those of the strand, that of the data stream first.
func (s *session) paths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []string{s.mu.strand.pair.path}
	for _, n := range s.mu.lanes {
		out = append(out, n.path)
	}
	return out
}

// Path is that of the session, "" when there is none, or it has no streams.
func (l *Link) Path() string {
	if s := l.live(); s != nil {
		if st, ok := s.whole(); ok {
			return st.pair.path
		}
	}
	return ""
}
