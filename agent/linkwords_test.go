package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"hapair/heartbeat/detect"
	"hapair/mirror/link"
)

// wordRig is the words of two links whose state the test sets.
func wordRig(links ...link.Stats) (w *linkWords, set func(i int, s link.Stats), said func() []detect.Evidence) {
	var all []detect.Evidence
	w = &linkWords{peer: "beta", log: zap.NewNop(), links: func() []link.Stats { return links },
		observe: func(e detect.Evidence) error { all = append(all, e); return nil }}
	return w, func(i int, s link.Stats) { links[i] = s }, func() []detect.Evidence { out := all; all = nil; return out }
}

// Of two sessions one ends: the other one still proves the peer alive.
func TestLinkWords(t *testing.T) {
	const ms = time.Millisecond
	w, set, said := wordRig(link.Stats{}, link.Stats{})
	expect := func(what string, want ...detect.Evidence) {
		t.Helper()
		w.say()
		got := said()
		if len(got) != len(want) || len(want) > 0 && got[0] != want[0] {
			t.Errorf("%s: said %+v, wanted %+v", what, got, want)
		}
	}
	alive := func(ago time.Duration) detect.Evidence {
		return detect.Evidence{Kind: detect.LinkAlive, Node: "beta", Ago: ago}
	}
	expect("no session yet")
	set(0, link.Stats{Session: 1, Heard: 70 * ms})
	expect("one session", alive(70*ms))
	set(1, link.Stats{Session: 1, Heard: 20 * ms})
	expect("two sessions", alive(20*ms))
	set(1, link.Stats{})
	expect("one of them is over", alive(70*ms))
	set(0, link.Stats{Session: 1, Broken: true, Heard: 400 * ms})
	expect("its streams broke", alive(400*ms))
	set(0, link.Stats{})
	expect("none is left", detect.Evidence{Kind: detect.LinkSilent, Node: "beta"})
	expect("that is known")
}

// A heartbeat that hears nothing has a peer alive for as long as the link hears it, and not
// for longer than such a word counts.
func TestLinkWordsKeepAPeerAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		now := func() time.Duration { return time.Since(begun) }
		d, err := detect.New(detect.Config{Peers: []detect.Peer{{Node: "beta", Paths: []string{"lan"}}}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		silentSince := time.Duration(0) // of the link; 0: it is heard
		w := &linkWords{peer: "beta", log: zap.NewNop(), observe: func(e detect.Evidence) error { _, err := d.Step(now(), e); return err }}
		w.links = func() []link.Stats {
			if silentSince == 0 {
				return []link.Stats{{Session: 1, Heard: 90 * time.Millisecond}}
			}
			return []link.Stats{{Session: 1, Broken: true, Heard: now() - silentSince}}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.run(ctx) }()
		stateAt := func(at time.Duration) detect.State {
			time.Sleep(at - now())
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			if _, err := d.Step(now()); err != nil {
				t.Fatal(err)
			}
			return d.Verdicts()[0].State
		}
		if s := stateAt(20 * time.Second); s != detect.Alive {
			t.Errorf("heard by the link only: %s", s)
		}
		w.mu.Lock()
		silentSince = now()
		w.mu.Unlock()
		if s := stateAt(silentSince + detect.DefaultLinkFresh - time.Millisecond); s != detect.Alive {
			t.Errorf("heard by the link a moment ago: %s", s)
		}
		if s := stateAt(silentSince + detect.DefaultLinkFresh + detect.DefaultConfirm + 10*time.Millisecond); s == detect.Alive {
			t.Errorf("heard by nothing: %s", s)
		}
		cancel()
		<-done
	})
}
