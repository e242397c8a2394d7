package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"hapair/mirror/wire"

	"golang.org/x/sys/unix"
)

// cutFlow has a TCP connection take nothing more off the network: no segment, no
// acknowledgement. The kernel drops what arrives before TCP sees it.
func cutFlow(t *testing.T, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const returnConstant = 0x06 // BPF_RET | BPF_K: so many bytes of it are kept
	nothing := []unix.SockFilter{{Code: returnConstant}}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]})
	}); err != nil || set != nil {
		t.Fatal(err, set)
	}
}

// flowRig is two links on TCP whose two ends the test has, and of which beta answers each message.
type flowRig struct {
	*rig
	mu  sync.Mutex
	far map[string]net.Conn
}

func newFlowRig(t *testing.T) *flowRig {
	f := &flowRig{far: map[string]net.Conn{}}
	f.rig = newRig(t, func(c *Config) { patient(c); c.PingInterval, c.Silence = 200*time.Millisecond, 500*time.Millisecond }, func(r *rig) {
		r.cable.far = func(c net.Conn, purpose string) net.Conn {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.far[purpose] = c
			return c
		}
		r.bsink.hook = func(session uint64, m *wire.Message) {
			r.beta.Send(session, wire.Message{Kind: wire.Ack, ID: m.ID})
			r.beta.Flush()
		}
	})
	return f
}

func (f *flowRig) end(purpose string, atBeta bool) net.Conn {
	if !atBeta {
		return f.cable.stream(purpose)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.far[purpose]
}

// keepAsking sends messages until ctx ends, and returns how many.
func (f *flowRig) keepAsking(ctx context.Context, session uint64) (n uint64) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ; ; n++ {
		f.alpha.Send(session, writeMessage(n, 4096))
		f.alpha.Flush()
		select {
		case <-ctx.Done():
			return n + 1
		case <-tick.C:
		}
	}
}

// One of the two flows is dead, the other is not: the session goes on over others, and
// every message was answered once, in order.
func TestDeadFlow(t *testing.T) {
	for _, c := range []struct {
		name, purpose string
		atBeta        bool
	}{{"data, to beta", DataPurpose("pg"), true}, {"data, to alpha", DataPurpose("pg"), false},
		{"control, to beta", ControlPurpose("pg"), true}, {"control, to alpha", ControlPurpose("pg"), false}} {
		t.Run(c.name, func(t *testing.T) {
			f := newFlowRig(t)
			a, _ := f.up()
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			asked := make(chan uint64, 1)
			go func() { asked <- f.keepAsking(ctx, a) }()
			for range 10 {
				f.asink.want("message")
			}
			begun := time.Now()
			cutFlow(t, f.end(c.purpose, c.atBeta))
			e, answered := f.asink.next(), uint64(10)
			for ; e.what == "message"; e = f.asink.next() {
				answered++
			}
			if took := time.Since(begun); took > 20*time.Second { // TCP itself takes longer
				t.Errorf("found after %s", took)
			} else {
				t.Logf("found after %s", took)
			}
			if why := f.bsink.want("moved").reason; e.what != "moved" || !errors.Is(e.reason, ErrSilent) && !errors.Is(why, ErrSilent) {
				t.Fatalf("%s %v, %v", e.what, e.reason, why)
			}
			stop()
			for n := <-asked; answered < n; answered++ {
				if m := f.asink.want("message").m; m.ID != answered {
					t.Fatalf("%s, wanted the answer to %d", &m, answered)
				}
			}
		})
	}
}

// What the kernel says of a data stream, at times: when is it a dead flow? Silence is 500 ms.
func TestOverdue(t *testing.T) {
	const ms = time.Millisecond
	type look struct {
		at      time.Duration
		f       sending
		overdue bool
	}
	for name, looks := range map[string][]look{
		"nothing is sent":             {{100 * ms, sending{false, 9000 * ms, 9000 * ms}, false}, {3000 * ms, sending{false, 12000 * ms, 12000 * ms}, false}},
		"the first after a long rest": {{100 * ms, sending{false, 9000 * ms, 9000 * ms}, false}, {200 * ms, sending{true, 9100 * ms, 1 * ms}, false}, {500 * ms, sending{true, 9400 * ms, 300 * ms}, false}},
		"nothing comes back, sent again at 300 and 700": {{100 * ms, sending{true, 50 * ms, 10 * ms}, false}, {600 * ms, sending{true, 550 * ms, 300 * ms}, false},
			{800 * ms, sending{true, 750 * ms, 100 * ms}, false}, {1200 * ms, sending{true, 1150 * ms, 500 * ms}, true}},
		"it was just sent again":                        {{100 * ms, sending{true, 50 * ms, 10 * ms}, false}, {2000 * ms, sending{true, 1950 * ms, 100 * ms}, false}, {2200 * ms, sending{true, 2150 * ms, 300 * ms}, true}},
		"acknowledged and not taken, sent again rarely": {{100 * ms, sending{true, 10 * ms, 10 * ms}, false}, {3000 * ms, sending{true, 2900 * ms, 2900 * ms}, false}, {6000 * ms, sending{true, 5900 * ms, 5904 * ms}, false}},
		"a stream that is busy":                         {{100 * ms, sending{true, 1 * ms, 0}, false}, {5000 * ms, sending{true, 3 * ms, 0}, false}},
	} {
		var v vigil
		for _, l := range looks {
			if got := v.overdue(l.f, l.at, 500*ms); got != l.overdue {
				t.Errorf("%s: at %s %v", name, l.at, got)
			}
		}
	}
}

// A peer that does not read is not gone: the kernel there still acknowledges what it
// does not take, in large frames or in many small ones.
func TestPeerThatDoesNotReadKeepsItsStreams(t *testing.T) {
	for payload, n := range map[int]uint64{64 << 10: 1200, 0: 60_000} { // more than the sockets take
		t.Run(fmt.Sprint(payload), func(t *testing.T) {
			f := newFlowRig(t)
			stalled, goOn := make(chan struct{}), make(chan struct{})
			answer, once := f.bsink.hook, sync.Once{}
			f.bsink.hook = func(session uint64, m *wire.Message) {
				once.Do(func() { close(stalled); <-goOn })
				answer(session, m)
			}
			a, _ := f.up()
			if err := f.end(DataPurpose("pg"), false).(*net.TCPConn).SetWriteBuffer(64 << 10); err != nil {
				t.Fatal(err)
			}
			f.ask(a, n, payload)
			<-stalled
			f.unmovedFor(4 * stuckSilences * f.alpha.cfg.Silence)
			close(goOn)
			for id := range n {
				if m := f.asink.want("message").m; m.ID != id {
					t.Fatalf("%s, wanted the answer to %d", &m, id)
				}
			}
		})
	}
}

// ask sends n messages, each by itself.
func (f *flowRig) ask(session, n uint64, payload int) {
	for id := range n {
		m := wire.Message{Kind: wire.Ack, ID: id}
		if payload > 0 {
			m = writeMessage(id, payload)
		}
		f.alpha.Send(session, m)
		f.alpha.Flush()
	}
}

// unmovedFor wants nothing to happen for d, while the sockets of alpha are full.
func (f *flowRig) unmovedFor(d time.Duration) {
	t := f.asink.t
	t.Helper()
	select {
	case e := <-f.asink.events:
		t.Errorf("%+v", e)
	case e := <-f.bsink.events:
		t.Errorf("%+v", e)
	case <-time.After(d): // it is itself what is tried
		if s := f.alpha.Stats(); s.QueuedMessages == 0 {
			t.Error("the sockets took everything")
		}
	}
}
