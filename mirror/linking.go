package mirror

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"hapair/mirror/engine"
	"hapair/mirror/link"
	"hapair/mirror/wire"
)

// sink brings what the link delivers to the engine. The link serialises the
// calls.
type sink struct {
	r       *Resource
	session atomic.Uint64
}

func newLink(r *Resource) *link.Link {
	return link.New(link.Config{Resource: r.cfg.Resource, Self: r.cfg.Self, Peer: r.cfg.Peer, Needs: r.cfg.Dialer, Sink: &r.sink,
		Logger: r.cfg.Logger, PingInterval: r.cfg.PingInterval, Silence: r.cfg.Silence, Spread: r.cfg.Spread})
}

func (s *sink) Up(session uint64, path string) {
	s.session.Store(session)
	s.r.why.Store(nil)
	s.r.step(&engine.Event{Kind: engine.LinkUp, Session: session, Path: path})
	s.r.cfg.Observer.Linked(s.r.cfg.Resource, path, true)
}

func (s *sink) Message(session uint64, m *wire.Message) {
	s.r.stepPlugged(&engine.Event{Kind: engine.Received, Session: session, Message: m})
}

func (s *sink) Drained() { s.r.Unplug() }

func (s *sink) Moved(_ uint64, from, to string, because error) {
	s.r.cfg.Observer.Moved(s.r.cfg.Resource, from, to, because)
}

func (s *sink) Down(session uint64, reason error, ago time.Duration) {
	s.session.Store(0)
	s.r.why.CompareAndSwap(nil, &reason)
	s.r.step(&engine.Event{Kind: engine.LinkDown, Session: session, Err: reason, Ago: ago})
	s.r.cfg.Observer.Linked(s.r.cfg.Resource, "", false)
}

// Accept takes an authenticated stream that the peer opened for this resource.
func (r *Resource) Accept(conn net.Conn, purpose string) { r.link.Accept(conn, purpose) }

// Connect looks for the peer again after Disconnect or a refusal.
func (r *Resource) Connect() {
	r.standAlone.Store(false)
	r.why.Store(nil)
	r.link.Connect()
	r.cfg.Observer.Changed(r.cfg.Resource)
}

// endRest looks for the peer again that was too slow.
func (r *Resource) endRest() {
	if !r.standAlone.Load() {
		r.link.Connect()
	}
}

// Disconnect ends the session and stays StandAlone.
func (r *Resource) Disconnect() {
	r.standAlone.Store(true)
	r.link.Disconnect()
	r.cfg.Observer.Changed(r.cfg.Resource)
}

// DropSession ends the session because of why; a new one follows.
func (r *Resource) DropSession(why error) {
	if id := r.sink.session.Load(); id != 0 {
		r.link.Drop(id, why)
	}
}

// Path is the path of the session with the peer, "" when there is none.
func (r *Resource) Path() string { return r.link.Path() }

// LinkStats is what went over each path.
func (r *Resource) LinkStats() link.Stats { return r.link.Stats() }

// MovePath has the session go on over another path; see link.Link.Move.
func (r *Resource) MovePath(ctx context.Context, path string) error { return r.link.Move(ctx, path) }

// SpreadPaths has the session go over more paths; see link.Link.Spread.
func (r *Resource) SpreadPaths(ctx context.Context, paths []string) error {
	return r.link.Spread(ctx, paths)
}

// LeavePath gives up what goes over a path; see link.Link.Leave.
func (r *Resource) LeavePath(path string, why error) { r.link.Leave(path, why) }

// Dialer opens an authenticated stream to the peer over a path, or with "" over
// the best one.
type Dialer interface {
	Dial(ctx context.Context, path, purpose string) (conn net.Conn, over string, err error)
}
