package main

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/agent/paths"
	"hapair/agent/paths/choose"
	"hapair/agent/peering"
)

const (
	// moveEvery is how often it is looked whether the mirror's sessions go over the
	// preferred path, beside the moments when that changes.
	moveEvery   = time.Second
	moveTimeout = time.Second
)

// startPaths watches the paths to the other data node. A witness has one path to
// each node, and nothing to choose.
func (a *agent) startPaths(context.Context) error {
	if a.witness() {
		return nil
	}
	peer := a.cfg.Peer(a.self)
	_, order := addresses(a.cfg)
	a.paths = paths.New(paths.Config{Peer: peer.Name, Paths: order, Clock: a.clock, Logger: a.log, Changed: a.pathsChanged,
		Dial: func(ctx context.Context, path string) (paths.Stream, error) { return a.dialPath(ctx, peer.Name, path) }})
	a.pathNews = make(chan struct{}, 1)
	end := background(a.keepMoving)
	a.paths.Start()
	a.onStop("paths", func(context.Context) error {
		a.paths.Stop()
		end()
		return nil
	})
	return nil
}

func (a *agent) dialPath(ctx context.Context, peer, path string) (paths.Stream, error) {
	c, err := a.net.Dial(ctx, peer, path, paths.Purpose)
	if unknownThere(err) {
		return nil, fmt.Errorf("%w: %w", paths.ErrUnasked, err)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// acceptPath sends back what the peer asks over a path.
func (a *agent) acceptPath(c *peering.Conn) {
	a.log.Debug("a path is asked no more", zap.String("peer", c.Node), zap.String("path", c.Path), zap.Error(paths.Answer(c)))
}

// pathsChanged has whatever goes over a path that is bad leave it, and opens one
// that is good again to new streams.
func (a *agent) pathsChanged(changes []choose.Change) {
	peer := a.cfg.Peer(a.self).Name
	for _, c := range changes {
		switch {
		case c.Now == choose.Bad:
			a.leavePath(peer, c.Path, c.Because)
			go a.tellLeft(peer, leftQuestion{c.Path, c.Because})
		case c.Now == choose.Held:
			a.net.PathWell(peer, c.Path)
		case c.Now == choose.Good && c.Was != choose.Unknown:
			a.net.PathUp(peer, c.Path)
			a.event(apiv1.EventMember, "", fmt.Sprintf("path %s to %s is good again: %s", c.Path, peer, c.Because))
		}
	}
	select {
	case a.pathNews <- struct{}{}:
	default: // it is about to look
	}
}

// leavePath ends every stream over a path, but those on which the peer finds out for
// itself whether it is well. The mirror's sessions go on over another one.
func (a *agent) leavePath(node, path, because string) {
	why := fmt.Errorf("path %s to %s is bad: %s", path, node, because)
	a.net.Avoid(node, path)
	a.sessionsLeave(node, path, why)
	a.net.PathDown(node, path, func(c *peering.Conn) bool { return paths.Stays(c.Purpose) })
	a.event(apiv1.EventMember, "", why.Error())
}

// sessionsLeave has the mirror's sessions with a node go on over another path.
func (a *agent) sessionsLeave(node, path string, why error) {
	for _, r := range a.resources() {
		if r.peer == node {
			r.mirror.LeavePath(path, why)
		}
	}
}

// streams returns what is known of each path to a node, by name.
func (a *agent) streams(node string) func(path string) *apiv1.Streams {
	traffic, moves := a.net.Traffic(node), map[string]uint64{}
	var views []paths.View
	var now time.Duration
	if a.chooses(node) {
		views, now = a.paths.Views()
		for _, r := range a.resources() {
			for _, p := range r.mirror.LinkStats().Paths {
				moves[p.Path] += p.Resumed
			}
		}
	}
	return func(path string) *apiv1.Streams {
		t := traffic[path]
		out := &apiv1.Streams{Moves: moves[path], Live: t.Streams, BytesOut: int64(t.BytesOut), BytesIn: int64(t.BytesIn), Retransmits: t.Retransmits}
		for _, v := range views {
			if v.Path == path {
				out.Use, out.Because, out.SinceS, out.HoldMS, out.Losses = v.State.String(), v.Because, int64((now - v.Since).Seconds()), v.Hold.Milliseconds(), v.Losses
				out.RoundTripUS = float64(v.RoundTrip.Nanoseconds()) / 1e3
			}
		}
		return out
	}
}

// leftPurpose tells the other node over another path that one was left: where a
// path carries in one direction only, the end of its streams may not be seen there.
const leftPurpose = "left"

type leftQuestion struct {
	Path    string `json:"path"`
	Because string `json:"because"`
}

// tellLeft is a courtesy: without it the other node finds out by itself, later.
func (a *agent) tellLeft(peer string, q leftQuestion) {
	ctx, cancel := context.WithTimeout(context.Background(), moveTimeout)
	defer cancel()
	var answer struct{}
	if err := a.exchange(ctx, peer, leftPurpose, q, &answer); err != nil {
		a.log.Debug("the peer was not told that a path was left", zap.String("path", q.Path), zap.Error(err))
	}
}

// acceptLeft has the mirror's sessions leave a path that the other node has left.
// What the path is good for is for this node to find out.
func (a *agent) acceptLeft(c *peering.Conn) {
	defer closeQuietly(c)
	var q leftQuestion
	if err := take(c, exchangeTimeout, &q); err != nil {
		a.log.Warn("a question was not understood", zap.String("peer", c.Node), zap.Error(err))
		return
	}
	a.sessionsLeave(c.Node, q.Path, fmt.Errorf("%s has left path %s: %.200s", c.Node, q.Path, q.Because))
	a.give(c, struct{}{})
}

// keepMoving has the mirror's sessions go over the preferred path, or over all, until ctx ends.
// The node that does not dial has nothing to do; see link.Link.Move.
func (a *agent) keepMoving(ctx context.Context) {
	tick := time.NewTicker(moveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.pathNews:
		case <-tick.C:
		}
		for _, r := range a.resources() {
			a.move(ctx, r)
			a.spread(ctx, r)
		}
	}
}

func (a *agent) move(ctx context.Context, r *resource) {
	now := r.mirror.Path()
	if now == "" || a.self > r.peer {
		return
	}
	to := a.paths.Better(now)
	if to == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	if err := r.mirror.MovePath(ctx, to); err != nil {
		a.log.Debug("the mirror stays on its path", zap.String("resource", r.name), zap.String("path", now), zap.Error(err))
	}
}

// spread has a mirror that is to use all paths go over those that are fit. The link has
// nothing to do where it goes over them, or the peer is not to.
func (a *agent) spread(ctx context.Context, r *resource) {
	if r.conf.Paths != config.PathsAll || a.self > r.peer || r.mirror.Path() == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	if err := r.mirror.SpreadPaths(ctx, a.paths.Good()); err != nil {
		a.log.Debug("the mirror does not use all paths", zap.String("resource", r.name), zap.Error(err))
	}
}
