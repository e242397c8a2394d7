package sim

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"hapair/mirror/engine"
	"hapair/mirror/state"
	"hapair/test/script"
)

// Times of a scripted world, virtual. A step of the world takes a millisecond on
// average, and a write some twenty of them.
const (
	scriptPeerTimeout = 5 * time.Second        // how long a Primary waits for its peer
	scriptDiskTimeout = 2 * time.Second        // then a disk that hangs is told of
	scriptSilence     = 300 * time.Millisecond // of a peer, then its session ends
	scriptPatience    = 30 * time.Second       // for what an operator asked
)

// Scripted is a world in which only what a script says goes wrong. Everything in
// between is the dice's: which of a node, a disk, a message, the ledger, the
// application goes on next. Who is Primary is decided as failover/plan does, in
// short (govern). It is a script.Lab.
type Scripted struct {
	w    *World
	load bool
	down bool  // an operator demoted it
	only *node // a promotion that was asked for; nobody else is promoted
	left *node // it hands over, to stop
	cut  [2]map[string]bool
	lan  bool // of the witness is cut
	off  [2]bool
	hung [2]time.Duration // since when its disk hangs
	mute [2]time.Duration // since when it stands still

	answers int
	last    time.Duration // of the last answer, or of the begin of the load
	gap     time.Duration
	reply   func(n *node, of engine.EventKind, err error)
}

// NewScripted makes the world of a seed, as every scenario begins.
func NewScripted(seed uint64, keepLog bool) *Scripted {
	w := New(seed, keepLog)
	s := &Scripted{w: w, cut: [2]map[string]bool{{}, {}}}
	w.play, w.hangs, w.used, w.patience = s, true, map[int64][][]byte{}, scriptPeerTimeout
	for _, n := range w.nodes { // again, as impatient ones
		n.stop()
		n.start()
	}
	s.only = w.nodes[0]
	_ = w.guarded(func() { //nolint:errcheck // whatever is done next tells of it
		s.until(scriptPatience, func() bool { return w.primary() == w.nodes[0] && w.quiet() })
	})
	s.only = nil
	return s
}

// Log is what happened, when the world keeps it.
func (s *Scripted) Log() string { return s.w.Log() }

// do does something in the world and says which law it broke.
func (s *Scripted) do(fn func() error) error {
	var failed error
	if err := s.w.guarded(func() { failed = fn() }); err != nil {
		return violation(err)
	}
	return failed
}

// violation gives a broken law the name it has in a scenario, if it has one.
func violation(err error) error {
	for prefix, clause := range map[string]script.Clause{"pen law": script.TwoPrimaries, "fence": script.TwoPrimaries, "ack law": script.AckLost, "flush lost": script.AckLost} {
		if lawOf(err) == prefix {
			return &script.Violation{Clause: clause, Err: err}
		}
	}
	return err
}

// lawOf is the beginning of an error: which law was broken.
func lawOf(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	for _, law := range []string{"ack law", "mark law", "pen law", "fence", "liveness", "copies differ", "flush lost", "panic", "made up"} {
		if strings.Contains(text, law) {
			return law
		}
	}
	return "other"
}

// Now implements script.Lab.
func (s *Scripted) Now() time.Duration { return s.w.now }

// Pass implements script.Lab.
func (s *Scripted) Pass(d time.Duration) error {
	return s.do(func() error {
		s.until(d, func() bool { return false })
		return nil
	})
}

// until lets things happen until something holds, or the time is over.
func (s *Scripted) until(within time.Duration, holds func() bool) bool {
	for end := s.w.now + within; s.w.err == nil && s.w.now < end; s.w.step() {
		if holds() {
			return true
		}
	}
	return s.w.err == nil && holds()
}

// Load implements script.Lab.
func (s *Scripted) Load(on bool) error {
	s.load, s.last = on, s.w.now
	return nil
}

// answered counts what the application was told.
func (s *Scripted) answered() {
	s.answers++
	s.gap, s.last = max(s.gap, s.w.now-s.last), s.w.now
}

// Look implements script.Lab.
func (s *Scripted) Look() (v script.View, err error) {
	err = s.do(func() error {
		v = script.View{Nodes: map[string]script.NodeView{}, Answers: s.answers, Gap: s.gap}
		if s.load {
			v.Gap = max(v.Gap, s.w.now-s.last)
		}
		for _, n := range s.w.nodes {
			if n.up && !n.paused {
				v.Nodes[n.name] = n.seen()
			}
		}
		return nil
	})
	return v, err
}

// seen is what a status of the node would say.
func (n *node) seen() script.NodeView {
	v := n.eng.View()
	current := v.Replication == state.Established && len(v.Record.InSync) == 2
	for _, x := range v.Volumes {
		current = current && x.Disk == state.UpToDate && x.PeerDisk == state.UpToDate
	}
	return script.NodeView{
		Serves:     n.holdsPen() && n.judged && n.command == 0,
		Frozen:     v.Role == state.Primary && !n.holdsPen(),
		InSet:      v.Record.InSync,
		Current:    current,
		Target:     v.Replication == state.SyncTarget || v.Replication == state.PausedSyncT,
		Forwarding: v.Replication == state.Forwarding,
		DiskGone:   n.broken(),
		Verified:   v.Verify.State == engine.VerifyDone && v.Verify.Differing == 0,
	}
}

// trouble is what goes on by itself: memory is used again, a disk that hangs is
// told of, one that was given up does what it had been told.
func (s *Scripted) trouble() {
	s.w.send()
	for i, n := range s.w.nodes {
		switch {
		case !n.up:
		case n.paused && s.w.now > s.mute[i]+scriptSilence && s.w.alive != 0:
			s.w.doomed = true
		case n.hung && s.w.now > s.hung[i]+scriptDiskTimeout && s.w.one(20):
			n.stalled()
		case len(n.ghosts) > 0 && s.w.one(200):
			n.exorcise()
		}
	}
}

// govern does for a node what plan and lease do.
func (s *Scripted) govern(n *node) {
	w := s.w
	if !n.up || n.paused {
		return
	}
	role := n.eng.View().Role
	switch {
	case n.command == engine.Abort:
	case n.deposed, role == state.Primary && n.broken() && !n.eng.View().Forwards && w.one(20):
		n.deposed, n.leaseTenure = false, 0
		n.run(&engine.Event{Kind: engine.Abort, Err: errors.New("the local disk is gone")})
	case n.command != 0, role == state.Primary:
		w.renew(n)
	case s.only != nil && s.only != n, s.left == n, s.down && s.only != n, n.broken():
	case w.record.Primary == n.peer().name && n.peer().up && !n.peer().paused && n.session != 0 && n.session == w.alive && !w.one(10):
		// it is alive, and may resume
	default:
		w.promote(n)
	}
}

// End implements script.Lab.
func (s *Scripted) End() error {
	return s.do(func() error {
		w := s.w
		for _, n := range w.nodes {
			n.dead = false
		}
		s.load, s.only, s.left, s.down, s.cut, s.lan = true, nil, nil, false, [2]map[string]bool{{}, {}}, false
		w.heal()
		w.settle()
		return nil
	})
}

// refuse is a refusal in the words of this world.
func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", script.ErrRefused, fmt.Errorf(format, args...))
}
