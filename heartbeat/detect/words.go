// Package detect turns evidence about the peers into a verdict: alive, suspect
// or dead, per path and per node, with reasons. It never decides anything.
//
// It is pure: time is an argument, counted from an arbitrary fixed start; no
// goroutine, clock or I/O. Two rules shape it: no carrier means that the cable
// is out or the peer's box off, never that this node is dead; and the loss of
// one path is not the death of a node.
package detect

import (
	"errors"
	"fmt"
	"time"
)

// State is a verdict.
type State uint8

// The verdicts. The zero State is Unknown.
const (
	Unknown State = iota // nothing heard yet, and it is early
	Alive
	Suspect
	Dead
)

// String returns the verdict's word.
func (s State) String() string {
	if names := [...]string{"unknown", "alive", "suspect", "dead"}; int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Kind is what a piece of evidence says.
type Kind uint8

// The kinds of evidence. Those of a member and of the link need a Node; those
// of the carrier, the device and the address are about this node's end of a
// path and concern every peer on it.
const (
	_             Kind = iota
	Heard              // the node answered on the path
	MemberSuspect      // membership suspects it
	MemberDead         // membership has given it up, or heard it leave
	MemberLeft         // it said that it leaves: a hint, a frozen node says so falsely
	CarrierUp
	CarrierDown
	DeviceUp
	DeviceDown // switched off here, or gone
	AddressThere
	AddressLost // this node has not the address it should have on the path
	LinkAlive   // the mirror link carried something from the node; Path is not needed
	LinkSilent  // the mirror link ended or stays silent
)

var kindNames = [...]string{"", "heard", "member-suspect", "member-dead", "member-left", "carrier-up", "carrier-down",
	"device-up", "device-down", "address-there", "address-lost", "link-alive", "link-silent"}

// String returns the kind's word.
func (k Kind) String() string {
	if int(k) < len(kindNames) && k != 0 {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

func (k Kind) ofMember() bool { return k >= Heard && k <= MemberLeft }
func (k Kind) ofPath() bool   { return k >= CarrierUp && k <= AddressLost }
func (k Kind) ofLink() bool   { return k == LinkAlive || k == LinkSilent }

// Evidence is one observation.
type Evidence struct {
	Kind Kind
	Node string
	Path string
	Note string // for the reason's text; may be empty
	// Ago is how long before now the link carried something; LinkAlive only.
	Ago time.Duration
}

// Code names a reason in a way that does not change between releases.
type Code string

// The reasons.
const (
	Answers     Code = "answers"
	Missed      Code = "missed"       // answers are missing, not yet for long
	Silent      Code = "silent"       // no answers
	Left        Code = "left"         // said that it leaves
	NeverHeard  Code = "never-heard"  // since this node began to listen
	NotYetHeard Code = "not-yet"      // likewise, but it is early
	NoCarrier   Code = "no-carrier"   // the cable is out or the peer's box off
	DeviceOff   Code = "device-down"  // this node's own end
	NoAddress   Code = "address-lost" // this node's own end
	Recovering  Code = "recovering"   // answers again, not yet for long enough
	MirrorLink  Code = "mirror-link"  // the mirror link carries traffic
	LinkQuiet   Code = "link-silent"  // the mirror link does not
	Confirming  Code = "confirming"   // every path is lost, not yet for long enough
	Blind       Code = "blind"        // this node's own ends are all down: nothing can be said of the peer
	Disused     Code = "no-path"      // no path is configured
)

// own reports whether the fault is this node's.
func (c Code) own() bool { return c == DeviceOff || c == NoAddress }

// Reason says why, to programs and to people.
type Reason struct {
	Code Code
	Path string // "" when it concerns the node
	Text string
}

// PathVerdict is the verdict on one path to a node.
type PathVerdict struct {
	Path    string
	State   State
	Since   time.Duration
	Reasons []Reason
}

// Verdict is the verdict on one node.
type Verdict struct {
	Node    string
	State   State
	Since   time.Duration
	Reasons []Reason
	Paths   []PathVerdict // in configured order
}

// Change is a verdict that is no longer what it was. Path is "" for a node's.
type Change struct {
	Node, Path string
	Was, Now   State
	Because    []Reason
}

// Peer is a node to watch, and the paths to it in order of preference.
type Peer struct {
	Node  string
	Paths []string
}

// Config is what a Detector goes by. The zero durations stand for defaults.
type Config struct {
	Peers []Peer

	SuspectAfter time.Duration // without an answer
	DeadAfter    time.Duration // without an answer, or after a leave
	Confirm      time.Duration // how long every path must be lost before a node is dead
	Recover      time.Duration // how long a lost path must answer before it counts; doubles with each loss within a minute, up to 16 times
	Grace        time.Duration // from the beginning, before silence says anything
	LinkFresh    time.Duration // how long traffic on the mirror link proves the peer alive
	// Stall is the longest time between two steps that counts as listening.
	// The rest of a longer one is this node's own standstill and is not held
	// against the peers.
	Stall time.Duration
}

// Defaults of Config, for probes every 200 ms.
const (
	DefaultSuspectAfter = 600 * time.Millisecond
	DefaultDeadAfter    = 1200 * time.Millisecond
	DefaultConfirm      = 100 * time.Millisecond
	DefaultRecover      = time.Second
	DefaultGrace        = 5 * time.Second
	DefaultLinkFresh    = time.Second
	DefaultStall        = 500 * time.Millisecond

	flapWindow   = time.Minute
	flapDoubling = 4
)

func (c *Config) complete() error {
	for _, d := range []struct {
		at    *time.Duration
		value time.Duration
		name  string
	}{
		{&c.SuspectAfter, DefaultSuspectAfter, "suspect after"}, {&c.DeadAfter, DefaultDeadAfter, "dead after"},
		{&c.Confirm, DefaultConfirm, "confirm"}, {&c.Recover, DefaultRecover, "recover"},
		{&c.Grace, DefaultGrace, "grace"}, {&c.LinkFresh, DefaultLinkFresh, "link fresh"},
		{&c.Stall, DefaultStall, "stall"},
	} {
		if *d.at < 0 {
			return fmt.Errorf("%s %s: must not be negative", d.name, *d.at)
		}
		if *d.at == 0 {
			*d.at = d.value
		}
	}
	if c.SuspectAfter >= c.DeadAfter {
		return fmt.Errorf("suspect after %s, dead after %s: the first must be shorter", c.SuspectAfter, c.DeadAfter)
	}
	return c.checkPeers()
}

func (c *Config) checkPeers() error {
	seen := map[string]bool{}
	for _, p := range c.Peers {
		if p.Node == "" || seen[p.Node] {
			return fmt.Errorf("peer %q: a name is missing or there twice", p.Node)
		}
		seen[p.Node] = true
		paths := map[string]bool{}
		for _, path := range p.Paths {
			if path == "" || paths[path] {
				return fmt.Errorf("peer %s, path %q: a name is missing or there twice", p.Node, path)
			}
			paths[path] = true
		}
	}
	return nil
}

// ErrUnknownEvidence is returned for evidence about a node or path that is not
// configured, or of no known kind.
var ErrUnknownEvidence = errors.New("evidence about nothing that is watched")
