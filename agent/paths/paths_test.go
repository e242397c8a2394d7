package paths

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"hapair/agent/paths/choose"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// road is a path between a watch and a peer that answers.
type road struct {
	narrow atomic.Bool // nothing that is longer than a header gets through
	old    atomic.Bool // the peer's release is an earlier one
	dials  atomic.Int64
}

// end is the watch's end of a stream on it.
type end struct {
	net.Conn
	r *road
}

func (e end) SegmentBytes() int { return 100 }

func (e end) Write(b []byte) (int, error) {
	if e.r.narrow.Load() && len(b) > headerBytes {
		return len(b), nil // a kernel takes it, too
	}
	return e.Conn.Write(b)
}

func (r *road) dial() (Stream, error) {
	r.dials.Add(1)
	if r.old.Load() {
		return nil, errors.Join(ErrUnasked, errors.New("nothing handles it"))
	}
	near, far := net.Pipe()
	go Answer(far) //nolint:errcheck // it ends with the stream
	return end{near, r}, nil
}

type rig struct {
	t       *testing.T
	w       *Watch
	roads   map[string]*road
	changes chan choose.Change
}

func newRig(t *testing.T) *rig {
	g := &rig{t: t, roads: map[string]*road{"crossover": {}, "lan": {}}, changes: make(chan choose.Change, 1000)}
	begin := time.Now()
	g.w = New(Config{Peer: "beta", Paths: []string{"crossover", "lan"}, Logger: zaptest.NewLogger(t), Clock: func() time.Duration { return time.Since(begin) },
		Dial: func(_ context.Context, path string) (Stream, error) { return g.roads[path].dial() },
		Changed: func(all []choose.Change) {
			for _, c := range all {
				g.changes <- c
			}
		},
		Choose: choose.Config{Hold: 50 * time.Millisecond}})
	t.Cleanup(g.w.Stop)
	return g
}

// await waits until a path has become what is wanted.
func (g *rig) await(path string, s choose.State) {
	g.t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case c := <-g.changes:
			if c.Path == path && c.Now == s {
				return
			}
		case <-timeout:
			g.t.Fatalf("%s has not become %s", path, s)
		}
	}
}

// A path that loses its large frames is left and, when it has them again, taken
// again; streams are opened anew meanwhile.
func TestPathThatIsTooNarrow(t *testing.T) {
	g := newRig(t)
	g.w.Start()
	g.await("crossover", choose.Good)
	g.roads["crossover"].narrow.Store(true)
	g.await("crossover", choose.Bad)
	if better := g.w.Better("lan"); better == "crossover" {
		t.Fatal("a bad path is better")
	}
	for n := g.roads["crossover"].dials.Load(); g.roads["crossover"].dials.Load() < n+2; {
		time.Sleep(10 * time.Millisecond) // polled: nobody announces a dial
	}
	g.roads["crossover"].narrow.Store(false)
	g.await("crossover", choose.Held)
	g.await("crossover", choose.Good)
	views, _ := g.w.Views()
	if views[0].Path != "crossover" || views[0].RoundTrip <= 0 || views[0].Losses == 0 {
		t.Fatalf("%+v", views)
	}
	for g.w.Preferred() != "crossover" || g.w.Better("lan") != "crossover" || g.w.Better("crossover") != "" {
		g.await("crossover", choose.Good) // this machine may be so busy that it was lost meanwhile
	}
}

// The heartbeat's word counts, and a peer of an earlier release is believed by it.
func TestHeartbeatAndEarlierRelease(t *testing.T) {
	g := newRig(t)
	for _, r := range g.roads {
		r.old.Store(true)
	}
	g.w.Start()
	g.await("crossover", choose.Good)
	g.w.Reach("crossover", false, "no carrier")
	g.await("crossover", choose.Bad)
	g.w.Reach("crossover", true, "")
	g.await("crossover", choose.Good)
	if n := g.roads["crossover"].dials.Load(); n != 1 {
		t.Fatalf("an earlier release was asked %d times", n)
	}
}

func TestQuestions(t *testing.T) {
	for _, size := range []int{0, headerBytes, 2896, maxBytes, maxBytes + 1} {
		q := appendQuestion(nil, size, 42)
		buf := make([]byte, maxBytes)
		whole, sent, err := readQuestion(bytes.NewReader(q), buf)
		if err != nil || sent != 42 || !bytes.Equal(whole, q) || len(q) > maxBytes || len(q) < min(size, maxBytes) {
			t.Errorf("%d bytes: %d, %v", size, len(q), err)
		}
	}
}

func FuzzQuestion(f *testing.F) {
	f.Add(appendQuestion(nil, 100, 7))
	f.Add([]byte(magic + "\xff\xff\xff\xff12345678"))
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, sent, err := readQuestion(bytes.NewReader(b), make([]byte, maxBytes))
		if err != nil {
			return
		}
		if again := appendQuestion(nil, len(whole), sent); !bytes.Equal(again[:headerBytes], whole[:headerBytes]) || len(again) != len(whole) {
			t.Fatalf("%x became %x", whole[:headerBytes], again[:headerBytes])
		}
	})
}
