package link

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"hapair/mirror/wire"

	"go.uber.org/zap"
)

// pair is the two streams of a session. The dialing node opens each with a
// Ping whose ID is the session's nonce; the accepting one answers on both with
// a Pong when it has both and its session before is over.
type pair struct {
	data, control net.Conn
	path          string // of data
	nonce         uint64
	resumes       bool // the peer remembers what it sends
	spreads       bool // the peer wants to go over several paths
	// where the peer wants to go on with a session: which, and how much of it has
	// arrived there
	joins            bool
	session, arrived uint64
}

// answer sends m on both streams.
func (p *pair) answer(m wire.Message) error {
	for _, conn := range []net.Conn{p.data, p.control} {
		if err := greet(conn, &m); err != nil {
			return err
		}
	}
	return nil
}

func (p *pair) close(log *zap.Logger) {
	closeConn(p.data, log)
	closeConn(p.control, log)
}

// half is a stream that waits for the other one of its pair.
type half struct {
	conn    net.Conn
	path    string
	control bool
	opening wire.Message
	timer   *time.Timer
}

// run makes one session after another; it is the only goroutine that calls
// the Sink.
func (l *Link) run() {
	defer l.wg.Done()
	pause := time.Duration(0)
	for l.ctx.Err() == nil {
		p, err := l.nextPair()
		if err != nil {
			pause = min(max(2*pause, backoffMin), backoffMax)
			l.log.Debug("no session", zap.Error(err), zap.Duration("pause", pause))
			l.rest(pause)
			continue
		}
		if p == nil { // not wished for, or nobody has come yet
			l.rest(-1)
			continue
		}
		begun := l.now()
		l.serve(p)
		if l.now()-begun >= steadyAfter {
			pause = 0
			continue
		}
		pause = min(max(2*pause, backoffMin), backoffMax)
		if l.dials() {
			l.rest(pause)
		}
	}
}

func (l *Link) dials() bool { return l.cfg.Self < l.cfg.Peer }

// rest waits for a kick; not longer than d unless that is negative.
func (l *Link) rest(d time.Duration) {
	var after <-chan time.Time
	if d >= 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		after = timer.C
	}
	select {
	case <-l.wake:
	case <-after:
	case <-l.ctx.Done():
	}
}

// nextPair dials, or takes what was accepted; nil when there is none.
func (l *Link) nextPair() (*pair, error) {
	l.mu.Lock()
	if !l.mu.wanted {
		l.mu.Unlock()
		return nil, nil
	}
	if !l.dials() {
		defer l.mu.Unlock()
		p := l.mu.next
		l.mu.next = nil
		return p, nil
	}
	ctx, cancel := context.WithCancelCause(l.ctx)
	l.mu.attempt = cancel
	l.mu.Unlock()
	p, err := l.dial(ctx)
	l.mu.Lock()
	l.mu.attempt = nil
	l.mu.Unlock()
	cancel(nil)
	return p, err
}

func (l *Link) dial(ctx context.Context) (*pair, error) {
	p, err := l.open(ctx, "")
	if err != nil {
		return nil, err
	}
	answer, err := l.exchange(ctx, p, wire.Message{Kind: wire.Ping, ID: p.nonce, Token: l.greeting()})
	if err != nil {
		p.close(l.log)
		return nil, err
	}
	p.resumes, p.spreads = answer.Token&canResume != 0, answer.Token&canSpread != 0
	return p, nil
}

// open dials both streams, over one path if that can be: what cuts one should
// cut both.
func (l *Link) open(ctx context.Context, path string) (*pair, error) {
	nonce, err := newNonce()
	if err != nil {
		return nil, err
	}
	data, over, err := l.cfg.Needs.Dial(ctx, path, DataPurpose(l.cfg.Resource))
	if err != nil {
		return nil, fmt.Errorf("dial data stream: %w", err)
	}
	control, _, err := l.cfg.Needs.Dial(ctx, over, ControlPurpose(l.cfg.Resource))
	if err != nil && path == "" && ctx.Err() == nil {
		control, _, err = l.cfg.Needs.Dial(ctx, "", ControlPurpose(l.cfg.Resource))
	}
	if err != nil {
		closeConn(data, l.log)
		return nil, fmt.Errorf("dial control stream: %w", err)
	}
	return &pair{data: data, control: control, path: over, nonce: nonce}, nil
}

func newNonce() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("session nonce: %w", err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// exchange opens both streams with m, waits for both answers and returns that on
// the data stream.
func (l *Link) exchange(ctx context.Context, p *pair, m wire.Message) (answer wire.Message, err error) {
	stop := context.AfterFunc(ctx, func() { p.close(l.log) })
	defer stop()
	if err := p.answer(m); err != nil {
		return answer, fmt.Errorf("offer a session: %w", err)
	}
	for i, conn := range []net.Conn{p.data, p.control} {
		got, err := hear(conn, wire.Pong, pairTimeout)
		if err != nil {
			return answer, fmt.Errorf("wait for the peer to take the session: %w", errors.Join(err, context.Cause(ctx)))
		}
		if got.ID != p.nonce {
			return answer, fmt.Errorf("session %x was answered for %x: %w", p.nonce, got.ID, ErrProtocol)
		}
		if i == 0 {
			answer = got
		}
	}
	if !stop() {
		return answer, context.Cause(ctx)
	}
	return answer, nil
}

// greet writes a frame without payload; hear reads one.
func greet(conn net.Conn, m *wire.Message) error {
	var h [wire.HeaderBytes]byte
	if err := wire.EncodeHeader(h[:], m); err != nil {
		return err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(pairTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write(h[:]); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}

func hear(conn net.Conn, want wire.Kind, patience time.Duration) (m wire.Message, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return m, err
	}
	var h [wire.HeaderBytes]byte
	if _, err := io.ReadFull(conn, h[:]); err != nil {
		return m, err
	}
	if _, err := wire.DecodeHeader(h[:], &m); err != nil {
		return m, err
	}
	if m.Kind != want {
		return m, fmt.Errorf("%s instead of %s: %w", m.Kind, want, ErrProtocol)
	}
	return m, conn.SetReadDeadline(time.Time{})
}

// Accept takes an incoming authenticated stream of this resource's peer; it
// does not wait. The link owns conn. A stream that is not wished for, or comes
// to the node that dials, is closed. If conn has a method OnPath() string,
// that names its path.
func (l *Link) Accept(conn net.Conn, purpose string) {
	control := purpose == ControlPurpose(l.cfg.Resource)
	because := ""
	l.mu.Lock()
	switch {
	case !control && purpose != DataPurpose(l.cfg.Resource):
		because = "purpose of another resource"
	case l.dials():
		because = "this node is the one that dials"
	case !l.mu.wanted:
		because = "no connection is wished for"
	default:
		l.wg.Add(1)
	}
	l.mu.Unlock()
	if because != "" {
		l.log.Debug("stream not taken", zap.String("purpose", purpose), zap.String("because", because))
		closeConn(conn, l.log)
		return
	}
	h := &half{conn: conn, control: control}
	if p, ok := conn.(interface{ OnPath() string }); ok {
		h.path = p.OnPath()
	}
	go func() {
		defer l.wg.Done()
		stop := context.AfterFunc(l.ctx, func() { closeConn(conn, l.log) })
		opening, err := hear(conn, wire.Ping, halfTimeout)
		if !stop() || err != nil {
			l.log.Info("stream not taken", zap.String("purpose", purpose), zap.Error(errors.Join(err, context.Cause(l.ctx))))
			closeConn(conn, l.log)
			return
		}
		h.opening = opening
		if opening.Token&isLane != 0 && !control {
			l.attach(h)
			return
		}
		l.match(opening.ID, h)
	}()
}

// match pairs a stream with its other half, or lets it wait for it.
func (l *Link) match(nonce uint64, h *half) {
	l.mu.Lock()
	if !l.mu.wanted {
		l.mu.Unlock()
		closeConn(h.conn, l.log)
		return
	}
	other, ok := l.mu.pending[nonce]
	if !ok && len(l.mu.pending) < pendingMax {
		l.mu.pending[nonce] = h
		h.timer = time.AfterFunc(halfTimeout, func() { l.forget(nonce, h) })
		l.mu.Unlock()
		return
	}
	if !ok || other.control == h.control {
		l.mu.Unlock()
		l.log.Warn("stream not taken", zap.String("because", "no room, or a second one of its kind"), zap.Uint64("nonce", nonce))
		closeConn(h.conn, l.log)
		return
	}
	delete(l.mu.pending, nonce)
	other.timer.Stop()
	if h.control {
		h, other = other, h
	}
	p := &pair{data: h.conn, control: other.conn, path: h.path, nonce: nonce, resumes: h.opening.Token&canResume != 0, spreads: h.opening.Token&canSpread != 0}
	if p.joins = h.opening.Token&isResuming != 0; p.joins {
		p.session, p.arrived = h.opening.Offset, h.opening.Length
		l.mu.Unlock()
		l.rejoin(p)
		return
	}
	stale, s := l.mu.next, l.mu.session
	l.mu.next = p
	l.mu.Unlock()
	if stale != nil {
		stale.close(l.log)
	}
	if s != nil { // the peer knows best when a session is over
		s.drop(ErrReplaced)
	}
	l.kick()
}

func (l *Link) forget(nonce uint64, h *half) {
	l.mu.Lock()
	if l.mu.pending[nonce] == h {
		delete(l.mu.pending, nonce)
	}
	l.mu.Unlock()
	closeConn(h.conn, l.log)
}
