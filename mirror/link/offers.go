package link

import (
	"hapair/mirror/wire"

	"go.uber.org/zap"
)

// Streams that the dialing node opens for a session that there is, at the accepting one;
// or its own of a Move.

// rejoin gives streams that the peer opened for a session to it, or tells the
// peer that there is none.
func (l *Link) rejoin(p *pair) {
	if s := l.live(); s != nil && s.nonce == p.session && s.goOn(p) {
		return
	}
	l.log.Info("session not resumed", zap.String("because", "it is over here"), zap.String("path", p.path))
	if err := p.answer(wire.Message{Kind: wire.Pong, ID: p.nonce, Token: canResume | isGone}); err != nil {
		l.log.Debug("refusal not sent", zap.Error(err))
	}
	p.close(l.log)
}

// goOn has p take the place of the strand, unless the peer has given p up since; false
// when the session is over, or cannot.
func (s *session) goOn(p *pair) bool {
	s.mu.Lock()
	r := &s.mu.resume
	if s.mu.ended || s.mu.refusing || !r.able {
		s.mu.Unlock()
		return false
	}
	if p.joins && p.arrived < r.base { // found late: the peer has said more since
		s.mu.Unlock()
		p.close(s.log)
		return true
	}
	spare, st := r.next, s.mu.strand
	r.next = p
	s.mu.Unlock()
	if spare != nil {
		spare.close(s.log)
	}
	s.broke(st, errMoving)
	s.notice()
	return true
}

// besideLocked judges what came while other streams were taken: of a Move it is of no
// use; of the peer it is the better one, for it may use no other any more, unless it
// was found late.
func (s *session) besideLocked() (useless *pair, better bool) {
	r := &s.mu.resume
	if r.next == nil || !s.link.dials() && r.next.arrived >= r.base {
		return nil, r.next != nil
	}
	useless, r.next = r.next, nil
	return useless, false
}
