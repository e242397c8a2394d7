package peering

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"hapair/mirror/link"
	"hapair/mirror/wire"
)

// The mirror's link over peering, as the agent binds them.
type dialer struct {
	n    *Net
	peer string
}

func (d dialer) Dial(ctx context.Context, path, purpose string) (net.Conn, string, error) {
	c, err := d.n.Dial(ctx, d.peer, path, purpose)
	if err != nil {
		return nil, "", err
	}
	return c, c.Path, nil
}

type linkSink struct {
	up   chan string
	down chan error
	acks chan uint64
	link func() *link.Link
	echo bool
	num  chan uint64
	move chan string
}

func newLinkSink(echo bool) *linkSink {
	return &linkSink{up: make(chan string, 16), down: make(chan error, 16), acks: make(chan uint64, 16), num: make(chan uint64, 16), move: make(chan string, 16), echo: echo}
}

func (s *linkSink) Up(session uint64, path string) { s.num <- session; s.up <- path }
func (s *linkSink) Drained()                       {}

func (s *linkSink) Moved(_ uint64, _, to string, _ error)        { s.move <- to }
func (s *linkSink) Down(_ uint64, reason error, _ time.Duration) { s.down <- reason }
func (s *linkSink) Message(session uint64, m *wire.Message) {
	if s.echo {
		s.link().Send(session, wire.Message{Kind: wire.Ack, ID: m.ID})
		s.link().Flush()
		return
	}
	s.acks <- m.ID
}

func TestMirrorLinkOverPeering(t *testing.T) {
	bothModes(t, func(t *testing.T, mode Mode) {
		w := newWorld(t, mode, nil)
		asink, bsink := newLinkSink(false), newLinkSink(true)
		a := link.New(link.Config{Resource: "pg", Self: "alpha", Peer: "beta", Needs: dialer{w.alpha, "beta"}, Sink: asink, Silence: 5 * time.Second, Resume: 10 * time.Second})
		b := link.New(link.Config{Resource: "pg", Self: "beta", Peer: "alpha", Needs: dialer{w.beta, "alpha"}, Sink: bsink, Silence: 5 * time.Second, Resume: 10 * time.Second})
		bsink.link = func() *link.Link { return b }
		w.beta.Handle("mirror/pg", func(c *Conn) { b.Accept(c, c.Purpose) })
		b.Start()
		a.Start()
		ctx := testContext(t)
		defer func() {
			if err := errors.Join(a.Stop(ctx), b.Stop(ctx)); err != nil {
				t.Error(err)
			}
		}()
		send := func(session uint64) {
			t.Helper()
			for id := range uint64(100) {
				a.Send(session, wire.Message{Kind: wire.Write, ID: id, Length: 65536, Data: make([]byte, 65536)})
				a.Flush()
				if got := <-asink.acks; got != id {
					t.Fatalf("ack %d for %d", got, id)
				}
			}
		}
		if at, bt := <-asink.up, <-bsink.up; at != "crossover" || bt != "crossover" {
			t.Fatalf("up on %q and %q", at, bt)
		}
		session := <-asink.num
		send(session)
		begun := time.Now()
		w.alpha.PathDown("beta", "crossover", nil)
		if at, bt := <-asink.move, <-bsink.move; at != "lan" || bt != "lan" {
			t.Fatalf("moved to %q and %q", at, bt)
		}
		send(session)
		t.Logf("cable pulled to 100 writes over the other path: %s", time.Since(begun))
	})
}
