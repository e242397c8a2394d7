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

	"hapair/mirror/wire"
)

// Connections are lost at every place of a frame; the session goes on, and no
// message is lost, damaged or delivered twice.
func TestCutMidFrame(t *testing.T) {
	for _, after := range []int64{1, 63, 64, 65, 1000, 4159, 4160, 10000} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			first := true
			r := newRig(t, patient, func(r *rig) {
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
				r.alpha.Flush()
			}
			moved := false
			for want := uint64(0); want < 5; want++ {
				e := r.bsink.next()
				if e.what == "moved" && !moved {
					moved = true
					e = r.bsink.next()
				}
				if e.what != "message" || e.m.ID != want || !bytes.Equal(e.m.Data, writeMessage(want, 4096).Data) {
					t.Fatalf("%+v", e)
				}
			}
			if !moved {
				t.Fatal("nothing was cut")
			}
			r.asink.want("moved")
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
		if err := greet(near, &wire.Message{Kind: wire.Ping, ID: uint64(i)}); err != nil {
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
