package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"hapair/agent/apiv1"
)

// Options are what a server is made of.
type Options struct {
	Backend Backend
	Version apiv1.Version // the server fills in API and Go
	// AdminGID may change things beside uid 0, when HasAdminGID.
	AdminGID    uint32
	HasAdminGID bool
	// Registry serves /metrics; nil makes one. The status collector is added.
	Registry *prometheus.Registry
	Log      *zap.Logger
	// KeepAlive is the time between two signs of life on a silent event stream;
	// 0 takes DefaultKeepAlive.
	KeepAlive time.Duration
}

// Time-outs of the server.
const (
	DefaultKeepAlive = 15 * time.Second
	writeTimeout     = 10 * time.Second // one event or answer to a reader that does not read
	readTimeout      = 10 * time.Second
	idleTimeout      = time.Minute // a connection that asks nothing
	// DefaultWait bounds a change whose request does not say.
	DefaultWait = 2 * time.Minute
	// MaxWait bounds wait_ms.
	MaxWait = time.Hour
	// stopGrace is what a stop leaves to running requests: most need no more.
	stopGrace = time.Second
)

// Server answers on the control socket.
type Server struct {
	opt     Options
	http    *http.Server
	metrics http.Handler
	// callerOf is replaced by tests.
	callerOf func(net.Conn) (Caller, error)
	requests atomic.Uint64
	quit     chan struct{}           // closed by Shutdown: event streams end
	end      context.CancelCauseFunc // of the context of all requests
}

// errStops is why a request was broken off.
var errStops = errors.New("the agent stops")

// New makes a server; the error is about registering metrics.
func New(opt Options) (*Server, error) {
	if opt.Log == nil {
		opt.Log = zap.NewNop()
	}
	if opt.KeepAlive == 0 {
		opt.KeepAlive = DefaultKeepAlive
	}
	if opt.Registry == nil {
		opt.Registry = prometheus.NewRegistry()
	}
	if err := opt.Registry.Register(NewCollector(opt.Backend)); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	opt.Version.API, opt.Version.Go = apiv1.Name, runtime.Version()
	s := &Server{opt: opt, callerOf: callerOf, quit: make(chan struct{})}
	// A sample that cannot be told costs that sample: who watches must not be blind.
	s.metrics = promhttp.HandlerFor(opt.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, ErrorLog: zap.NewStdLog(opt.Log)})
	var base context.Context
	base, s.end = context.WithCancelCause(context.Background())
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          zap.NewStdLog(opt.Log),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       s.identify,
	}
	return s, nil
}

// Serve answers until Shutdown; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(newLimited(l)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control socket: %w", err)
	}
	return nil
}

// Shutdown ends event streams, and gives running requests a second; then it breaks
// them off, which their callers are told. One that does not end before ctx does is
// left behind with its connection closed: that is no error. Call it once.
func (s *Server) Shutdown(ctx context.Context) error {
	close(s.quit)
	defer s.end(errStops)
	breakOff := time.AfterFunc(stopGrace, func() { s.end(errStops) })
	defer breakOff.Stop()
	err := s.http.Shutdown(ctx)
	if err == nil {
		return nil
	}
	if errors.Is(err, ctx.Err()) {
		s.opt.Log.Warn("a request did not end when the control socket was shut down")
		err = nil
	}
	if err = errors.Join(err, s.http.Close()); err != nil {
		return fmt.Errorf("shut down control socket: %w", err)
	}
	return nil
}

func (s *Server) identify(ctx context.Context, conn net.Conn) context.Context {
	c, err := s.callerOf(conn)
	if err != nil {
		s.opt.Log.Warn("caller not identified: may only look", zap.Error(err))
		return ctx
	}
	return context.WithValue(ctx, callerKey{}, c)
}

// mayChange is nil for uid 0 and members of the admin group.
func (s *Server) mayChange(ctx context.Context) *apiv1.Problem {
	c, known := CallerFrom(ctx)
	if known && (c.UID == 0 || s.opt.HasAdminGID && c.inGroup(s.opt.AdminGID)) {
		return nil
	}
	who := "an unidentified caller"
	if known {
		who = "uid " + strconv.FormatUint(uint64(c.UID), 10)
	}
	return problem(apiv1.CodeForbidden, who+" may look but not change anything", "use sudo, or set api: {admin_group: ...} in the configuration")
}

// status is the HTTP status of a code.
func status(code string) int {
	switch code {
	case apiv1.CodeBadRequest:
		return http.StatusBadRequest
	case apiv1.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case apiv1.CodeNotFound:
		return http.StatusNotFound
	case apiv1.CodeBadMethod:
		return http.StatusMethodNotAllowed
	case apiv1.CodeForbidden:
		return http.StatusForbidden
	case apiv1.CodeNotImplemented:
		return http.StatusNotImplemented
	case apiv1.CodeUnavailable:
		return http.StatusServiceUnavailable
	case apiv1.CodeTimeout:
		return http.StatusGatewayTimeout
	case apiv1.CodeInternal:
		return http.StatusInternalServerError
	}
	return http.StatusConflict // a rule forbids it now
}

// asProblem turns a backend's error into what the caller sees.
func asProblem(err error) *apiv1.Problem {
	var p *apiv1.Problem
	switch {
	case errors.As(err, &p):
		if err.Error() != p.Error() { // keep what was wrapped around it
			return &apiv1.Problem{Code: p.Code, Text: err.Error(), Hint: p.Hint}
		}
		return p
	case errors.Is(err, context.DeadlineExceeded):
		return problem(apiv1.CodeTimeout, "not done in the time given: "+err.Error(), "it may still complete; see hactl status and hactl events")
	case errors.Is(err, context.Canceled):
		return problem(apiv1.CodeUnavailable, "broken off: "+err.Error(), "")
	}
	return problem(apiv1.CodeInternal, err.Error(), "see journalctl -u haagent")
}

// brokenOff says of a change that failed when its context ended by a stop that this is
// why, whatever it made of that: who asked is to ask again, not to mend something.
func brokenOff(ctx context.Context, p *apiv1.Problem) *apiv1.Problem {
	if !errors.Is(context.Cause(ctx), errStops) {
		return p
	}
	hint := p.Hint
	if p.Code == apiv1.CodeTimeout || hint == "" { // more time would not have helped
		hint = "it may still complete; see hactl status when the agent runs again"
	}
	return problem(apiv1.CodeUnavailable, errStops.Error()+": "+p.Text, hint)
}

// answer writes a value; lists in it are never null.
func (s *Server) answer(w http.ResponseWriter, v any) {
	s.write(w, http.StatusOK, v)
}

func (s *Server) refuse(w http.ResponseWriter, p *apiv1.Problem) {
	s.write(w, status(p.Code), apiv1.ErrorBody{Error: *p})
}

func (s *Server) write(w http.ResponseWriter, code int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		s.opt.Log.Error("answer cannot be encoded", zap.Error(err))
		code, data = http.StatusInternalServerError, []byte(`{"error":{"code":"internal","text":"the answer cannot be encoded"}}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(data)+1))
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		s.opt.Log.Debug("no write deadline", zap.Error(err))
	}
	w.WriteHeader(code)
	if _, err := w.Write(append(data, '\n')); err != nil {
		s.opt.Log.Debug("caller went away before the answer", zap.Error(err))
	}
}
