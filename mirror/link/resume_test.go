package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"hapair/mirror/wire"
)

// patient is for tests in which the machine may be busy and the session must live.
func patient(c *Config) { c.Resume = 10 * time.Second }

// Whatever breaks, whenever: every message arrives once, in order, on both ends,
// in one session.
func TestEveryMessageArrivesOnce(t *testing.T) {
	var broke atomic.Int64
	defer func() {
		if t.Logf("the sessions moved %d times", broke.Load()); broke.Load() < 20 {
			t.Error("too seldom to prove much")
		}
	}()
	for name, prepare := range map[string]func(r *rig, dice *rand.Rand){
		"writev": func(*rig, *rand.Rand) {},
		"copied, cut in the middle of frames": func(r *rig, dice *rand.Rand) {
			short := func(c net.Conn, _ string) net.Conn {
				return &cutter{Conn: c, left: int64(200 + dice.IntN(300_000))}
			}
			r.cable.wrap, r.cable.far = short, short
		},
	} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				dice := rand.New(rand.NewPCG(seed, 1))
				r := newRig(t, patient, func(r *rig) { prepare(r, dice) })
				a, b := r.up()
				const n = 500
				go r.sendMany(r.alpha, a, n, seed)
				go r.sendMany(r.beta, b, n, seed+1000)
				broke.Add(int64(r.receiveMany(n)))
			})
		}
	}
}

// sendMany sends n messages, and breaks a stream now and then.
func (r *rig) sendMany(l *Link, session uint64, n, seed uint64) {
	dice := rand.New(rand.NewPCG(seed, 2))
	for id := range n {
		m := wire.Message{Kind: wire.Ack, ID: id}
		if dice.IntN(2) == 0 {
			m = writeMessage(id, 512<<dice.IntN(8))
		}
		l.Send(session, m)
		if dice.IntN(3) == 0 || id == n-1 {
			l.Flush()
		}
		if dice.IntN(50) == 0 {
			l.Flush()
			r.settle(l)
			purpose := []string{DataPurpose("pg"), ControlPurpose("pg")}[dice.IntN(2)]
			r.cable.stream(purpose).Close() //nolint:errcheck // it may be closed already
		}
	}
}

// receiveMany takes n messages at each end and returns how often the session
// moved.
func (r *rig) receiveMany(n uint64) (moves int) {
	t := r.asink.t
	t.Helper()
	for _, s := range []*sink{r.asink, r.bsink} {
		for want := uint64(0); want < n; {
			e := s.next()
			switch {
			case e.what == "moved":
				moves++
				continue
			case e.what != "message" || e.m.ID != want:
				t.Fatalf("%s: %s %d (%v), wanted message %d", s.name, e.what, e.m.ID, e.reason, want)
			case e.m.Kind == wire.Write && !bytes.Equal(e.m.Data, writeMessage(want, len(e.m.Data)).Data):
				t.Fatalf("%s: message %d is damaged", s.name, want)
			}
			want++
		}
	}
	return moves
}

// A path is left for another one under traffic: streams over it stand before the
// old ones go, and the counters say so.
func TestMove(t *testing.T) {
	r := newRig(t, patient, nil)
	a, b := r.up()
	for round, path := range []string{"lan", "crossover", "lan"} {
		if err := r.alpha.Move(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*sink{r.asink, r.bsink} {
			if e := s.want("moved"); e.path != path || s == r.asink && !errors.Is(e.reason, errMoving) {
				t.Fatalf("%+v", e)
			}
		}
		r.alpha.Send(a, writeMessage(uint64(round), 4096))
		r.alpha.Flush()
		r.beta.Send(b, wire.Message{Kind: wire.Ack, ID: uint64(round)})
		r.beta.Flush()
		if am, bm := r.asink.want("message").m, r.bsink.want("message").m; am.ID != uint64(round) || bm.ID != uint64(round) {
			t.Fatalf("%s, %s", &am, &bm)
		}
	}
	if err := r.alpha.Move(t.Context(), "lan"); err != nil { // there already
		t.Fatal(err)
	}
	if err := r.beta.Move(t.Context(), "crossover"); !errors.Is(err, ErrCannotMove) {
		t.Fatal(err)
	}
	r.settle(r.alpha)
	st := r.alpha.Stats()
	if st.Path != "lan" || st.Session != a || st.Broken || len(st.Paths) != 2 || st.Paths[0].Resumed != 1 || st.Paths[1].Resumed != 2 {
		t.Fatalf("%+v", st)
	}
}

// Leave gives up what goes over that path, and nothing that goes over another.
func TestLeave(t *testing.T) {
	r := newRig(t, patient, nil)
	r.up()
	r.alpha.Leave("lan", errors.New("not used"))
	why := errors.New("large frames vanish")
	r.beta.Leave("crossover", why)
	if e := r.bsink.want("moved"); !errors.Is(e.reason, why) {
		t.Fatal(e.reason)
	}
	r.asink.want("moved")
}

// What the peer has is not kept for it.
func TestConfirmedIsForgotten(t *testing.T) {
	r := newRig(t, func(c *Config) { patient(c); c.PingInterval = time.Millisecond }, nil)
	a, _ := r.up()
	for id := range uint64(1000) {
		r.alpha.Send(a, wire.Message{Kind: wire.Ack, ID: id})
		r.alpha.Flush()
		r.bsink.want("message")
	}
	s := r.alpha.live()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		kept, base := len(s.mu.resume.history), s.mu.resume.base
		s.mu.Unlock()
		if kept == 0 && base == 1000 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d are kept, %d forgotten", kept, base)
		}
	}
}

// A peer that began anew knows nothing of the session: it ends, it is not joined
// to another one.
func TestRestartedPeerResumesNothing(t *testing.T) {
	r := newRig(t, patient, nil)
	a, _ := r.up()
	r.alpha.Send(a, writeMessage(1, 4096))
	r.alpha.Flush()
	r.bsink.want("message")
	if err := r.beta.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.bsink.want("down")
	fresh := New(Config{Resource: "pg", Self: "beta", Peer: "alpha", Needs: r.cable, Sink: r.bsink})
	r.cable.mu.Lock()
	r.cable.other = fresh
	r.cable.mu.Unlock()
	defer fresh.Stop(context.Background()) //nolint:errcheck // it has nothing that could fail
	fresh.Start()
	if e := r.asink.want("down"); errors.Is(e.reason, ErrProtocol) {
		t.Fatal(e.reason)
	}
	if again, _ := r.up(); again == a {
		t.Fatal("the same session")
	}
}

// Nobody answers: the session ends after Resume, and says how long it was tried.
func TestResumeIsBounded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Resume = 50 * time.Millisecond }, nil)
	r.up()
	r.cable.cut(true)
	begun := time.Now()
	r.cable.stream(DataPurpose("pg")).Close() //nolint:errcheck // that it ends is what counts
	r.asink.want("down")
	r.bsink.want("down")
	if took := time.Since(begun); took < 50*time.Millisecond {
		t.Fatalf("given up after %s", took)
	}
}

// A release that does not resume is not waited for.
func TestEarlierRelease(t *testing.T) {
	s := newSink(t, "beta")
	l := New(Config{Resource: "pg", Self: "beta", Peer: "alpha", Needs: &cable{t: t}, Sink: s, Resume: time.Hour})
	l.Start()
	defer l.Stop(context.Background()) //nolint:errcheck // it has nothing that could fail
	var ends []net.Conn
	for _, purpose := range []string{DataPurpose("pg"), ControlPurpose("pg")} {
		near, far, err := tcpPair()
		if err != nil {
			t.Fatal(err)
		}
		l.Accept(onPath{far, "lan"}, purpose)
		if err := greet(near, &wire.Message{Kind: wire.Ping, ID: 7}); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, near)
	}
	s.want("up")
	for _, near := range ends {
		if m, err := hear(near, wire.Pong, time.Second); err != nil || m.Offset != 0 || m.Length != 0 {
			t.Fatal(m, err)
		}
		if err := near.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if e := s.want("down"); !errors.Is(e.reason, ErrPeerClosed) && !isReset(e.reason) {
		t.Fatal(e.reason)
	}
}

// A peer that claims to have what was never sent, or to lack what it had, is not
// believed.
func TestRewind(t *testing.T) {
	for _, c := range []struct {
		arrived uint64
		again   int
		queued  []uint64
	}{{10, 3, []uint64{10, 11, 12, 13, 14}}, {12, 1, []uint64{12, 13, 14}}, {13, 0, []uint64{13, 14}}, {9, -1, nil}, {14, -1, nil}} {
		s := &session{}
		s.mu.resume.able, s.mu.resume.base = true, 10
		s.mu.resume.history = []wire.Message{{ID: 10}, {ID: 11}}
		batch := []wire.Message{{ID: 12}, {ID: 13}}
		o := &outflow{batch: batch, part: batch[:1], next: 1}
		s.mu.queue = []wire.Message{{ID: 14}}
		again, err := s.rewindLocked(o, c.arrived)
		if c.again < 0 {
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("%d: %v", c.arrived, err)
			}
			continue
		}
		var ids []uint64
		for _, m := range s.mu.queue {
			ids = append(ids, m.ID)
		}
		if err != nil || again != c.again || fmt.Sprint(ids) != fmt.Sprint(c.queued) || s.mu.messages != len(ids) || s.mu.bytes != int64(len(ids)*wire.HeaderBytes) {
			t.Errorf("%d: again %d, queued %v, %v", c.arrived, again, ids, err)
		}
	}
}

// An offer that the peer has given up is taken late, and nothing is sent over it: what had
// arrived over the strand before is no surprise.
func TestRewindTwice(t *testing.T) {
	s := &session{}
	s.mu.resume.able = true
	s.mu.resume.history = []wire.Message{{ID: 0}, {ID: 1}, {ID: 2}}
	s.mu.queue = []wire.Message{{ID: 3}}
	for _, c := range []struct {
		arrived uint64
		again   int
		first   uint64
	}{{0, 3, 0}, {2, 1, 2}, {3, 0, 3}} {
		again, err := s.rewindLocked(&outflow{}, c.arrived)
		if err != nil || again != c.again || s.mu.queue[0].ID != c.first || len(s.mu.queue) != int(4-c.first) || s.mu.messages != len(s.mu.queue) {
			t.Fatalf("%d: again %d, queued %v, %v", c.arrived, again, s.mu.queue, err)
		}
	}
	if _, err := s.rewindLocked(&outflow{}, 4); !errors.Is(err, ErrProtocol) {
		t.Fatalf("what was never sent: %v", err)
	}
}

// Streams that the peer offered before others which it uses are found late: they are
// closed, and the session goes on over those.
func TestOldOfferIsClosed(t *testing.T) {
	r := newRig(t, func(c *Config) { patient(c); c.PingInterval = time.Millisecond }, nil)
	_, b := r.up()
	for id := range uint64(10) {
		r.beta.Send(b, wire.Message{Kind: wire.Ack, ID: id})
		r.beta.Flush()
		r.asink.want("message")
	}
	s := r.beta.live()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		base := s.mu.resume.base
		s.mu.Unlock()
		if base == 10 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d are confirmed", base)
		}
	}
	near, far, err := tcpPair()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close() //nolint:errcheck // its other end is closed
	r.beta.rejoin(&pair{data: far, control: far, path: "lan", nonce: 9, joins: true, session: s.nonce, arrived: 9})
	if _, err := near.Read(make([]byte, 1)); err == nil {
		t.Fatal("it was answered")
	}
	r.beta.Send(b, wire.Message{Kind: wire.Ack, ID: 10})
	r.beta.Flush()
	r.asink.want("message") // and not moved
}

// Streams for a session that is over, late, find that out, and the one that lives
// does not notice.
func TestLateResumeIsRefused(t *testing.T) {
	r := newRig(t, patient, nil)
	a, _ := r.up()
	var ends []net.Conn
	for _, purpose := range []string{DataPurpose("pg"), ControlPurpose("pg")} {
		near, far, err := tcpPair()
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close() //nolint:errcheck // it may be closed already
		r.beta.Accept(onPath{far, "lan"}, purpose)
		if err := greet(near, &wire.Message{Kind: wire.Ping, ID: 9, Token: canResume | isResuming, Offset: r.alpha.live().nonce + 1}); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, near)
	}
	for _, near := range ends {
		if m, err := hear(near, wire.Pong, 20*time.Second); err != nil || m.Token&isGone == 0 {
			t.Fatal(&m, err)
		}
	}
	r.alpha.Send(a, writeMessage(1, 4096))
	r.alpha.Flush()
	if m := r.bsink.want("message").m; m.ID != 1 {
		t.Fatal(&m)
	}
}

// Streams of a Move that nobody answers any more, because the session broke beside
// it, are not what it ends by, nor are they kept for the next time.
func TestMoveBesideABreak(t *testing.T) {
	r := newRig(t, patient, nil)
	a, _ := r.up()
	near, far, err := tcpPair()
	if err != nil {
		t.Fatal(err)
	}
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	s := r.alpha.live()
	s.mu.Lock()
	s.mu.resume.next = &pair{data: near, control: near, path: "lan", nonce: 5} // put there, and then another strand was adopted
	s.mu.Unlock()
	r.cable.stream(DataPurpose("pg")).Close() //nolint:errcheck // that it ends is what counts
	if e := r.asink.want("moved"); e.path != "crossover" {
		t.Fatalf("%+v", e)
	}
	r.bsink.want("moved")
	s.mu.Lock()
	left := s.mu.resume.next
	s.mu.Unlock()
	if left != nil {
		t.Fatal("kept")
	}
	r.alpha.Send(a, writeMessage(1, 512))
	r.alpha.Flush()
	r.bsink.want("message")
}
