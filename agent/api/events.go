package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
)

// sinceOf reads where a reader wants to begin: ?since=N or now, or the
// Last-Event-ID of a stream that broke. The default is now.
func sinceOf(r *http.Request) (uint64, *apiv1.Problem) {
	text := r.URL.Query().Get("since")
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		text = id
	}
	if text == "" || text == "now" {
		return SinceNow, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, problem(apiv1.CodeBadRequest, fmt.Sprintf("since is %q; want an event number or now", clip(text)), "")
	}
	return n, nil
}

// events streams until the reader leaves, falls behind, or the server stops.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	since, p := sinceOf(r)
	if p != nil {
		s.refuse(w, p)
		return
	}
	sub := s.opt.Backend.Subscribe(since)
	defer sub.Close()
	if p := sub.Problem(); p != nil {
		s.refuse(w, p)
		return
	}
	out := &eventWriter{w: w, c: http.NewResponseController(w)}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	out.send(": hapair events\n\n") // headers reach the reader before the first event
	alive := time.NewTicker(s.opt.KeepAlive)
	defer alive.Stop()
	for out.err == nil {
		select {
		case e, open := <-sub.C:
			if !open {
				out.last(sub.Problem())
				return
			}
			out.event(e)
		case <-alive.C:
			out.send(": alive\n\n")
		case <-s.quit:
			out.last(problem(apiv1.CodeUnavailable, "the agent stops", ""))
			return
		case <-r.Context().Done():
			return
		}
	}
	s.opt.Log.Debug("event reader went away", zap.Error(out.err))
}

// eventWriter writes server-sent events and remembers the first error.
type eventWriter struct {
	w   http.ResponseWriter
	c   *http.ResponseController
	err error
}

func (o *eventWriter) send(text string) {
	if o.err != nil {
		return
	}
	if o.err = o.c.SetWriteDeadline(time.Now().Add(writeTimeout)); o.err != nil {
		return
	}
	if _, o.err = fmt.Fprint(o.w, text); o.err != nil {
		return
	}
	o.err = o.c.Flush()
}

func (o *eventWriter) event(e apiv1.Event) {
	data, err := json.Marshal(e)
	if err != nil {
		o.err = err
		return
	}
	o.send(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Kind, data))
}

// last tells the reader why the stream ends. It carries no id: nothing was seen.
func (o *eventWriter) last(p *apiv1.Problem) {
	if p == nil {
		return
	}
	data, err := json.Marshal(apiv1.ErrorBody{Error: *p})
	if err != nil {
		o.err = err
		return
	}
	o.send(fmt.Sprintf("event: %s\ndata: %s\n\n", apiv1.EventDropped, data))
}
