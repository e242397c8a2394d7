package ledger

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

const maxIdle = 4 // call streams kept open per peer

// peer is another voter (or, for renewals, ourselves) as this node reaches it.
type peer struct {
	l      *Ledger
	node   string
	wake   chan struct{}
	ctx    context.Context // ends with the ledger, or when the node is no peer any more
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool
	idle    []net.Conn
	lease   net.Conn
	contact time.Duration // on our clock, when the last answered message was sent
	reached bool
	why     error         // of the last failure
	back    chan struct{} // closed while reached
}

// kick has every voter asked at once.
func (l *Ledger) kick() {
	for _, p := range l.others() {
		p.poke()
	}
	if l.self != nil {
		l.self.poke()
	}
}

func (p *peer) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// renewSelf asks our own voter.
func (p *peer) renewSelf() {
	for {
		t0 := p.l.clock()
		ask := p.l.hands.batch(p.node)
		again := p.l.hands.answered(p.node, t0, ask, p.l.voter.judge(p.node, ask))
		if !p.pause(again) {
			return
		}
	}
}

// renew asks the peer's voter at each interval, on one stream that is opened
// again at once when it breaks, one question at a time.
func (p *peer) renew() {
	for {
		again, err := p.renewOnce()
		p.note(err)
		if err != nil && p.ctx.Err() == nil {
			// A broken stream says nothing about the next one; a refused dial
			// would spin.
			again = p.l.cfg.Timing.Renew / 4
		}
		if !p.pause(again) {
			p.close()
			return
		}
	}
}

// pause waits for the next renewal: again if sooner than the usual interval.
func (p *peer) pause(again time.Duration) bool {
	wait := p.l.cfg.Timing.Renew
	if again > 0 {
		wait = min(wait, again)
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.wake:
	case <-p.ctx.Done():
		return false
	}
	return true
}

func (p *peer) renewOnce() (again time.Duration, err error) {
	c, err := p.leaseStream()
	if err != nil {
		return 0, err
	}
	ask := p.l.hands.batch(p.node)
	ask.Stamp = p.l.stamp()
	var reply leaseReply
	t0 := p.l.clock() // before the first byte leaves: the lease counts from here
	if err = exchange(c, p.l.cfg.Timing.silence(), ask, &reply); err == nil && reply.Refused != "" {
		err = fmt.Errorf("%s refused: %s", p.node, reply.Refused)
	}
	if err != nil {
		p.dropLease()
		return 0, err
	}
	p.l.heard(reply.Stamp)
	p.mu.Lock()
	p.contact = t0
	p.mu.Unlock()
	p.l.contactWith(p.node)
	p.l.heardSeat(p.node)
	return p.l.hands.answered(p.node, t0, ask, reply), nil
}

func (p *peer) leaseStream() (net.Conn, error) {
	p.mu.Lock()
	c := p.lease
	p.mu.Unlock()
	if c != nil {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(p.ctx, p.l.cfg.Timing.silence())
	defer cancel()
	c, err := p.l.dial(ctx, p.node, PurposeLease)
	if err != nil {
		return nil, err
	}
	p.l.hands.askAnew(p.node)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close() //nolint:errcheck // never used
		return nil, ErrClosed
	}
	p.lease = c
	return c, nil
}

func (p *peer) dropLease() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lease != nil {
		p.lease.Close() //nolint:errcheck // broken already
		p.lease = nil
	}
}

func (p *peer) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch was := p.reached; {
	case err == nil && !was:
		close(p.back)
	case err != nil && was:
		p.back = make(chan struct{})
	}
	p.reached, p.why = err == nil, err
}

// answers reports whether the peer answered the last question.
func (p *peer) answers() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reached
}

// returned is closed while the peer answers.
func (p *peer) returned() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.back
}

// call asks the peer one question, within its budget, dialing included. sent
// tells whether it may have arrived.
func (p *peer) call(ctx context.Context, c call) (r callReply, sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Budget)
	defer cancel()
	c.Stamp = p.l.stamp()
	for range maxIdle + 1 {
		conn, fresh, err := p.stream(ctx)
		if err != nil {
			return r, sent, err
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() }) //nolint:errcheck // breaks off whoever waits
		err = exchange(conn, c.Budget, c, &r)
		if err == nil {
			p.l.heard(r.Stamp)
		}
		if stop() && err == nil {
			p.put(conn)
			return r, true, nil
		}
		conn.Close() //nolint:errcheck // broken, or of unknown state
		if err == nil {
			return r, true, nil
		}
		sent = true
		if fresh || ctx.Err() != nil {
			return r, sent, fmt.Errorf("call %s: %w", p.node, err)
		}
	}
	return r, sent, fmt.Errorf("call %s: every stream was broken", p.node)
}

func (p *peer) stream(ctx context.Context) (c net.Conn, fresh bool, err error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		c = p.idle[n-1]
		p.idle = p.idle[:n-1]
	}
	p.mu.Unlock()
	if c != nil {
		return c, false, nil
	}
	c, err = p.l.dial(ctx, p.node, PurposeCall)
	return c, true, err
}

func (p *peer) put(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= maxIdle {
		c.Close() //nolint:errcheck // spare
		return
	}
	p.idle = append(p.idle, c)
}

// reset closes every stream: what was greeted before holds no more.
func (p *peer) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.idle {
		c.Close() //nolint:errcheck // unused
	}
	p.idle = nil
	if p.lease != nil {
		p.lease.Close() //nolint:errcheck // its user opens another
		p.lease = nil
	}
}

func (p *peer) close() {
	p.reset()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
}
