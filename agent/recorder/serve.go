package recorder

import (
	"net"

	"go.uber.org/zap"

	"hapair/agent/recorder/story"
)

// Serve tells another node, on a stream that it opened, what is kept here and it
// does not know; then what comes. It owns the stream, and returns when that ends.
func (r *Recorder) Serve(node string, c net.Conn) {
	defer c.Close() //nolint:errcheck // nothing is lost with it
	in := linesOf(c, askBytesMax)
	var first ask
	if err := in.next(&first); err != nil {
		r.log.Debug("a node that follows said nothing", zap.String("peer", node), zap.Error(err))
		return
	}
	r.Heard(uint64(first.Stamp))
	asks := make(chan ask, 1)
	asks <- first
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			var q ask
			if err := in.next(&q); err != nil {
				return
			}
			r.Heard(uint64(q.Stamp))
			select {
			case asks <- q:
			default: // one waits for its answer: that one was sent at about the same time
			}
		}
	}()
	if err := r.telling(node, c, story.SeenOf(first.Have), asks, ended); err != nil {
		r.log.Debug("a node follows no more", zap.String("peer", node), zap.Error(err))
	}
	c.Close() //nolint:errcheck // ends the reading
	<-ended
}

// telling writes until the stream ends.
func (r *Recorder) telling(node string, c net.Conn, known *story.Seen, asks <-chan ask, ended <-chan struct{}) error {
	waiting, cursor := r.snapshot(known)
	atOnce := make(chan struct{})
	close(atOnce)
	for {
		var more <-chan struct{} = atOnce
		if len(waiting) == 0 {
			if waiting, cursor, more = r.after(node, cursor); len(waiting) > 0 {
				more = atOnce
			}
		}
		select {
		case <-ended:
			return nil
		case q := <-asks:
			if err := say(c, tell{Stamp: story.Stamp(r.Stamp()), Sent: q.Sent, Wall: r.cfg.Now().UnixNano()}); err != nil {
				return err
			}
		case <-more:
			if len(waiting) == 0 {
				continue
			}
			if err := say(c, tell{Entry: waiting[0]}); err != nil {
				return err
			}
			waiting = waiting[1:]
		}
	}
}

// snapshot is what is kept and another node does not know, and where to go on.
func (r *Recorder) snapshot(known *story.Seen) (out []*story.Entry, cursor uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, list := range r.mu.kept {
		for _, e := range list {
			if !known.Has(e.Node, e.Life, e.Seq) {
				out = append(out, e)
			}
		}
	}
	return out, r.mu.base + uint64(len(r.mu.arrivals))
}

// after is what arrived since, but for what the node made itself, and what is
// closed when there is more.
func (r *Recorder) after(node string, cursor uint64) (out []*story.Entry, next uint64, grown <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.mu.arrivals[max(cursor, r.mu.base)-r.mu.base:] {
		if e.Node != node {
			out = append(out, e)
		}
	}
	return out, r.mu.base + uint64(len(r.mu.arrivals)), r.mu.grown
}
