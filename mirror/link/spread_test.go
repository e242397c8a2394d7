package link

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"hapair/mirror/wire"
)

// spreading is for sessions that go over all paths there are.
func spreading(c *Config) { patient(c); c.Spread = true }

// spread opens the lanes that are missing, whatever broke just before.
func (r *rig) spread(paths ...string) error {
	r.alpha.mu.Lock()
	r.alpha.mu.hold = hold{}
	r.alpha.mu.Unlock()
	return r.alpha.Spread(r.asink.t.Context(), paths)
}

// awaitLanes waits until both ends use so many lanes.
func (r *rig) awaitLanes(want int) {
	r.asink.t.Helper()
	for _, l := range []*Link{r.alpha, r.beta} {
		s := l.live()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // polled: a lane opens without a word
			s.mu.Lock()
			have := len(s.mu.lanes)
			on := s.mu.split.on
			s.mu.Unlock()
			if have == want && on == (want > 0) {
				break
			}
			if time.Now().After(deadline) {
				r.asink.t.Fatalf("%d lanes, wanted %d", have, want)
			}
		}
	}
}

func bytesOver(l *Link, path string) (out, in uint64) {
	for _, p := range l.Stats().Paths {
		if p.Path == path {
			return p.BytesOut, p.BytesIn
		}
	}
	return 0, 0
}

// Whatever breaks, whenever, over however many paths: every message arrives once, in
// order, on both ends, in one session. Over sockets; how much goes over which is a matter
// of TestSpreadWhateverBreaks.
func TestSpreadArrivesOnce(t *testing.T) {
	var broke atomic.Int64
	for name, prepare := range map[string]func(r *rig, dice *rand.Rand){
		"writev": func(*rig, *rand.Rand) {},
		"copied, cut in the middle of frames": func(r *rig, dice *rand.Rand) {
			short := func(c net.Conn, _ string) net.Conn {
				return &cutter{Conn: c, left: int64(1_000_000 + dice.IntN(10_000_000))}
			}
			r.cable.wrap, r.cable.far = short, short
			r.cable.over = func(c net.Conn, _ string) net.Conn { return &slowWrites{c} }
		},
	} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				dice := rand.New(rand.NewPCG(seed, 3))
				r := newRig(t, spreading, func(r *rig) { prepare(r, dice) })
				a, b := r.up()
				done, idle := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(idle)
					for {
						r.spread("lan", "third", "crossover") //nolint:errcheck // what breaks at once is what is tried
						select {
						case <-done:
							return
						case <-time.After(2 * time.Millisecond):
						}
					}
				}()
				const n = 600
				go r.sendSeries(r.alpha, a, n, seed)
				go r.sendSeries(r.beta, b, n, seed+1000)
				broke.Add(int64(r.receiveMany(n)))
				close(done)
				<-idle
			})
		}
	}
	if t.Logf("the sessions moved %d times", broke.Load()); broke.Load() < 10 {
		t.Error("too seldom to prove much")
	}
}

// sendSeries sends n messages, many at once, and breaks a stream now and then.
func (r *rig) sendSeries(l *Link, session uint64, n, seed uint64) {
	dice := rand.New(rand.NewPCG(seed, 4))
	for id := range n {
		m := wire.Message{Kind: wire.Ack, ID: id}
		if dice.IntN(4) > 0 {
			m = writeMessage(id, 512<<dice.IntN(9))
		}
		l.Send(session, m)
		if dice.IntN(20) == 0 || id == n-1 {
			l.Flush()
		}
		if dice.IntN(100) == 0 {
			l.Flush()
			path := []string{"crossover", "lan", "third"}[dice.IntN(3)]
			if c := r.cable.stream(path + " " + DataPurpose("pg")); c != nil {
				c.Close() //nolint:errcheck // it may be closed already
			}
		}
	}
}

// A peer that is not to go over several paths, or of a release that cannot, is not
// asked to.
func TestSpreadIsOfBoth(t *testing.T) {
	for name, both := range map[string]struct{ alpha, beta bool }{"only alpha": {true, false}, "only beta": {false, true}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { patient(c); c.Spread = both.alpha }, func(r *rig) { r.bconfig = func(c *Config) { c.Spread = both.beta } })
			r.up()
			if err := r.spread("lan"); err != nil {
				t.Fatal(err)
			}
			r.cable.mu.Lock()
			dialed := r.cable.conns["lan "+DataPurpose("pg")]
			r.cable.mu.Unlock()
			if dialed != nil {
				t.Fatal("a lane was dialed")
			}
		})
	}
}

// slowWrites takes as long for what it is given as a path of a gigabit.
type slowWrites struct{ net.Conn }

func (c *slowWrites) Write(b []byte) (int, error) {
	time.Sleep(time.Duration(len(b)) * 8) // this is the path
	return c.Conn.Write(b)
}
