// Package paths watches the paths to the other data node: over each it has frames
// of full size sent there and back, and with what the heartbeat says it decides
// which are fit for the streams between the nodes. See DESIGN.md.
package paths

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/agent/paths/choose"
)

// Purpose is that of the streams which carry the questions.
const Purpose = "path"

// Times, all of them.
const (
	askEvery     = 60 * time.Millisecond
	dialTimeout  = 500 * time.Millisecond
	dialPause    = 150 * time.Millisecond // after a dial that failed
	unaskedPause = time.Minute            // after one to an earlier release
	silentMax    = time.Second            // a stream that answers nothing for so long is opened anew
	askerMax     = 10 * time.Second       // as long a peer may ask nothing before its stream is closed
	// DefaultSegment is what a question is made for where the kernel does not say.
	defaultSegment = 1448
)

// ErrUnasked is what Dial returns, wrapped, for a peer that does not know Purpose.
var ErrUnasked = errors.New("the peer's release does not answer on its paths")

// Stream is an authenticated stream to the peer.
type Stream interface {
	net.Conn
	// SegmentBytes is how much of it goes into one frame of the path, 0 when the
	// kernel does not say.
	SegmentBytes() int
}

// Config is what New needs.
type Config struct {
	Peer   string
	Paths  []string // in order of preference
	Dial   func(ctx context.Context, path string) (Stream, error)
	Clock  func() time.Duration // since an arbitrary fixed start
	Logger *zap.Logger
	// Changed is told what became different, in order, from one goroutine at a time.
	// It should be quick.
	Changed func([]choose.Change)
	Choose  choose.Config // its Paths are filled in
}

// Watch watches the paths to one peer. Its methods are safe for concurrent use.
type Watch struct {
	cfg    Config
	log    *zap.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	telling sync.Mutex // held while Changed runs, so that its calls keep their order
	mu      struct {
		sync.Mutex
		chooser *choose.Chooser
		rtt     map[string]time.Duration // smoothed, of frames of full size
	}
}

// New makes a Watch that does nothing yet.
func New(cfg Config) *Watch {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	cfg.Choose.Paths = slices.Clone(cfg.Paths)
	w := &Watch{cfg: cfg, log: cfg.Logger.With(zap.String("component", "paths"), zap.String("peer", cfg.Peer))}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.mu.chooser = choose.New(cfg.Choose, cfg.Clock())
	w.mu.rtt = map[string]time.Duration{}
	return w
}

// Start begins to watch.
func (w *Watch) Start() {
	w.wg.Go(w.run)
	for _, path := range w.cfg.Paths {
		w.wg.Go(func() { w.keepAsking(path) })
	}
}

// Stop ends the watch and waits for it. It must not be called from Changed.
func (w *Watch) Stop() {
	w.cancel()
	w.wg.Wait()
}

// run lets time pass for the chooser.
func (w *Watch) run() {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-tick.C:
			w.step()
		}
	}
}

func (w *Watch) step(e ...choose.Evidence) {
	w.telling.Lock()
	defer w.telling.Unlock()
	w.mu.Lock()
	changes := w.mu.chooser.Step(w.cfg.Clock(), e...)
	w.mu.Unlock()
	if len(changes) == 0 {
		return
	}
	for _, c := range changes {
		w.log.Info("path", zap.String("path", c.Path), zap.Stringer("was", c.Was), zap.Stringer("now", c.Now), zap.String("because", c.Because))
	}
	w.cfg.Changed(changes)
}

// Reach takes the heartbeat's word on a path: alive, or why not.
func (w *Watch) Reach(path string, alive bool, why string) {
	kind := choose.Unreached
	if alive {
		kind = choose.Reached
	}
	w.step(choose.Evidence{Kind: kind, Path: path, Note: why})
}

// Preferred is the path that streams should go over; "" when none is fit.
func (w *Watch) Preferred() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.chooser.Preferred()
}

// Better is the path to leave now for; "" to stay.
func (w *Watch) Better(now string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.mu.chooser.Preferred(); p != "" && p != now && w.mu.chooser.Better(p, now) {
		return p
	}
	return ""
}

// Good are the paths that are known to be fit, in order of preference.
func (w *Watch) Good() (paths []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range w.mu.chooser.Views() {
		if v.State == choose.Good {
			paths = append(paths, v.Path)
		}
	}
	return paths
}

// View is what is known of a path.
type View struct {
	choose.View
	RoundTrip time.Duration // of frames of full size, smoothed; 0 before the first
}

// Views returns what is known of each path, in order, and the time that counts.
func (w *Watch) Views() (views []View, now time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range w.mu.chooser.Views() {
		views = append(views, View{v, w.mu.rtt[v.Path]})
	}
	return views, w.cfg.Clock()
}

// keepAsking asks over a path, on one stream after another, until the watch ends.
func (w *Watch) keepAsking(path string) {
	said := ""
	for w.ctx.Err() == nil {
		err := w.askOnce(path)
		pause := dialPause
		if errors.Is(err, ErrUnasked) {
			w.step(choose.Evidence{Kind: choose.Unasked, Path: path})
			pause = unaskedPause
		}
		if text := fmt.Sprint(err); text != said && w.ctx.Err() == nil {
			said = text
			w.log.Debug("path is asked anew", zap.String("path", path), zap.Error(err))
		}
		select {
		case <-w.ctx.Done():
		case <-time.After(pause):
		}
	}
}

// askOnce asks on one stream until it breaks. That a dial has not come through is
// a question without an answer as well; that it has is none: its frames are small.
func (w *Watch) askOnce(path string) error {
	w.step(choose.Evidence{Kind: choose.Asked, Path: path})
	ctx, cancel := context.WithTimeout(w.ctx, dialTimeout)
	defer cancel()
	s, err := w.cfg.Dial(ctx, path)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(w.ctx, func() { s.Close() }) //nolint:errcheck // wakes both below
	defer stop()
	asked := make(chan error, 1)
	w.wg.Go(func() {
		asked <- w.ask(path, s)
		s.Close() //nolint:errcheck // it is of no more use
	})
	err = w.hear(path, s)
	s.Close() //nolint:errcheck // likewise
	return errors.Join(err, <-asked)
}

func (w *Watch) ask(path string, s Stream) error {
	segment := s.SegmentBytes()
	if segment <= 0 {
		segment = defaultSegment
	}
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	var b []byte
	for {
		now := w.cfg.Clock()
		w.step(choose.Evidence{Kind: choose.Asked, Path: path})
		b = appendQuestion(b[:0], 2*segment, uint64(now))
		if err := s.SetWriteDeadline(time.Now().Add(silentMax)); err != nil {
			return err
		}
		if _, err := s.Write(b); err != nil {
			return err
		}
		select {
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		case <-tick.C:
		}
	}
}

func (w *Watch) hear(path string, s Stream) error {
	buf := make([]byte, maxBytes)
	for {
		if err := s.SetReadDeadline(time.Now().Add(silentMax)); err != nil {
			return err
		}
		_, sent, err := readQuestion(s, buf)
		if err != nil {
			return err
		}
		took := w.cfg.Clock() - time.Duration(sent)
		if took < 0 || took > time.Minute {
			return fmt.Errorf("an answer to what was never asked: %w", ErrFrame)
		}
		w.mu.Lock()
		if was := w.mu.rtt[path]; was != 0 {
			took = was + (took-was)/8
		}
		w.mu.rtt[path] = took
		w.mu.Unlock()
		w.step(choose.Evidence{Kind: choose.Answered, Path: path, Sent: time.Duration(sent)})
	}
}

// Answer sends back what the peer asks over conn, and closes it in the end.
func Answer(conn net.Conn) error {
	defer conn.Close() //nolint:errcheck // it is of no more use
	buf := make([]byte, maxBytes)
	for {
		if err := conn.SetDeadline(time.Now().Add(askerMax)); err != nil {
			return err
		}
		whole, _, err := readQuestion(conn, buf)
		if err != nil {
			return err
		}
		if _, err := conn.Write(whole); err != nil {
			return err
		}
	}
}

// Stays reports whether a stream is left alone where its path is found bad: one that
// carries questions. Closing one of the peer's would take the answers from it: it finds
// the path bad for want of them, closes the stream of this node's questions, and so on in
// turn, long after the path is well. An answer to one of this node's may come yet, and
// tells that the path is slow, not dead. It ends by itself when nothing comes for
// silentMax, or nobody asks for askerMax.
func Stays(purpose string) bool { return purpose == Purpose }
