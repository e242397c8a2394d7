package link

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/wire"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// event is one call of a Sink.
type event struct {
	what    string // up, down or message
	session uint64
	path    string
	reason  error
	m       wire.Message // Data copied
}

// sink turns calls into events, and fails where they overlap or come out of order.
type sink struct {
	t      testing.TB
	name   string
	events chan event
	inside atomic.Bool
	up     uint64 // session that is up; only the caller touches it
	hook   func(session uint64, m *wire.Message)
	down   func()
}

func newSink(t testing.TB, name string) *sink {
	return &sink{t: t, name: name, events: make(chan event, 1<<16)}
}

func (s *sink) enter() {
	if s.inside.Swap(true) {
		s.t.Errorf("%s: calls overlap", s.name)
	}
}

func (s *sink) Up(session uint64, path string) {
	s.enter()
	defer s.inside.Store(false)
	if s.up != 0 {
		s.t.Errorf("%s: up %d while %d is up", s.name, session, s.up)
	}
	s.up = session
	s.events <- event{what: "up", session: session, path: path}
}

func (s *sink) Message(session uint64, m *wire.Message) {
	s.enter()
	defer s.inside.Store(false)
	if s.up != session {
		s.t.Errorf("%s: message of session %d while %d is up", s.name, session, s.up)
	}
	if s.hook != nil {
		s.hook(session, m)
		return
	}
	if m.Kind == wire.Write && !block.IsAligned(m.Data) {
		s.t.Errorf("%s: payload is not aligned", s.name)
	}
	c := *m
	c.Data, c.Buffer = bytes.Clone(m.Data), nil
	s.events <- event{what: "message", session: session, m: c}
}

func (s *sink) Drained() {
	s.enter()
	defer s.inside.Store(false)
	if s.up == 0 {
		s.t.Errorf("%s: drained while nothing is up", s.name)
	}
}

func (s *sink) Moved(session uint64, from, to string, because error) {
	s.enter()
	defer s.inside.Store(false)
	if s.up != session || because == nil {
		s.t.Errorf("%s: %d moved (%v) while %d is up", s.name, session, because, s.up)
	}
	s.events <- event{what: "moved", session: session, path: to, reason: because}
}

func (s *sink) Down(session uint64, reason error, _ time.Duration) {
	s.enter()
	defer s.inside.Store(false)
	if s.up != session || reason == nil {
		s.t.Errorf("%s: down %d (%v) while %d is up", s.name, session, reason, s.up)
	}
	s.up = 0
	if s.down != nil {
		s.down()
	}
	s.events <- event{what: "down", session: session, reason: reason}
}

func (s *sink) next() event {
	s.t.Helper()
	select {
	case e := <-s.events:
		return e
	case <-time.After(20 * time.Second):
		s.t.Fatalf("%s: nothing happened for 20 s", s.name)
		return event{}
	}
}

func (s *sink) want(what string) event {
	s.t.Helper()
	e := s.next()
	if e.what != what {
		s.t.Fatalf("%s: %+v, wanted %s", s.name, e, what)
	}
	return e
}

// wire between two links, with knobs.
type cable struct {
	t     testing.TB
	make  func() (near, far net.Conn, err error)
	wrap  func(net.Conn, string) net.Conn // of the dialing end
	far   func(net.Conn, string) net.Conn // of the other one
	over  func(net.Conn, string) net.Conn // of both, with the path
	other *Link

	mu    sync.Mutex
	conns map[string]net.Conn // newest dialing end, by purpose, and by path and purpose
	fail  bool
	dials int
}

func (c *cable) Dial(_ context.Context, path, purpose string) (net.Conn, string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dials++
	if c.fail {
		return nil, "", errors.New("cable is cut")
	}
	near, far, err := c.make()
	if err != nil {
		return nil, "", err
	}
	if path == "" {
		path = "crossover"
	}
	if c.over != nil {
		near, far = c.over(near, path), c.over(far, path)
	}
	if c.far != nil {
		far = c.far(far, purpose)
	}
	c.other.Accept(onPath{far, path}, purpose)
	if c.wrap != nil {
		near = c.wrap(near, purpose)
	}
	c.conns[purpose], c.conns[path+" "+purpose] = near, near
	return near, path, nil
}

// onPath is what peering gives: a connection with a path.
type onPath struct {
	net.Conn
	path string
}

func (p onPath) OnPath() string { return p.path }
func (p onPath) Raw() *net.TCPConn {
	tcp, _ := p.Conn.(*net.TCPConn)
	return tcp
}
func (p onPath) Below() syscall.Conn {
	socket, _ := p.Conn.(syscall.Conn)
	return socket
}
func (p onPath) CloseWrite() error {
	if tcp, ok := p.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return p.Close()
}

func (c *cable) stream(purpose string) net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conns[purpose]
}

func (c *cable) cut(fail bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = fail
}

func tcpPair() (net.Conn, net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	far, err := l.Accept()
	if err != nil {
		return nil, nil, err
	}
	return near, far, l.Close()
}

func pipePair() (net.Conn, net.Conn, error) {
	a, b := net.Pipe()
	return a, b, nil
}

// rig is two links, connected and up.
type rig struct {
	cable        *cable
	alpha, beta  *Link // alpha dials
	asink, bsink *sink
	bconfig      func(c *Config) // nil, or what is another at beta
}

func newRig(t testing.TB, change func(c *Config), prepare func(r *rig)) *rig {
	t.Helper()
	r := &rig{asink: newSink(t, "alpha"), bsink: newSink(t, "beta")}
	r.cable = &cable{t: t, make: tcpPair, conns: map[string]net.Conn{}}
	a := Config{Resource: "pg", Self: "alpha", Peer: "beta", Needs: r.cable, Sink: r.asink}
	if tt, ok := t.(*testing.T); ok {
		a.Logger = zaptest.NewLogger(tt)
	}
	// the machine may be busy: only tests of silence use the real one
	a.PingInterval, a.Silence = 20*time.Millisecond, 10*time.Second
	if change != nil {
		change(&a)
	}
	b := a
	b.Self, b.Peer, b.Sink = "beta", "alpha", r.bsink
	if prepare != nil {
		prepare(r)
	}
	if r.bconfig != nil {
		r.bconfig(&b)
	}
	r.alpha, r.beta = New(a), New(b)
	r.cable.other = r.beta
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		for _, l := range []*Link{r.alpha, r.beta} {
			if err := l.Stop(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	r.beta.Start()
	r.alpha.Start()
	return r
}

// up waits until both ends have a session, and returns their numbers.
func (r *rig) up() (alpha, beta uint64) {
	r.asink.t.Helper()
	a, b := r.asink.want("up"), r.bsink.want("up")
	if a.path != "crossover" || b.path != "crossover" {
		r.asink.t.Fatalf("paths %q and %q", a.path, b.path)
	}
	return a.session, b.session
}

// downUp waits until both ends have lost a session and found the next.
func (r *rig) downUp() (alpha, beta event) {
	r.asink.t.Helper()
	alpha, beta = r.asink.want("down"), r.bsink.want("down")
	a, b := r.up()
	if a <= alpha.session || b <= beta.session {
		r.asink.t.Fatalf("sessions %d and %d after %d and %d", a, b, alpha.session, beta.session)
	}
	return alpha, beta
}

// settle waits until what l was told to send is sent and counted: the peer may
// have a frame before its sender has returned from the call that carried it.
func (r *rig) settle(l *Link) {
	r.asink.t.Helper()
	l.mu.Lock()
	s := l.mu.session
	l.mu.Unlock()
	if s == nil {
		r.asink.t.Fatal("there is no session")
	}
	late := false
	timer := time.AfterFunc(20*time.Second, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = true
		s.mu.idle.Broadcast()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.mu.sending || len(s.mu.queue) > 0 {
		if late {
			r.asink.t.Fatalf("%d messages are not sent after 20 s", s.mu.messages)
		}
		s.mu.idle.Wait()
	}
}

func writeMessage(id uint64, n int) wire.Message {
	return wire.Message{Kind: wire.Write, ID: id, Offset: id * 4096, Length: uint64(n), Token: 7, Data: bytes.Repeat([]byte{byte(id)}, n)}
}
