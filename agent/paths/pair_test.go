package paths

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hapair/agent/paths/choose"
)

// land is two nodes that watch the paths between them, each by its own lights, and
// close what goes over one that they find bad, as an agent does.
type land struct {
	begin time.Time
	watch map[string]*Watch

	mu      sync.Mutex
	streams map[*lane]struct{}
	dials   map[*dial]struct{}
	dice    *rand.Rand
}

// lane is a stream there; dial one that is to be.
type lane struct {
	path, from string
	near, far  net.Conn
}

type dial struct {
	path, from string
	cancel     context.CancelFunc
}

var other = map[string]string{"alpha": "beta", "beta": "alpha"}

func newLand(seed uint64) *land {
	l := &land{dice: rand.New(rand.NewPCG(seed, 1)), begin: time.Now(), watch: map[string]*Watch{}, streams: map[*lane]struct{}{}, dials: map[*dial]struct{}{}}
	for node, peer := range other {
		l.watch[node] = New(Config{Peer: peer, Paths: []string{"crossover", "lan"}, Clock: func() time.Duration { return time.Since(l.begin) },
			Dial:    func(ctx context.Context, path string) (Stream, error) { return l.dial(ctx, node, path) },
			Changed: func(all []choose.Change) { l.changed(node, all) }})
	}
	return l
}

// dial opens a stream, unless its path is found bad meanwhile. It takes as long as on
// a busy machine, where two certificates are proven slowly.
func (l *land) dial(ctx context.Context, from, path string) (Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &dial{path, from, cancel}
	l.mu.Lock()
	l.dials[d] = struct{}{}
	over := time.NewTimer(time.Duration(20+l.dice.IntN(100)) * time.Millisecond)
	l.mu.Unlock()
	defer over.Stop()
	select {
	case <-over.C:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.dials, d)
	if ctx.Err() != nil {
		return nil, errors.New("path is down")
	}
	s := &lane{path: path, from: from}
	s.near, s.far = net.Pipe()
	l.streams[s] = struct{}{}
	go func() {
		Answer(s.far) //nolint:errcheck // it ends with the stream
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.streams, s)
	}()
	return carried{s.near}, nil
}

// carried is the asker's end of a stream.
type carried struct{ net.Conn }

func (c carried) SegmentBytes() int { return 100 }

// changed is what a node does when it finds a path bad.
func (l *land) changed(node string, all []choose.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range all {
		if c.Now != choose.Bad {
			continue
		}
		for d := range l.dials {
			if d.path == c.Path && d.from == node {
				d.cancel()
			}
		}
		for s := range l.streams {
			if s.path != c.Path || Stays(Purpose) {
				continue
			}
			s.near.Close() //nolint:errcheck // a pipe's cannot fail
			s.far.Close()  //nolint:errcheck // likewise
		}
	}
}

func inBubble(t *testing.T, seed uint64, f func(t *testing.T)) {
	t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { synctest.Test(t, f) })
}

// A cable is out for a moment, by the word of one node's heartbeat: it leaves the
// path once, and uses it again after the hold. The other one, which has lost nothing,
// does not leave it at all: neither makes the other believe that it is sick.
func TestTwoNodesDoNotKeepAPathBad(t *testing.T) {
	for seed := range uint64(25) {
		inBubble(t, seed, func(t *testing.T) {
			l := newLand(seed)
			for _, w := range l.watch {
				w.Start()
				defer w.Stop()
			}
			time.Sleep(3 * time.Second)
			l.watch["alpha"].Reach("crossover", false, "no carrier")
			time.Sleep(time.Duration(20*seed) * time.Millisecond)
			l.watch["alpha"].Reach("crossover", true, "")
			time.Sleep(choose.DefaultHold + time.Second)
			for node, losses := range map[string]uint64{"alpha": 1, "beta": 0} {
				views, _ := l.watch[node].Views()
				if x := views[0]; x.State != choose.Good || x.Losses != losses {
					t.Errorf("on %s the crossover is %s (%s), lost %d times, wanted %d", node, x.State, x.Because, x.Losses, losses)
				}
				if y := views[1]; y.Losses != 0 {
					t.Errorf("the other path was lost on %s: %s", node, y.Because)
				}
			}
		})
	}
}

// A stream on which nobody asks any more ends at the node that answers, though
// nothing tells it.
func TestAnsweringEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close() //nolint:errcheck // a pipe's cannot fail
		begun := time.Now()
		var timeout net.Error
		if err := Answer(far); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != askerMax {
			t.Fatalf("after %s, wanted %s", took, askerMax)
		}
		if _, err := near.Write([]byte{1}); err == nil {
			t.Fatal("it is still open")
		}
	})
}
