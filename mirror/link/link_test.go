package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
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

func (s *sink) Down(session uint64, reason error) {
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
	other *Link

	mu    sync.Mutex
	conns map[string]net.Conn // newest dialing end, by purpose
	fail  bool
	dials int
}

func (c *cable) Dial(_ context.Context, purpose string) (net.Conn, string, error) {
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
	c.other.Accept(onPath{far}, purpose)
	if c.wrap != nil {
		near = c.wrap(near, purpose)
	}
	c.conns[purpose] = near
	return near, "crossover", nil
}

// onPath is what peering gives: a connection with a path.
type onPath struct{ net.Conn }

func (onPath) OnPath() string { return "crossover" }
func (p onPath) Raw() *net.TCPConn {
	tcp, _ := p.Conn.(*net.TCPConn)
	return tcp
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

func writeMessage(id uint64, n int) wire.Message {
	return wire.Message{Kind: wire.Write, ID: id, Offset: id * 4096, Length: uint64(n), Token: 7, Data: bytes.Repeat([]byte{byte(id)}, n)}
}

func TestMessagesArriveInOrder(t *testing.T) {
	for name, prepare := range map[string]func(r *rig){
		"writev": nil,
		"copied": func(r *rig) { r.cable.wrap = func(c net.Conn, _ string) net.Conn { return struct{ net.Conn }{c} } },
		"pipe":   func(r *rig) { r.cable.make = pipePair },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, prepare)
			a, b := r.up()
			sizes := []int{512, 4096, 512, 65536, 4096, block.MaxTransferBytes, 1024}
			const n = 1000
			var sent []wire.Message
			for id := range uint64(n) {
				m := wire.Message{Kind: wire.Ack, ID: id, Status: wire.NoSpace}
				if id%3 == 0 {
					m = writeMessage(id, sizes[int(id)%len(sizes)])
				}
				sent = append(sent, m)
				r.alpha.Send(a, m)
				r.beta.Send(b, wire.Message{Kind: wire.Ack, ID: id})
			}
			for id := range uint64(n) {
				got, m := r.bsink.want("message").m, sent[id]
				if got.ID != id || got.Kind != m.Kind || got.Status != m.Status || got.Offset != m.Offset || got.Token != m.Token || !bytes.Equal(got.Data, m.Data) {
					t.Fatalf("message %d arrived as %s", id, &got)
				}
				if back := r.asink.want("message").m; back.ID != id || back.Kind != wire.Ack {
					t.Fatalf("ack %d arrived as %s", id, &back)
				}
			}
			if st := r.alpha.Stats(); st.Session != a || st.QueuedMessages != 0 || st.QueuedBytes != 0 || st.Paths[0].FramesOut != n || st.Paths[0].FramesIn != n {
				t.Fatalf("%+v", st)
			}
		})
	}
}

// An old session's messages are dropped silently.
func TestOldSession(t *testing.T) {
	r := newRig(t, nil, nil)
	a, _ := r.up()
	r.alpha.Drop(a, errors.New("by the test"))
	alpha, beta := r.downUp()
	if alpha.reason.Error() != "by the test" || !errors.Is(beta.reason, ErrPeerClosed) && !isReset(beta.reason) {
		t.Fatalf("%v, %v", alpha.reason, beta.reason)
	}
	r.alpha.Send(a, wire.Message{Kind: wire.Flush, ID: 1})
	r.alpha.Drop(a, errors.New("too late"))
	r.alpha.Send(a+1, wire.Message{Kind: wire.Flush, ID: 2})
	if m := r.bsink.want("message").m; m.ID != 2 {
		t.Fatal(&m)
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op)
}

// Connections are lost at every place of a frame; no message is delivered
// damaged or twice, and the link comes back.
func TestCutMidFrame(t *testing.T) {
	for _, after := range []int64{1, 63, 64, 65, 1000, 4159, 4160, 10000} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			first := true
			r := newRig(t, nil, func(r *rig) {
				r.cable.wrap = func(c net.Conn, purpose string) net.Conn {
					if purpose != DataPurpose("pg") || !first {
						return c
					}
					first = false
					return &cutter{Conn: c, left: wire.HeaderBytes + after}
				}
			})
			a, _ := r.up()
			for id := range uint64(5) {
				r.alpha.Send(a, writeMessage(id, 4096))
			}
			for want := uint64(0); ; want++ {
				e := r.bsink.next()
				if e.what == "down" { // the control stream's end may come first
					if int64(want) > after/4160 {
						t.Fatalf("%d messages before the cut after %d bytes", want, after)
					}
					break
				}
				if e.m.ID != want || !bytes.Equal(e.m.Data, writeMessage(want, 4096).Data) {
					t.Fatal(&e.m)
				}
			}
			r.asink.want("down")
			r.up()
		})
	}
}

// cutter closes after so many bytes written.
type cutter struct {
	net.Conn
	left int64
}

func (c *cutter) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	if c.left == 0 && err == nil {
		err = errors.Join(errors.New("cut"), c.Close())
	}
	return n, err
}

// deadEnd swallows everything from a moment on: the other end is gone without
// a word, or the cable is pulled.
type deadEnd struct {
	net.Conn
	dead *atomic.Bool
	gone chan struct{}
	once sync.Once
}

func (d *deadEnd) Write(b []byte) (int, error) {
	if d.dead.Load() {
		return len(b), nil
	}
	return d.Conn.Write(b)
}

func (d *deadEnd) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	if d.dead.Load() {
		<-d.gone
		return 0, net.ErrClosed
	}
	return n, err
}

func (d *deadEnd) Close() error {
	d.once.Do(func() { close(d.gone) })
	return d.Conn.Close()
}

func TestSilence(t *testing.T) {
	var dead atomic.Bool
	r := newRig(t, func(c *Config) { c.PingInterval, c.Silence = 50*time.Millisecond, 300*time.Millisecond }, func(r *rig) {
		r.cable.wrap = func(c net.Conn, _ string) net.Conn {
			return &deadEnd{Conn: c, dead: &dead, gone: make(chan struct{})}
		}
	})
	r.up()
	r.cable.cut(true)
	dead.Store(true)
	if e := r.asink.want("down"); !errors.Is(e.reason, ErrSilent) {
		t.Fatal(e.reason)
	}
	r.bsink.want("down")
	dead.Store(false)
	r.cable.cut(false)
	r.up()
}

func TestGarbage(t *testing.T) {
	for _, purpose := range []string{DataPurpose("pg"), ControlPurpose("pg")} {
		r := newRig(t, nil, nil)
		r.up()
		if _, err := r.cable.stream(purpose).Write(bytes.Repeat([]byte("garbage "), 20)); err != nil {
			t.Fatal(err)
		}
		// the accepting end may have been hit in the middle of a ping
		if _, beta := r.downUp(); !errors.Is(beta.reason, wire.ErrMagic) {
			t.Fatalf("%s: %v", purpose, beta.reason)
		}
	}
}

// A message of the wrong stream ends the session.
func TestWrongStream(t *testing.T) {
	for purpose, kind := range map[string]wire.Kind{DataPurpose("pg"): wire.Ping, ControlPurpose("pg"): wire.Flush} {
		r := newRig(t, nil, nil)
		r.up()
		frame, err := wire.AppendFrame(nil, &wire.Message{Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.cable.stream(purpose).Write(frame); err != nil {
			t.Fatal(err)
		}
		if _, beta := r.downUp(); !errors.Is(beta.reason, ErrProtocol) {
			t.Fatalf("%s: %v", purpose, beta.reason)
		}
	}
}

// A node that dials again before its old session is noticed to be dead gets a
// new session, and the old one is over first.
func TestDuplicateConnections(t *testing.T) {
	r := newRig(t, nil, nil)
	r.up()
	other := New(Config{Resource: "pg", Self: "alpha", Peer: "beta", Needs: r.cable, Sink: newSink(t, "ghost")})
	p, err := other.dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if e := r.bsink.want("down"); !errors.Is(e.reason, ErrReplaced) {
		t.Fatal(e.reason)
	}
	r.bsink.want("up")
	r.asink.want("down") // its streams were closed; it dials, and replaces in turn
	r.asink.want("up")
	if e := r.bsink.want("down"); !errors.Is(e.reason, ErrReplaced) {
		t.Fatal(e.reason)
	}
	r.bsink.want("up")
	p.close(other.log)
}

// Halves without their other one are bounded and go away.
func TestLonelyHalves(t *testing.T) {
	r := newRig(t, nil, nil)
	r.up()
	var ends []net.Conn
	for i := range pendingMax + 3 {
		near, far, err := tcpPair()
		if err != nil {
			t.Fatal(err)
		}
		r.beta.Accept(far, DataPurpose("pg"))
		if err := greet(near, wire.Ping, uint64(i)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, near)
	}
	closed := make(chan struct{}, len(ends))
	for _, near := range ends {
		go func() {
			_, err := near.Read(make([]byte, 1))
			if err == nil {
				t.Error("a half was answered")
			}
			closed <- struct{}{}
		}()
	}
	for range 3 {
		<-closed
	}
	if n := len(closed); n != 0 {
		t.Fatalf("%d more were closed at once", n)
	}
	r.beta.Disconnect()
	for range pendingMax {
		<-closed
	}
	for _, near := range ends {
		if err := near.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestNotForUs(t *testing.T) {
	r := newRig(t, nil, nil)
	r.up()
	for purpose, l := range map[string]*Link{DataPurpose("other"): r.beta, DataPurpose("pg"): r.alpha} {
		near, far, err := tcpPair()
		if err != nil {
			t.Fatal(err)
		}
		l.Accept(far, purpose)
		if _, err := near.Read(make([]byte, 1)); err == nil {
			t.Fatalf("%s was taken", purpose)
		}
		if err := near.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A receiver that is busy longer than Silence is slow, not dead: its control
// stream still answers. What it leaves waiting is bounded.
func TestSlowReader(t *testing.T) {
	release := make(chan struct{})
	var got atomic.Uint64
	r := newRig(t, func(c *Config) {
		c.PingInterval, c.Silence = 50*time.Millisecond, 400*time.Millisecond
		c.QueueBytes = 64 << 20
	}, func(r *rig) {
		r.bsink.hook = func(_ uint64, m *wire.Message) { <-release; got.Add(1) }
	})
	a, _ := r.up()
	m := writeMessage(1, block.MaxTransferBytes)
	for range 40 {
		r.alpha.Send(a, m)
	}
	heard := r.alpha.Stats().Paths[0].RoundTrip
	for r.alpha.now() < 1200*time.Millisecond { // three times Silence
		time.Sleep(10 * time.Millisecond)
	}
	st := r.alpha.Stats()
	if st.Session != a || st.Heard > 400*time.Millisecond || st.QueuedBytes == 0 {
		t.Fatalf("%+v (round trip was %s)", st, heard)
	}
	for range 64 {
		r.alpha.Send(a, m)
	}
	if e := r.asink.want("down"); !errors.Is(e.reason, ErrQueueFull) {
		t.Fatal(e.reason)
	}
	close(release)
	r.bsink.want("down")
}

// A Refuse arrives, with everything before it, although the sender drops the
// session at once; nothing after it does.
func TestRefuse(t *testing.T) {
	r := newRig(t, nil, nil)
	a, b := r.up()
	for id := range uint64(100) {
		r.beta.Send(b, writeMessage(id, 4096))
		r.alpha.Send(a, writeMessage(id, 4096))
	}
	text := []byte("split brain, both sides have written")
	r.alpha.Send(a, wire.Message{Kind: wire.Refuse, Status: wire.SplitBrain, Token: 9, Data: text})
	r.alpha.Send(a, wire.Message{Kind: wire.Flush})
	r.alpha.Drop(a, errors.New("refused by the engine"))
	for id := range uint64(100) {
		if m := r.bsink.want("message").m; m.ID != id {
			t.Fatal(&m)
		}
	}
	if m := r.bsink.want("message").m; m.Kind != wire.Refuse || m.Status != wire.SplitBrain || m.Token != 9 || !bytes.Equal(m.Data, text) {
		t.Fatal(&m)
	}
	if e := r.bsink.want("down"); !errors.Is(e.reason, ErrPeerClosed) {
		t.Fatal(e.reason)
	}
	for e := r.asink.next(); e.what != "down"; e = r.asink.next() {
		if e.what != "message" {
			t.Fatalf("%+v", e)
		}
	}
	r.up()
}

// A node that stops says so, and the word arrives.
func TestRefuseThenStop(t *testing.T) {
	r := newRig(t, nil, nil)
	a, _ := r.up()
	r.alpha.Send(a, wire.Message{Kind: wire.Refuse, Status: wire.Shutdown})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := r.alpha.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if e := r.asink.want("down"); !errors.Is(e.reason, ErrRefusing) && !errors.Is(e.reason, ErrStopped) {
		t.Fatal(e.reason)
	}
	if m := r.bsink.want("message").m; m.Status != wire.Shutdown {
		t.Fatal(&m)
	}
	if e := r.bsink.want("down"); !errors.Is(e.reason, ErrPeerClosed) {
		t.Fatal(e.reason)
	}
}

func TestDisconnectAndConnect(t *testing.T) {
	r := newRig(t, nil, nil)
	r.up()
	r.beta.Disconnect()
	if e := r.bsink.want("down"); !errors.Is(e.reason, ErrDisconnected) {
		t.Fatal(e.reason)
	}
	r.asink.want("down")
	r.alpha.Disconnect()
	r.beta.Connect()
	r.alpha.Connect()
	r.up()
	r.alpha.Disconnect()
	r.asink.want("down")
	r.bsink.want("down")
	r.cable.mu.Lock()
	before := r.cable.dials
	r.cable.mu.Unlock()
	for range 5 {
		r.alpha.kick()
		time.Sleep(5 * time.Millisecond) // nothing must happen
	}
	r.cable.mu.Lock()
	defer r.cable.mu.Unlock()
	if r.cable.dials != before {
		t.Fatal("dialed against the wish")
	}
}

// After Down the link touches no borrowed buffer: the race detector watches.
func TestBuffersAreReturnedByDown(t *testing.T) {
	var mu sync.Mutex
	var lent [][]byte
	r := newRig(t, nil, func(r *rig) {
		r.asink.down = func() {
			mu.Lock()
			defer mu.Unlock()
			for _, b := range lent {
				clear(b)
			}
			lent = nil
		}
		r.bsink.hook = func(uint64, *wire.Message) {}
	})
	for range 6 { // more would meet the longer pauses
		a, _ := r.up()
		for id := range uint64(50) {
			m := writeMessage(id, 65536)
			mu.Lock()
			lent = append(lent, m.Data)
			mu.Unlock()
			r.alpha.Send(a, m)
		}
		r.alpha.Drop(a, errors.New("by the test"))
		r.asink.want("down")
		r.bsink.want("down")
	}
	r.up()
}

// A receiver keeps payloads by taking their buffer.
func TestTakeBuffer(t *testing.T) {
	kept := make(chan *block.Buffer, 100)
	r := newRig(t, nil, func(r *rig) {
		r.bsink.hook = func(_ uint64, m *wire.Message) {
			kept <- m.Buffer
			m.Buffer = nil
		}
	})
	a, _ := r.up()
	for id := range uint64(100) {
		r.alpha.Send(a, writeMessage(id, 4096))
	}
	for id := range uint64(100) {
		if b := (<-kept).Bytes(4096); !bytes.Equal(b, writeMessage(id, 4096).Data) {
			t.Fatalf("payload %d was overwritten", id)
		}
	}
}

func TestRoundTripIsMeasured(t *testing.T) {
	r := newRig(t, func(c *Config) { c.PingInterval = time.Millisecond }, nil)
	r.up()
	for r.alpha.Stats().Paths[0].RoundTrip == 0 || r.beta.Stats().Paths[0].LastRoundTrip == 0 {
		time.Sleep(time.Millisecond) // polled: a gauge announces nothing
	}
}

func TestInvalidMessageEndsTheSession(t *testing.T) {
	r := newRig(t, nil, nil)
	a, _ := r.up()
	r.alpha.Send(a, wire.Message{Kind: wire.Write, Length: 512})
	if alpha, _ := r.downUp(); !errors.Is(alpha.reason, wire.ErrField) {
		t.Fatal(alpha.reason)
	}
}

func TestPurposes(t *testing.T) {
	for _, p := range []string{DataPurpose("pg"), ControlPurpose("pg")} {
		if r, ok := ResourceOf(p); r != "pg" || !ok {
			t.Errorf("%s: %q, %v", p, r, ok)
		}
	}
	for _, p := range []string{"", "mirror/", "mirror/pg", "mirror//data", "raft", "mirror/a/b/data"} {
		if r, ok := ResourceOf(p); ok {
			t.Errorf("%s is of resource %q", p, r)
		}
	}
}
