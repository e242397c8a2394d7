package detect

import (
	"fmt"
	"slices"
	"time"
)

// Detector holds what is known. It is not safe for concurrent use.
type Detector struct {
	cfg   Config
	now   time.Duration
	local map[string]*end // by path
	peers []*peer
}

// end is this node's end of a path.
type end struct {
	noCarrier, deviceDown, addressLost flaw
}

type flaw struct {
	there bool
	at    time.Duration // valid while there: since when
	note  string
}

// set notes what was said of the flaw at now.
func (f *flaw) set(there bool, note string, now time.Duration) {
	if there && !f.there {
		f.at = now
	}
	f.there, f.note = there, note
}

type peer struct {
	name  string
	paths []*path

	linkKnown, linkAlive bool
	linkAt               time.Duration
	linkNote             string

	state     State
	since     time.Duration
	reasons   []Reason
	lost      bool          // every path is
	lostSince time.Duration // valid while lost
}

type membership uint8

const (
	present membership = iota
	suspected
	gone
	left
)

type path struct {
	name  string
	start time.Duration // of listening

	heard    bool // ever
	heardAt  time.Duration
	member   membership
	memberAt time.Duration
	note     string

	state   State
	since   time.Duration
	reasons []Reason

	down       bool            // was dead and has not come back yet
	heardSince bool            // since it was dead
	mending    bool            // down, but answers
	mendedAt   time.Duration   // valid while mending
	deaths     []time.Duration // within flapWindow
}

// New makes a Detector that begins to listen at now.
func New(cfg Config, now time.Duration) (*Detector, error) {
	cfg.Peers = slices.Clone(cfg.Peers)
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("detector: %w", err)
	}
	d := &Detector{cfg: cfg, now: now, local: map[string]*end{}}
	for _, c := range cfg.Peers {
		d.peers = append(d.peers, d.begin(c))
	}
	d.judge()
	return d, nil
}

// begin begins to listen to a peer.
func (d *Detector) begin(c Peer) *peer {
	p := &peer{name: c.Node, since: d.now}
	for _, name := range c.Paths {
		p.paths = append(p.paths, &path{name: name, start: d.now, since: d.now})
		if d.local[name] == nil {
			d.local[name] = &end{}
		}
	}
	return p
}

// Watch has the peers be those of cfg from now on, and its times be in force. Whoever
// was watched before is known as it was, on the paths that it had; who is new was not
// heard yet. The next Step tells what changed.
func (d *Detector) Watch(cfg Config) error {
	cfg.Peers = slices.Clone(cfg.Peers)
	if err := cfg.complete(); err != nil {
		return fmt.Errorf("detector: %w", err)
	}
	had := d.peers
	d.cfg, d.peers = cfg, nil
	for _, c := range cfg.Peers {
		i := slices.IndexFunc(had, func(p *peer) bool { return p.name == c.Node })
		if i < 0 {
			d.peers = append(d.peers, d.begin(c))
		} else {
			d.peers = append(d.peers, had[i])
		}
	}
	return nil
}

// Step takes evidence that arrived at now and returns what changed, paths
// before their node. Time never goes back: an earlier now counts as the latest
// one. Unknown evidence is left out and makes an error; the rest counts.
func (d *Detector) Step(now time.Duration, evidence ...Evidence) ([]Change, error) {
	d.advance(now)
	var failed error
	for _, e := range evidence {
		if !d.apply(e) {
			failed = fmt.Errorf("%s, node %q, path %q: %w", e.Kind, e.Node, e.Path, ErrUnknownEvidence)
		}
	}
	return d.judge(), failed
}

// advance moves the clock. Time in which this node did not listen is taken out
// of every count, by moving what is counted from.
func (d *Detector) advance(now time.Duration) {
	missed := now - d.now - d.cfg.Stall
	d.now = max(d.now, now)
	if missed <= 0 {
		return
	}
	for _, l := range d.local {
		l.noCarrier.at += missed
		l.deviceDown.at += missed
		l.addressLost.at += missed
	}
	for _, p := range d.peers {
		p.linkAt += missed
		p.lostSince += missed
		for _, x := range p.paths {
			x.start += missed
			x.heardAt += missed
			x.memberAt += missed
			x.mendedAt += missed
		}
	}
}

func (d *Detector) apply(e Evidence) bool {
	if e.Kind.ofPath() {
		l := d.local[e.Path]
		if l != nil {
			l.apply(e, d.now)
		}
		return l != nil
	}
	i := slices.IndexFunc(d.peers, func(p *peer) bool { return p.name == e.Node })
	if i < 0 {
		return false
	}
	p := d.peers[i]
	if e.Kind.ofLink() {
		p.linkKnown, p.linkAlive, p.linkAt, p.linkNote = true, e.Kind == LinkAlive, d.now-max(e.Ago, 0), e.Note
		return true
	}
	j := slices.IndexFunc(p.paths, func(x *path) bool { return x.name == e.Path })
	if j < 0 || !e.Kind.ofMember() {
		return false
	}
	p.paths[j].apply(e, d.now)
	return true
}

func (l *end) apply(e Evidence, now time.Duration) {
	switch e.Kind {
	case CarrierUp, CarrierDown:
		l.noCarrier.set(e.Kind == CarrierDown, e.Note, now)
	case DeviceUp, DeviceDown:
		l.deviceDown.set(e.Kind == DeviceDown, e.Note, now)
	case AddressThere, AddressLost:
		l.addressLost.set(e.Kind == AddressLost, e.Note, now)
	default: // of a peer; what comes here is ofPath
	}
}

func (x *path) apply(e Evidence, now time.Duration) {
	was := x.member
	switch e.Kind {
	case Heard:
		x.heard, x.heardSince, x.heardAt, x.member = true, true, now, present
	case MemberSuspect:
		x.member = suspected
	case MemberDead:
		x.member = gone
	case MemberLeft:
		x.member = left
	default: // what comes here is ofMember
	}
	x.note = e.Note
	if x.member != was {
		x.memberAt = now
	}
}

// judge brings every verdict up to now.
func (d *Detector) judge() (changes []Change) {
	for _, p := range d.peers {
		for _, x := range p.paths {
			was := x.state
			d.judgePath(x)
			if x.state != was {
				x.since = d.now
				changes = append(changes, Change{Node: p.name, Path: x.name, Was: was, Now: x.state, Because: x.reasons})
			}
		}
		was := p.state
		p.state, p.reasons = d.judgeNode(p)
		if p.state != was {
			p.since = d.now
			changes = append(changes, Change{Node: p.name, Was: was, Now: p.state, Because: p.reasons})
		}
	}
	return changes
}

// Deadline returns the next instant at which a verdict may change without
// further evidence, or at which Step must be called to show that this node
// listens; ok is false when there is none.
func (d *Detector) Deadline() (at time.Duration, ok bool) {
	consider := func(x time.Duration) {
		if x > d.now && (!ok || x < at) {
			at, ok = x, true
		}
	}
	if len(d.peers) > 0 {
		consider(d.now + d.cfg.Stall/2)
	}
	for _, p := range d.peers {
		if p.linkKnown && p.linkAlive {
			consider(p.linkAt + d.cfg.LinkFresh)
		}
		if p.lost {
			consider(p.lostSince + d.cfg.Confirm)
		}
		for _, x := range p.paths {
			if !x.heard {
				consider(x.start + d.cfg.Grace)
			} else {
				consider(x.heardAt + d.cfg.SuspectAfter)
				consider(x.heardAt + d.cfg.DeadAfter)
			}
			if x.member == left {
				consider(x.memberAt + d.cfg.DeadAfter)
			}
			if x.mending {
				consider(x.mendedAt + d.calm(x))
			}
		}
	}
	return at, ok
}

// Verdicts returns every node's verdict, in configured order.
func (d *Detector) Verdicts() []Verdict {
	all := make([]Verdict, 0, len(d.peers))
	for _, p := range d.peers {
		v := Verdict{Node: p.name, State: p.state, Since: p.since, Reasons: slices.Clone(p.reasons)}
		for _, x := range p.paths {
			v.Paths = append(v.Paths, PathVerdict{Path: x.name, State: x.state, Since: x.since, Reasons: slices.Clone(x.reasons)})
		}
		all = append(all, v)
	}
	return all
}
