// Package choose decides which of the paths to a peer are fit to carry its
// streams, from evidence: what the heartbeat says of each, and whether frames of
// full size come back over it.
//
// It is pure: time is an argument, counted from an arbitrary fixed start; no
// goroutine, clock or I/O. A path that was bad counts again only when it has been
// well for a time that doubles with each loss, so that a flapping cable is left
// alone.
package choose

import (
	"fmt"
	"slices"
	"time"
)

// State is what a path is good for.
type State uint8

// The states. The zero State is Unknown.
const (
	Unknown State = iota // nothing is known yet: used as if it were good
	Good
	Held // it is well again, not yet for long enough
	Bad
)

// String returns the state's word.
func (s State) String() string {
	if names := [...]string{"unknown", "good", "held", "bad"}; int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Usable reports whether streams should go over such a path.
func (s State) Usable() bool { return s == Good || s == Unknown }

// Kind is what a piece of evidence says.
type Kind uint8

// The kinds of evidence.
const (
	_         Kind = iota
	Reached        // the heartbeat does not call the path dead
	Unreached      // it does; Note says why
	Asked          // a frame of full size was sent, which the peer is to send back
	Answered       // the one that was sent at Sent, and with it all before, came back
	Unasked        // the peer does not answer such questions: an earlier release
)

// Evidence is one observation of a path.
type Evidence struct {
	Kind Kind
	Path string
	Sent time.Duration // Answered
	Note string
}

// Config is what a Chooser goes by. Zero durations stand for defaults.
type Config struct {
	Paths []string // in order of preference

	// Patience is how long a question may go unanswered, while another path
	// answers. Where none does, it may be the peer, or this node. It is stretched to
	// twice the longest round trip of late, five times as long at most, and ten
	// times where nothing has come back yet: the peer may just be starting.
	Patience time.Duration
	// Hold is how long a path must have been well after it was lost once. It
	// doubles with each further loss, to HoldMax.
	Hold, HoldMax time.Duration
	// Stall is the longest time between two steps that counts as listening.
	Stall time.Duration
}

// Defaults of Config.
const (
	DefaultPatience = 200 * time.Millisecond
	DefaultHold     = 2 * time.Second
	DefaultHoldMax  = 5 * time.Minute
	DefaultStall    = 150 * time.Millisecond

	// fading: each answer takes such a part off the longest round trip: with two
	// paths it is a third after some 15 s.
	fading = 512
	// forgiven times its last hold, without a loss, and a path's losses are
	// forgotten.
	forgiven = 10
)

// Change is a path that is no longer what it was.
type Change struct {
	Path     string
	Was, Now State
	Because  string
}

// View is what is known of a path.
type View struct {
	Path    string
	State   State
	Since   time.Duration
	Because string
	Losses  uint64        // since the beginning
	Hold    time.Duration // what is left of it, while Held
}

// Chooser holds what is known. It is not safe for concurrent use.
type Chooser struct {
	cfg   Config
	now   time.Duration
	worst time.Duration // the longest round trip on a good path, or one until then, fading
	paths []*path
}

type path struct {
	name  string
	state State
	since time.Duration
	why   string

	lost     bool   // by the heartbeat
	lostWhy  string // likewise
	unasked  bool
	waits    bool          // a question has no answer
	oldest   time.Duration // valid while waits: when it was sent
	asks     []time.Duration
	beside   bool          // meanwhile another path has answered one that was asked later
	besideAt time.Duration // valid while beside: since when
	heard    bool          // an answer came since it was bad, or ever

	losses uint64        // ever
	recent uint          // not forgiven
	hold   time.Duration // the last
}

// asksMax bounds the questions that are remembered one by one; of more the oldest
// counts, which is what matters.
const asksMax = 64

// New makes a Chooser that begins at now.
func New(cfg Config, now time.Duration) *Chooser {
	for at, value := range map[*time.Duration]time.Duration{&cfg.Patience: DefaultPatience, &cfg.Hold: DefaultHold, &cfg.HoldMax: DefaultHoldMax, &cfg.Stall: DefaultStall} {
		if *at <= 0 {
			*at = value
		}
	}
	c := &Chooser{cfg: cfg, now: now}
	for _, name := range cfg.Paths {
		c.paths = append(c.paths, &path{name: name, since: now})
	}
	return c
}

// Step takes evidence that arrived at now and returns what changed. Evidence about
// a path that is not configured is left out.
func (c *Chooser) Step(now time.Duration, evidence ...Evidence) (changes []Change) {
	c.advance(now)
	for _, e := range evidence {
		if x := c.find(e.Path); x != nil {
			c.apply(x, e)
		}
	}
	for _, x := range c.paths {
		was := x.state
		c.judge(x)
		if x.state != was {
			x.since = c.now
			changes = append(changes, Change{Path: x.name, Was: was, Now: x.state, Because: x.why})
		}
	}
	return changes
}

func (c *Chooser) find(name string) *path {
	if i := slices.IndexFunc(c.paths, func(x *path) bool { return x.name == name }); i >= 0 {
		return c.paths[i]
	}
	return nil
}

// advance moves the clock. Time in which this node did not run is nobody's
// silence.
func (c *Chooser) advance(now time.Duration) {
	missed := now - c.now - c.cfg.Stall
	c.now = max(c.now, now)
	if missed <= 0 {
		return
	}
	for _, x := range c.paths {
		x.oldest += missed
		x.besideAt += missed
		if x.state == Held {
			x.since += missed
		}
	}
}

func (c *Chooser) apply(x *path, e Evidence) {
	switch e.Kind {
	case Reached:
		x.lost = false
	case Unreached:
		x.lost, x.lostWhy, x.heard = true, e.Note, false
	case Unasked:
		x.unasked, x.waits, x.asks = true, false, nil
	case Asked:
		x.unasked = false
		if !x.waits {
			x.waits, x.oldest = true, c.now
		}
		if len(x.asks) < asksMax {
			x.asks = append(x.asks, c.now)
		}
	case Answered:
		if x.state == Good || x.state == Bad && !x.lost && e.Sent <= x.since { // what condemned it was late, not lost
			c.worst = max(c.worst-c.worst/fading, c.now-e.Sent)
		}
		x.answer(e.Sent)
		for _, y := range c.paths {
			if y != x && y.waits && !y.beside && e.Sent >= y.oldest {
				y.beside, y.besideAt = true, c.now
			}
		}
	}
}

// answer takes away what has an answer; the oldest of the others counts.
func (x *path) answer(sent time.Duration) {
	x.heard, x.beside = true, false
	x.asks = slices.DeleteFunc(x.asks, func(at time.Duration) bool { return at <= sent })
	if x.waits = len(x.asks) > 0; x.waits {
		x.oldest = max(x.oldest, x.asks[0])
	}
}

// Preferred is the first path that is fit for use; "" when none is.
func (c *Chooser) Preferred() string {
	for _, x := range c.paths {
		if x.state.Usable() {
			return x.name
		}
	}
	return ""
}

// Better reports whether one path is preferred to another.
func (c *Chooser) Better(one, other string) bool {
	return slices.Index(c.cfg.Paths, one) < slices.Index(c.cfg.Paths, other)
}

// Views returns what is known of every path, in order of preference.
func (c *Chooser) Views() []View {
	out := make([]View, 0, len(c.paths))
	for _, x := range c.paths {
		v := View{Path: x.name, State: x.state, Since: x.since, Because: x.why, Losses: x.losses}
		if x.state == Held {
			v.Hold = max(x.since+x.hold-c.now, 0)
		}
		out = append(out, v)
	}
	return out
}
