package main

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/heartbeat/detect"
	"hapair/mirror/link"
)

// linkWordEvery is how often the heartbeat is told of the mirror links, beside the moments
// when a session begins or ends: well within the time for which such a word counts
// (detect.DefaultLinkFresh).
const linkWordEvery = 300 * time.Millisecond

// linkWords tells the heartbeat that the mirror links with the peer carry something: a
// peer lives that is heard over any of them, whatever the heartbeat's own port hears. Its
// methods are safe for concurrent use.
type linkWords struct {
	peer    string
	links   func() []link.Stats // of every resource with the peer
	observe func(detect.Evidence) error
	log     *zap.Logger

	mu    sync.Mutex // one word at a time, in order
	alive bool       // the last word was that a link is
}

// startLinkWords has the heartbeat told of the mirror links. A witness has none.
func (a *agent) startLinkWords() {
	if a.witness() {
		return
	}
	w := &linkWords{peer: a.cfg.Peer(a.self).Name, observe: a.heart.Observe, log: a.log}
	w.links = func() (all []link.Stats) {
		for _, r := range a.resources() {
			if r.peer == w.peer {
				all = append(all, r.mirror.LinkStats())
			}
		}
		return all
	}
	a.words = w
	end := background(w.run)
	a.onStop("words of the mirror links", func(context.Context) error { end(); return nil })
}

// run says what there is to say until ctx ends.
func (w *linkWords) run(ctx context.Context) {
	tick := time.NewTicker(linkWordEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.say()
		}
	}
}

// say tells when the peer was last heard over a session, or that there is no session any
// more. One that lost its streams says no less than when it was heard.
func (w *linkWords) say() {
	w.mu.Lock()
	defer w.mu.Unlock()
	ago, live := newest(w.links())
	if !live && !w.alive {
		return
	}
	e := detect.Evidence{Kind: detect.LinkSilent, Node: w.peer}
	if live {
		e.Kind, e.Ago = detect.LinkAlive, ago
	}
	w.alive = live
	if err := w.observe(e); err != nil {
		w.log.Warn("evidence not taken", zap.Error(err))
	}
}

// newest is how long ago the peer was heard over any live session; live is false when
// there is none.
func newest(links []link.Stats) (ago time.Duration, live bool) {
	for _, l := range links {
		if l.Session != 0 && (!live || l.Heard < ago) {
			ago, live = l.Heard, true
		}
	}
	return ago, live
}
