package link

import (
	"context"
	"fmt"
	"slices"
	"time"

	"hapair/mirror/wire"

	"go.uber.org/zap"
)

// A session spreads where both ends said, when it began, that they are to. The
// dialing node opens the lanes, one after another, each with a Ping on a data
// stream that names the strand, by its nonce, and the number of the lane; the accepting one
// answers with a Pong. What breaks one stream of a strand breaks all, and the session
// goes on over one path: with what has arrived counted in order, as ever.

// holdMin and holdMax bound for how long a session that lost a strand with
// lanes does without: it doubles with each loss.
const (
	holdMin = 2 * time.Second
	holdMax = 5 * time.Minute
	// forgiven times the last hold, without a loss, and it is forgotten.
	forgiven = 10
)

// hold is for how long no lane is opened.
type hold struct{ length, until, since time.Duration }

// lost takes note of a strand with lanes that broke.
func (h *hold) lost(now time.Duration) {
	if now-h.since > forgiven*h.length {
		h.length = 0
	}
	h.length = min(max(2*h.length, holdMin), holdMax)
	h.until = now + h.length
}

// greeting is what this end says of itself when a session begins.
func (l *Link) greeting() uint64 {
	if l.cfg.Spread {
		return canResume | canSpread
	}
	return canResume
}

// Spread has the session go over more paths: those named over which it does not yet. Only the
// node that dials has something to do, and where both are configured to.
func (l *Link) Spread(ctx context.Context, paths []string) error {
	s := l.live()
	if s == nil || !s.spreads || !l.dials() {
		return nil
	}
	l.mu.Lock()
	wait := l.mu.hold.until > l.now()
	l.mu.Unlock()
	if wait {
		return nil
	}
	for _, path := range paths {
		if err := s.addLane(ctx, path); err != nil {
			return fmt.Errorf("spread to path %s: %w", path, err)
		}
	}
	return nil
}

// addLane opens a lane over a path that has none.
func (s *session) addLane(ctx context.Context, path string) error {
	st, number := s.nextLane(path)
	if st == nil {
		return nil
	}
	conn, over, err := s.link.cfg.Needs.Dial(ctx, path, DataPurpose(s.link.cfg.Resource))
	if err != nil {
		return err
	}
	n, err := s.link.newLane(conn, over, number)
	if err == nil && over != path {
		err = fmt.Errorf("it came over path %s: %w", over, ErrCannotMove)
	}
	if err == nil {
		err = s.reserve(st, n)
	}
	if err != nil {
		closeConn(conn, s.log)
		return err
	}
	return s.offerLane(ctx, st, n)
}

// nextLane is the strand that a lane over a path would belong to, and its number; nil
// where there is nothing to do.
func (s *session) nextLane(path string) (*strand, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.mu.strand
	if s.overLocked(st) != nil || st.pair.path == path || len(s.mu.lanes) >= lanesMax ||
		slices.ContainsFunc(s.mu.lanes, func(n *lane) bool { return n.path == path }) {
		return nil, 0
	}
	return st, len(s.mu.lanes)
}

// reserve makes a lane known, so that the peer may use it the moment it has it.
func (s *session) reserve(st *strand, n *lane) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.overLocked(st); err != nil {
		return err
	}
	if n.number != len(s.mu.lanes) || n.number >= lanesMax {
		return fmt.Errorf("lane %d, there are %d: %w", n.number, len(s.mu.lanes), ErrProtocol)
	}
	s.mu.lanes = append(s.mu.lanes[:n.number:n.number], n) // readers may have the old slice
	return nil
}

// offerLane has the peer take a lane. One that does not answer may use it
// already: then the strand is given up.
func (s *session) offerLane(ctx context.Context, st *strand, n *lane) error {
	nonce, err := newNonce()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { closeConn(n.conn, s.log) })
	defer stop()
	var answer wire.Message
	if err = greet(n.conn, &wire.Message{Kind: wire.Ping, ID: nonce, Token: canResume | canSpread | isLane, Offset: st.pair.nonce, Length: uint64(n.number)}); err == nil {
		answer, err = hear(n.conn, wire.Pong, pairTimeout)
	}
	switch {
	case err != nil:
	case answer.ID != nonce || answer.Token&(isLane|isGone) == 0:
		err = ErrProtocol
	case answer.Token&isGone != 0: // it has not come to know the lane
		s.refused(st, n)
		return errGone
	default:
		s.openLane(st, n)
		return nil
	}
	err = fmt.Errorf("open a lane over path %s: %w", n.path, err)
	s.broke(st, err)
	return err
}

// refused forgets a lane that the peer does not know.
func (s *session) refused(st *strand, n *lane) {
	s.mu.Lock()
	if s.mu.strand == st && len(s.mu.lanes) == n.number+1 {
		s.mu.lanes = s.mu.lanes[:n.number]
	}
	s.mu.Unlock()
	s.closeLanes([]*lane{n}, errGone)
	s.holdLanes()
}

// attach takes a lane that the peer opens, or tells it that there is no such session.
func (l *Link) attach(h *half) {
	answer := wire.Message{Kind: wire.Pong, ID: h.opening.ID, Token: canResume | canSpread | isLane}
	s := l.live()
	st, n, err := l.welcome(s, h)
	if err != nil {
		l.log.Info("lane not taken", zap.String("path", h.path), zap.Error(err))
		answer.Token = canResume | isGone
	}
	if told := greet(h.conn, &answer); told != nil && err == nil {
		s.broke(st, fmt.Errorf("take a lane over path %s: %w", n.path, told))
		return
	}
	if err != nil {
		closeConn(h.conn, l.log)
		return
	}
	s.openLane(st, n)
}

// welcome makes a lane that the peer opens known.
func (l *Link) welcome(s *session, h *half) (*strand, *lane, error) {
	if s == nil || !s.spreads || h.opening.Length >= lanesMax {
		return nil, nil, errGone
	}
	st, ok := s.whole()
	if !ok || st.pair.nonce != h.opening.Offset {
		return nil, nil, errGone
	}
	n, err := l.newLane(h.conn, h.path, int(h.opening.Length))
	if err != nil {
		return nil, nil, err
	}
	return st, n, s.reserve(st, n)
}

// openLane begins to use a lane that both ends know.
func (s *session) openLane(st *strand, n *lane) {
	if err := limitUnsent(st.pair.data); err != nil {
		s.broke(st, err)
		return
	}
	s.mu.Lock()
	if s.overLocked(st) != nil { // its end closes the lane, which is known
		s.mu.Unlock()
		return
	}
	if !s.mu.split.on {
		s.mu.split.begin(s.mu.queue)
		s.mu.pace = pace{}
	}
	st.work.Add(2) // before broken, which whoever waits for them has seen
	s.helpers.Go(func() { s.readLane(st, n) })
	s.helpers.Go(func() { s.writeLane(st, n) })
	first := n.number == 0
	s.mu.Unlock()
	s.log.Info("link spread", zap.String("path", st.pair.path), zap.String("also", n.path))
	if first {
		s.link.mu.Lock()
		s.link.mu.hold.since = s.link.now()
		s.link.mu.Unlock()
	}
}

// closeLanes closes the lanes of a strand that is over because of cause.
func (s *session) closeLanes(lanes []*lane, cause error) {
	for _, n := range lanes {
		n.close(cause, s.log)
	}
}

// holdLanes has no lane opened for a while.
func (s *session) holdLanes() {
	s.link.mu.Lock()
	s.link.mu.hold.lost(s.link.now())
	s.link.mu.Unlock()
}
