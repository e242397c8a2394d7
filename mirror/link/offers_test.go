package link

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"hapair/mirror/wire"
)

// Offers of streams that cross: what the accepting node finds while it takes another one.

// hooked runs something before the first write.
type hooked struct {
	net.Conn
	once sync.Once
	hook func()
}

func (h *hooked) Write(b []byte) (int, error) {
	h.once.Do(h.hook)
	return h.Conn.Write(b)
}

// offer is what the dialing node would offer for the session at beta; hook runs while beta answers.
func (r *rig) offer(nonce, arrived uint64, hook func()) (p *pair, nearData, nearControl net.Conn) {
	t := r.asink.t
	t.Helper()
	ends := [4]net.Conn{}
	for i := 0; i < len(ends); i += 2 {
		near, far, err := tcpPair()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { near.Close() }) //nolint:errcheck // its other end may be closed
		ends[i], ends[i+1] = near, far
	}
	return &pair{data: ends[1], control: &hooked{Conn: ends[3], hook: hook}, path: "lan", nonce: nonce, resumes: true,
		joins: true, session: r.beta.live().nonce, arrived: arrived}, ends[0], ends[2]
}

// goesOn wants both ends to have moved to streams of alpha's, and messages to pass in the
// session as before.
func (r *rig) goesOn(a, b uint64) {
	t := r.asink.t
	t.Helper()
	r.asink.want("moved")
	if e := r.bsink.want("moved"); e.path != "crossover" {
		t.Fatalf("%+v", e)
	}
	r.alpha.Send(a, wire.Message{Kind: wire.Ack, ID: 77})
	r.alpha.Flush()
	r.beta.Send(b, wire.Message{Kind: wire.Ack, ID: 78})
	r.beta.Flush()
	if am, bm := r.asink.want("message").m, r.bsink.want("message").m; am.ID != 78 || bm.ID != 77 {
		t.Fatalf("%s, %s", &am, &bm)
	}
}

// The next offer is there before the one that is answered is taken: it is the better one,
// and taken at once, not when the other one ends by itself.
func TestOfferBesideAnother(t *testing.T) {
	r := newRig(t, patient, nil)
	a, b := r.up()
	r.cable.cut(true) // alpha's own offers come later
	second, data, control := r.offer(12, 0, func() {})
	s := r.beta.live()
	first, _, _ := r.offer(11, 0, func() {
		if !s.goOn(second) {
			t.Error("the second offer was refused")
		}
	})
	r.beta.rejoin(first)
	r.bsink.want("moved")
	for _, near := range []net.Conn{data, control} {
		if m, err := hear(near, wire.Pong, 10*time.Second); err != nil || m.ID != 12 || m.Token&isResuming == 0 {
			t.Fatalf("the second offer: %s, %v", &m, err)
		}
	}
	r.bsink.want("moved")
	r.cable.cut(false)
	r.goesOn(a, b)
}

// What is found beside the offer that is answered was made before it: it is closed, and the
// session goes on over the one that the peer uses.
func TestOldOfferBesideAnother(t *testing.T) {
	r, _, b := tenArrived(t)
	r.cable.cut(true)
	s := r.beta.live()
	s.confirmed(5)
	old, closed, _ := r.offer(12, 5, func() {})
	used, data, _ := r.offer(11, 10, func() {
		if !s.goOn(old) {
			t.Error("the old offer was refused")
		}
	})
	r.beta.rejoin(used)
	if m, err := hear(data, wire.Pong, 10*time.Second); err != nil || m.ID != 11 {
		t.Fatalf("%s, %v", &m, err)
	}
	if m, err := hear(closed, wire.Pong, 10*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the old offer: %s, %v", &m, err)
	}
	r.bsink.want("moved")
	r.beta.Send(b, wire.Message{Kind: wire.Ack, ID: 10})
	r.beta.Flush()
	if m, err := hear(data, wire.Ack, 10*time.Second); err != nil || m.ID != 10 {
		t.Fatalf("%s, %v", &m, err)
	}
}

// An offer lacks what the peer has said, meanwhile, that it has: it is an old one, no lie,
// and the next one is waited for.
func TestOfferOvertaken(t *testing.T) {
	r, a, b := tenArrived(t)
	s := r.beta.live()
	old, _, _ := r.offer(9, 5, func() { s.confirmed(10) })
	r.beta.rejoin(old)
	r.goesOn(a, b)
}

// tenArrived is a rig in whose session ten messages of beta have arrived, which alpha has not
// said.
func tenArrived(t *testing.T) (r *rig, a, b uint64) {
	t.Helper()
	r = newRig(t, unsaid, nil)
	a, b = r.up()
	r.pinged(r.alpha)
	r.pinged(r.beta)
	for id := range uint64(10) {
		r.beta.Send(b, wire.Message{Kind: wire.Ack, ID: id})
		r.beta.Flush()
		r.asink.want("message")
	}
	r.settle(r.beta)
	return r, a, b
}

// unsaid is for tests in which an end says what has arrived at the beginning only: once pinged.
func unsaid(c *Config) { patient(c); c.PingInterval = time.Hour }

// pinged waits until a ping of l's was answered.
func (r *rig) pinged(l *Link) {
	t := r.asink.t
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); l.Stats().Paths[0].RoundTrip == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no ping was answered")
		}
	}
}
