package link

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hapair/mirror/wire"
)

// paced is an end of a stream over a path that carries so many bytes a second, and
// takes only a little more than it carries.
type paced struct {
	*pipeEnd
	rate   float64
	silent *atomic.Bool
}

// backlogMax is how much a path takes that it has not carried.
const backlogMax = unsentMax

// Write waits for the path, not under any lock of a bubble: a frame of the control stream
// is never too much.
func (p *paced) Write(b []byte) (int, error) {
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	if late := p.free.Sub(now) - time.Duration(backlogMax/p.rate*1e9); late > 0 {
		time.Sleep(late)
	}
	p.free = p.free.Add(time.Duration(float64(len(b)) / p.rate * 1e9))
	if p.silent != nil && p.silent.Load() {
		return len(b), nil
	}
	return p.pipeEnd.Write(b)
}

// pipeEnd is an end of a stream in a bubble: like one of net.Pipe, but with room.
type pipeEnd struct {
	in, out   *pipeHalf
	left      []byte
	free      time.Time // when what was written has arrived
	patience  time.Time // of a read, zero for ever
	closeOnce sync.Once
}

type pipeHalf struct {
	pieces chan piece
	over   chan struct{} // an end was closed
}

type piece struct {
	bytes   []byte
	arrives time.Time
}

func roomyPair() (net.Conn, net.Conn, error) {
	half := func() *pipeHalf { return &pipeHalf{pieces: make(chan piece, 1<<12), over: make(chan struct{})} }
	x, y := half(), half()
	return &pipeEnd{in: x, out: y}, &pipeEnd{in: y, out: x}, nil
}

func (e *pipeEnd) Write(b []byte) (int, error) {
	select {
	case <-e.out.over:
		return 0, net.ErrClosed
	case <-e.in.over:
		return 0, net.ErrClosed
	default:
	}
	e.out.pieces <- piece{bytes.Clone(b), e.free}
	return len(b), nil
}

func (e *pipeEnd) Read(b []byte) (int, error) {
	if len(e.left) == 0 {
		var late <-chan time.Time
		if !e.patience.IsZero() {
			late = time.After(time.Until(e.patience))
		}
		var p piece
		select {
		case p = <-e.in.pieces:
		case <-e.in.over:
			select {
			case p = <-e.in.pieces:
			default:
				return 0, io.EOF
			}
		case <-e.out.over:
			return 0, net.ErrClosed
		case <-late:
			return 0, os.ErrDeadlineExceeded
		}
		time.Sleep(time.Until(p.arrives))
		e.left = p.bytes
	}
	n := copy(b, e.left)
	e.left = e.left[n:]
	return n, nil
}

func (e *pipeEnd) Close() error {
	e.closeOnce.Do(func() { close(e.out.over) })
	return nil
}

func (e *pipeEnd) SetReadDeadline(t time.Time) error { e.patience = t; return nil }
func (e *pipeEnd) SetWriteDeadline(time.Time) error  { return nil }
func (e *pipeEnd) SetDeadline(t time.Time) error     { return e.SetReadDeadline(t) }
func (e *pipeEnd) LocalAddr() net.Addr               { return nil }
func (e *pipeEnd) RemoteAddr() net.Addr              { return nil }

// traffic is a stream of writes from alpha to beta, with so many bytes under way, in a
// bubble.
type traffic struct {
	*rig
	t       *testing.T
	rates   map[string]float64
	silent  map[string]*atomic.Bool
	session uint64
	window  chan struct{}

	last    time.Time     // when beta was given one
	gap     time.Duration // the longest without
	arrived uint64
}

const (
	trafficMessage = 64 << 10
	trafficWindow  = 128 // messages: 8 MiB
)

func newTraffic(t *testing.T, rates map[string]float64) *traffic {
	f := &traffic{t: t, rates: rates, silent: map[string]*atomic.Bool{}, window: make(chan struct{}, trafficWindow)}
	for path := range rates {
		f.silent[path] = new(atomic.Bool)
	}
	f.rig = newRig(t, func(c *Config) {
		c.Spread, c.Logger = true, nil
		c.PingInterval, c.Silence, c.Resume = 100*time.Millisecond, 500*time.Millisecond, DefaultResume
	}, func(r *rig) {
		r.cable.make = roomyPair
		r.cable.over = func(c net.Conn, path string) net.Conn {
			return &paced{pipeEnd: c.(*pipeEnd), rate: rates[path], silent: f.silent[path]}
		}
		r.bsink.hook = f.took
		r.asink.hook = func(uint64, *wire.Message) { <-f.window }
	})
	f.session, _ = f.up()
	f.last = time.Now()
	return f
}

// took is beta's: each must be the next.
func (f *traffic) took(session uint64, m *wire.Message) {
	if m.ID != f.arrived || len(m.Data) != trafficMessage || m.Data[0] != byte(m.ID) {
		f.t.Errorf("message %d of %d bytes in the place of %d", m.ID, len(m.Data), f.arrived)
	}
	f.arrived++
	f.gap = max(f.gap, time.Since(f.last))
	f.last = time.Now()
	f.beta.Send(session, wire.Message{Kind: wire.Ack, ID: m.ID, Token: m.Token})
	f.beta.Flush()
}

// send sends n writes and waits for the last acknowledgement; it returns bytes a second.
func (f *traffic) send(first, n uint64) float64 {
	begun := time.Now()
	for id := first; id < first+n; id++ {
		f.window <- struct{}{}
		f.alpha.Send(f.session, writeMessage(id, trafficMessage))
		f.alpha.Flush()
	}
	for range trafficWindow { // all are back
		f.window <- struct{}{}
	}
	took := time.Since(begun)
	for range trafficWindow {
		<-f.window
	}
	return float64(n*trafficMessage) / took.Seconds()
}

// With a lane it goes as fast as both paths together, or nearly; a path that is much
// slower does not slow the other one down.
func TestLanesAddUp(t *testing.T) {
	for name, c := range map[string]struct{ crossover, lan, atLeast float64 }{
		"alike":            {100e6, 100e6, 1.6 * 100e6},
		"half":             {100e6, 50e6, 1.2 * 100e6},
		"a tenth":          {100e6, 10e6, 100e6},
		"a hundredth":      {100e6, 1e6, 0.6 * 100e6},
		"ten times":        {10e6, 100e6, 30e6},
		"slow, both alike": {5e6, 5e6, 1.6 * 5e6},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newTraffic(t, map[string]float64{"crossover": c.crossover, "lan": c.lan})
				const n = 800
				one := f.send(0, n)
				if err := f.spread("lan"); err != nil {
					t.Fatal(err)
				}
				f.awaitLanes(1)
				both := f.send(n, n)
				out, _ := bytesOver(f.alpha, "lan")
				t.Logf("%.1f MB/s over one path, %.1f over both; %.0f%% over the lane; at most %s between two", one/1e6, both/1e6, 100*float64(out)/n/trafficMessage, f.gap)
				if both < c.atLeast {
					t.Errorf("%.1f MB/s over both, wanted %.1f", both/1e6, c.atLeast/1e6)
				}
				if f.arrived != 2*n || len(f.asink.events)+len(f.bsink.events) > 0 {
					t.Errorf("%d arrived; events %d, %d", f.arrived, len(f.asink.events), len(f.bsink.events))
				}
			})
		})
	}
}

// A lane that goes silent, or the path of the data stream: the session goes on over what is left,
// nothing waits for longer than a cut would have it, and nothing is lost.
func TestSilentLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newTraffic(t, map[string]float64{"crossover": 100e6, "lan": 50e6})
		if err := f.spread("lan"); err != nil {
			t.Fatal(err)
		}
		f.awaitLanes(1)
		f.send(0, 1000)
		f.gap = 0
		time.AfterFunc(200*time.Millisecond, func() { f.silent["lan"].Store(true) })
		f.send(1000, 3000)
		if f.gap < gapSteps*gapStep || f.gap > 320*time.Millisecond {
			t.Errorf("%s without a message", f.gap)
		}
		if e := f.bsink.want("moved"); !errors.Is(e.reason, ErrSilent) {
			t.Errorf("%+v", e)
		}
		if s := f.alpha.Stats(); s.Session != f.session || f.arrived != 4000 {
			t.Errorf("%d arrived, %+v", f.arrived, s)
		}
		if err := f.alpha.Spread(t.Context(), []string{"lan"}); err != nil {
			t.Fatal(err)
		}
		f.awaitLanes(0) // it is held
	})
}

// Streams break at any moment, of the path that has the order as of the lanes: each message
// arrives once, in its place, in one session.
func TestSpreadWhateverBreaks(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newTraffic(t, map[string]float64{"crossover": 100e6, "lan": 60e6, "third": 30e6})
				dice := rand.New(rand.NewPCG(seed, 5))
				done, idle := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(idle)
					for {
						f.spread("lan", "third") //nolint:errcheck // what breaks at once is what is tried
						select {
						case <-time.After(time.Duration(dice.IntN(100_000)) * time.Microsecond):
						case <-done:
							return
						}
						purpose := []string{DataPurpose("pg"), ControlPurpose("pg"), "lan " + DataPurpose("pg"), "third " + DataPurpose("pg")}[dice.IntN(4)]
						if c := f.cable.stream(purpose); c != nil {
							c.Close() //nolint:errcheck // it may be closed already
						}
					}
				}()
				const n = 1500
				f.send(0, n)
				close(done)
				<-idle
				lan, _ := bytesOver(f.alpha, "lan")
				third, _ := bytesOver(f.alpha, "third")
				moves := len(f.bsink.events)
				t.Logf("%d moves, %d and %d of %d MiB over lanes", moves, lan>>20, third>>20, n*trafficMessage>>20)
				if s := f.alpha.Stats(); s.Session != f.session || f.arrived != n || moves < 5 || lan+third < 5<<20 {
					t.Errorf("%d arrived, %+v", f.arrived, s)
				}
			})
		})
	}
}

// Nobody takes what a lane has brought while the data stream is behind: what waits is
// bounded, and all of it comes in the end.
func TestInboxIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInbox()
		put := 0
		go func() {
			m := writeMessage(1, 1<<20)
			for b.put(&m) {
				put++
			}
		}()
		synctest.Wait()
		if put*(1<<20) < inboxBytes || put*(1<<20) > inboxBytes+1<<20 {
			t.Fatalf("%d MiB are in", put)
		}
		var m wire.Message
		for range 100 {
			if ok, err := b.take(&m); !ok || err != nil {
				t.Fatal(ok, err)
			}
			synctest.Wait()
		}
		why := errors.New("over")
		b.fail(why)
		synctest.Wait()
		if ok, err := b.take(&m); ok || !errors.Is(err, why) {
			t.Fatal(ok, err)
		}
	})
}
