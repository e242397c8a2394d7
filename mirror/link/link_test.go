package link

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hapair/mirror/block"
	"hapair/mirror/wire"
)

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
				r.alpha.Flush()
				r.beta.Send(b, wire.Message{Kind: wire.Ack, ID: id})
				r.beta.Flush()
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
			r.settle(r.alpha)
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
	r.alpha.Flush()
	r.alpha.Drop(a, errors.New("too late"))
	r.alpha.Send(a+1, wire.Message{Kind: wire.Flush, ID: 2})
	r.alpha.Flush()
	if m := r.bsink.want("message").m; m.ID != 2 {
		t.Fatal(&m)
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op)
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
		r.alpha.Flush()
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
		r.alpha.Flush()
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
		r.beta.Flush()
		r.alpha.Send(a, writeMessage(id, 4096))
		r.alpha.Flush()
	}
	text := []byte("split brain, both sides have written")
	r.alpha.Send(a, wire.Message{Kind: wire.Refuse, Status: wire.SplitBrain, Token: 9, Data: text})
	r.alpha.Flush()
	r.alpha.Send(a, wire.Message{Kind: wire.Flush})
	r.alpha.Flush()
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
	r.alpha.Flush()
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

// A session that is refused for good ends for that reason, not by a wish.
func TestRefuseSaysWhy(t *testing.T) {
	r := newRig(t, nil, nil)
	r.up()
	why := errors.New("both copies were written")
	r.beta.Refuse(why)
	if e := r.bsink.want("down"); !errors.Is(e.reason, why) {
		t.Fatal(e.reason)
	}
	r.asink.want("down")
	r.alpha.Disconnect()
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
			r.alpha.Flush()
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
		r.alpha.Flush()
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
	r.alpha.Flush()
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
