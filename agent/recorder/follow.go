package recorder

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"go.uber.org/zap"

	"hapair/agent/recorder/story"
)

// Pace of the following.
const (
	askEvery    = time.Second     // says what time it is here, and asks for theirs
	silenceMax  = 5 * time.Second // a stream on which nothing comes is dead
	retryFirst  = time.Second
	retryMost   = 8 * time.Second
	retryOlder  = 10 * time.Minute // a release that keeps no record
	askBytesMax = 1 << 20
	tellMax     = 4 * story.MaxEntry
	// goodRTT is within which an answer says how far a clock is ahead: by less than
	// half of it.
	goodRTT = 100 * time.Millisecond
)

// Each message is a line of JSON. Fields are only ever added.
type (
	// ask comes from whoever follows: first with what it knows, then each askEvery.
	ask struct {
		Have  []story.Known `json:"have,omitempty"`
		Stamp story.Stamp   `json:"h"`
		Sent  int64         `json:"sent"` // nanoseconds of its own clock, given back
	}
	// tell is an entry, or the answer to an ask.
	tell struct {
		Entry *story.Entry `json:"e,omitempty"`
		Stamp story.Stamp  `json:"h,omitempty"`
		Sent  int64        `json:"sent,omitempty"`
		Wall  int64        `json:"w,omitempty"` // of who tells, when it answered
	}
)

// source is what is known of another node's record. Recorder.mu guards it.
type source struct {
	poke      chan struct{} // capacity 1: try now
	following bool
	since     time.Time // of following, or of not
	err       error     // why not
	older     bool      // its release keeps no record
	skew      time.Duration
	skewKnown bool
}

func newSource(now time.Time) *source { return &source{poke: make(chan struct{}, 1), since: now} }

// Retry has nodes that are not followed tried at once: something was heard of
// one.
func (r *Recorder) Retry() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.mu.sources {
		if !s.following {
			select {
			case s.poke <- struct{}{}:
			default: // it is about to
			}
		}
	}
}

// follow keeps a stream to another node, until the recorder closes.
func (r *Recorder) follow(node string) {
	r.mu.Lock()
	s := r.mu.sources[node]
	r.mu.Unlock()
	for wait := retryFirst; ; {
		well, err := r.followOnce(node, s)
		if r.ctx.Err() != nil {
			return
		}
		older := r.cfg.Foreign != nil && r.cfg.Foreign(err)
		switch {
		case older:
			wait = retryOlder
		case well:
			wait = retryFirst
		default:
			wait = min(max(2*wait, retryFirst), retryMost)
		}
		r.log.Debug("the record of another node is not followed", zap.String("peer", node), zap.Error(err))
		r.mu.Lock()
		if s.following || s.err == nil {
			s.since = r.cfg.Now()
		}
		s.following, s.err, s.older = false, err, older
		r.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-s.poke:
		case <-r.ctx.Done():
		}
		t.Stop()
	}
}

// followOnce hears one stream to its end; well says that something came.
func (r *Recorder) followOnce(node string, s *source) (well bool, err error) {
	c, err := r.cfg.Dial(r.ctx, node)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(r.ctx)
	asked := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { c.Close() }) //nolint:errcheck // breaks off both
	go func() {
		asked <- r.asking(ctx, c)
		cancel()
	}()
	well, err = r.hearing(node, s, c)
	cancel()
	if stop() {
		c.Close() //nolint:errcheck // nothing is lost with it
	}
	return well, errors.Join(err, <-asked)
}

// asking says at once what is known, then again and again what time it is here.
func (r *Recorder) asking(ctx context.Context, c net.Conn) error {
	every := time.NewTicker(askEvery)
	defer every.Stop()
	r.mu.Lock()
	q := ask{Have: r.mu.seen.List()}
	r.mu.Unlock()
	for {
		q.Stamp, q.Sent = story.Stamp(r.Stamp()), int64(time.Since(r.began))
		if err := say(c, q); err != nil {
			return fmt.Errorf("ask: %w", err)
		}
		q.Have = nil
		select {
		case <-every.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// say sends one line.
func say(c net.Conn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := c.SetWriteDeadline(time.Now().Add(silenceMax)); err != nil {
		return err
	}
	_, err = c.Write(append(b, '\n'))
	return err
}

// lines reads one line after the other; the connection may be silent for
// silenceMax.
type lines struct {
	c  net.Conn
	in *bufio.Scanner
}

func linesOf(c net.Conn, most int) *lines {
	in := bufio.NewScanner(c)
	in.Buffer(nil, most)
	return &lines{c, in}
}

func (l *lines) next(v any) error {
	if err := l.c.SetReadDeadline(time.Now().Add(silenceMax)); err != nil {
		return err
	}
	if !l.in.Scan() {
		if err := l.in.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	return json.Unmarshal(l.in.Bytes(), v)
}

func (r *Recorder) hearing(node string, s *source, c net.Conn) (well bool, err error) {
	for in := linesOf(c, tellMax); ; {
		var t tell
		if err := in.next(&t); err != nil {
			return well, fmt.Errorf("hear %s: %w", node, err)
		}
		well = true
		switch {
		case t.Entry != nil:
			if err := t.Entry.Check(); err != nil {
				return well, fmt.Errorf("hear %s: %w", node, err)
			}
			t.Entry.Skew = 0 // it was the other node's
			r.learn(t.Entry)
		default:
			r.Heard(uint64(t.Stamp))
			r.answered(s, t)
		}
	}
}

// answered takes an answer: the node is followed, and its clock is known.
func (r *Recorder) answered(s *source, t tell) {
	now := r.cfg.Now()
	rtt := time.Since(r.began) - time.Duration(t.Sent)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !s.following {
		s.following, s.since, s.err, s.older = true, now, nil, false
	}
	if rtt >= 0 && rtt <= goodRTT {
		s.skew, s.skewKnown = time.Unix(0, t.Wall).Sub(now.Add(-rtt/2)), true
	}
}
