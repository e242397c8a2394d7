package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
)

// routes builds the table. Every pattern takes all methods, so that a wrong one
// is answered with a Problem too.
func (s *Server) routes() http.Handler {
	b := s.opt.Backend
	mux := http.NewServeMux()
	mux.HandleFunc(apiv1.PathStatus, s.get(s.status))
	mux.HandleFunc(apiv1.PathVersion, s.get(func(w http.ResponseWriter, _ *http.Request) { s.answer(w, s.opt.Version) }))
	mux.HandleFunc(apiv1.PathEvents, s.get(s.events))
	mux.HandleFunc(apiv1.PathTimeline, s.get(s.timeline))
	mux.HandleFunc(apiv1.PathMetrics, s.get(s.metrics.ServeHTTP))

	mux.HandleFunc(apiv1.PathMaintenance, clusterVerb(s, "maintenance", b.Maintenance))
	mux.HandleFunc(apiv1.PathStandby, clusterVerb(s, "standby", b.Standby))
	mux.HandleFunc(apiv1.PathFence, clusterVerb(s, "fence", b.Fence))
	mux.HandleFunc(apiv1.PathFenceConfirm, clusterVerb(s, "fence-confirm", b.FenceConfirm))
	mux.HandleFunc(apiv1.PathLedgerBegin, clusterVerb(s, "ledger-begin", b.LedgerBegin))
	mux.HandleFunc(apiv1.PathReplace, clusterVerb(s, "replace", b.Replace))
	mux.HandleFunc(apiv1.PathConfigApply, clusterVerb(s, "config apply", b.ConfigApply))

	verb := func(name string) string { return apiv1.PathResources + "{name}/" + name }
	mux.HandleFunc(verb(apiv1.VerbExplain), s.get(s.explain))
	mux.HandleFunc(verb(apiv1.VerbPromote), resourceVerb(s, apiv1.VerbPromote, b.Promote))
	mux.HandleFunc(verb(apiv1.VerbDemote), resourceVerb(s, apiv1.VerbDemote, b.Demote))
	mux.HandleFunc(verb(apiv1.VerbSwitchover), resourceVerb(s, apiv1.VerbSwitchover, b.Switchover))
	mux.HandleFunc(verb(apiv1.VerbConnect), resourceVerb(s, apiv1.VerbConnect, b.Connect))
	mux.HandleFunc(verb(apiv1.VerbDisconnect), resourceVerb(s, apiv1.VerbDisconnect, b.Disconnect))
	mux.HandleFunc(verb(apiv1.VerbInvalidate), resourceVerb(s, apiv1.VerbInvalidate, b.Invalidate))
	mux.HandleFunc(verb(apiv1.VerbPauseSync), resourceVerb(s, apiv1.VerbPauseSync, b.PauseSync))
	mux.HandleFunc(verb(apiv1.VerbResumeSync), resourceVerb(s, apiv1.VerbResumeSync, b.ResumeSync))
	mux.HandleFunc(verb(apiv1.VerbAttach), resourceVerb(s, apiv1.VerbAttach, b.Attach))
	mux.HandleFunc(verb(apiv1.VerbSplitBrain), resourceVerb(s, apiv1.VerbSplitBrain, b.SplitBrain))
	mux.HandleFunc(verb(apiv1.VerbSet), resourceVerb(s, apiv1.VerbSet, b.Set))
	mux.HandleFunc(verb(apiv1.VerbCleanup), resourceVerb(s, apiv1.VerbCleanup, b.Cleanup))
	mux.HandleFunc(verb(apiv1.VerbDrill), resourceVerb(s, apiv1.VerbDrill, func(ctx context.Context, name string, q apiv1.DrillRequest) (apiv1.DrillReport, error) {
		rep, err := b.Drill(ctx, name, q)
		rep.FillLists()
		return rep, err
	}))
	mux.HandleFunc(verb(apiv1.VerbResize), resourceVerb(s, apiv1.VerbResize, b.Resize))
	mux.HandleFunc(verb(apiv1.VerbVerify), resourceVerb(s, apiv1.VerbVerify, b.Verify))
	mux.HandleFunc(verb(apiv1.VerbCreateMetadata), resourceVerb(s, apiv1.VerbCreateMetadata, b.CreateMetadata))
	mux.HandleFunc("/", s.unknown)
	return mux
}

// unknown answers every route that is not in the table.
func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	last := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	if instead, described := apiv1.NotBuilt[last]; described && strings.HasPrefix(r.URL.Path, "/v1/") {
		s.refuse(w, problem(apiv1.CodeNotImplemented, last+": not implemented", instead))
		return
	}
	s.refuse(w, problem(apiv1.CodeNotFound, fmt.Sprintf("no route %q", clip(r.URL.Path)), "the routes are in docs/api.md; this agent speaks /v1/"))
}

// clip bounds foreign text in an answer.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

func (s *Server) get(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			s.refuse(w, problem(apiv1.CodeBadMethod, fmt.Sprintf("%s takes GET, not %s", r.URL.Path, clip(r.Method)), ""))
			return
		}
		h(w, r)
	}
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	st, err := s.opt.Backend.Status(r.Context())
	if err != nil {
		s.refuse(w, asProblem(err))
		return
	}
	st.FillLists()
	s.answer(w, st)
}

func (s *Server) timeline(w http.ResponseWriter, r *http.Request) {
	q, p := timelineQuery(r.URL.Query())
	if p != nil {
		s.refuse(w, p)
		return
	}
	t, err := s.opt.Backend.Timeline(r.Context(), q)
	if err != nil {
		s.refuse(w, asProblem(err))
		return
	}
	t.FillLists()
	s.answer(w, t)
}

// timelineQuery reads what is asked of the story.
func timelineQuery(v url.Values) (q apiv1.TimelineQuery, p *apiv1.Problem) {
	q.Resource, q.Node = v.Get("resource"), v.Get("node")
	for name, at := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		text := v.Get(name)
		if text == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return q, problem(apiv1.CodeBadRequest, fmt.Sprintf("%s is %q; want a time like 2026-01-31T15:04:05Z", name, clip(text)), "")
		}
		*at = t
	}
	return q, nil
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	ex, err := s.opt.Backend.Explain(r.Context(), r.PathValue("name"))
	if err != nil {
		s.refuse(w, asProblem(err))
		return
	}
	ex.FillLists()
	s.answer(w, ex)
}

// resourceVerb serves one change of a resource.
func resourceVerb[Req, Ans any](s *Server, verb string, do func(context.Context, string, Req) (Ans, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		change(s, w, r, verb, r.PathValue("name"), func(ctx context.Context, req Req) (Ans, error) {
			return do(ctx, r.PathValue("name"), req)
		})
	}
}

// clusterVerb serves one change of the cluster.
func clusterVerb[Req, Ans any](s *Server, verb string, do func(context.Context, Req) (Ans, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { change(s, w, r, verb, "", do) }
}

// change judges the caller and the body, bounds the time, and does it.
func change[Req, Ans any](s *Server, w http.ResponseWriter, r *http.Request, verb, resource string, do func(context.Context, Req) (Ans, error)) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		s.refuse(w, problem(apiv1.CodeBadMethod, fmt.Sprintf("%s takes POST, not %s", clip(r.URL.Path), clip(r.Method)), ""))
		return
	}
	if p := s.mayChange(r.Context()); p != nil {
		s.refuse(w, p)
		return
	}
	req, p := decodeBody[Req](r.Body)
	if p != nil {
		s.refuse(w, p)
		return
	}
	wait, p := waitOf(req)
	if p != nil {
		s.refuse(w, p)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	caller, _ := CallerFrom(ctx)
	log := s.opt.Log.With(zap.Uint64("request", s.requests.Add(1)), zap.String("asked", verb), zap.String("resource", resource),
		zap.Uint32("uid", caller.UID), zap.Int32("pid", caller.PID))
	ans, err := do(ctx, req)
	if err != nil {
		p := brokenOff(ctx, asProblem(err))
		log.Warn("operator's request refused", zap.String("code", p.Code), zap.String("because", p.Text))
		s.refuse(w, p)
		return
	}
	log.Info("operator's request done")
	s.answer(w, ans)
}

// waitOf reads wait_ms from the requests that have it.
func waitOf(req any) (time.Duration, *apiv1.Problem) {
	var ms int64
	switch r := req.(type) {
	case apiv1.PromoteRequest:
		ms = r.WaitMS
	case apiv1.DemoteRequest:
		ms = r.WaitMS
	case apiv1.SwitchoverRequest:
		ms = r.WaitMS
	case apiv1.ResizeRequest:
		ms = r.WaitMS
	case apiv1.FenceRequest:
		ms = r.WaitMS
	case apiv1.DrillRequest:
		ms = r.WaitMS
	}
	if ms < 0 || ms > MaxWait.Milliseconds() {
		return 0, problem(apiv1.CodeBadRequest, fmt.Sprintf("wait_ms is %d; between 0 and %d", ms, MaxWait.Milliseconds()), "")
	}
	if ms == 0 {
		return defaultWait(req), nil
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// defaultWait bounds a request that does not say. Some are bounded by the backend, which
// knows how long fence devices, and the stop of services, may take.
func defaultWait(req any) time.Duration {
	switch req.(type) {
	case apiv1.FenceRequest, apiv1.DemoteRequest, apiv1.SwitchoverRequest:
		return MaxWait
	}
	return DefaultWait
}
