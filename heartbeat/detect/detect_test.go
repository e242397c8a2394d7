package detect

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var pair = []Peer{{Node: "beta", Paths: []string{"crossover", "lan"}}, {Node: "gamma", Paths: []string{"lan"}}}

type timed struct {
	at time.Duration
	e  Evidence
}

func drawEvents(t *rapid.T) []timed {
	var all []timed
	at := time.Duration(0)
	for range rapid.IntRange(0, 60).Draw(t, "events") {
		at += time.Duration(rapid.IntRange(0, 700).Draw(t, "ms")) * time.Millisecond
		p := rapid.SampledFrom(pair).Draw(t, "peer")
		all = append(all, timed{at, Evidence{
			Kind: Kind(rapid.IntRange(1, len(kindNames)-1).Draw(t, "kind")),
			Node: p.Node, Path: rapid.SampledFrom(p.Paths).Draw(t, "path"),
		}})
	}
	return all
}

func detector(t *rapid.T) *Detector {
	d, err := New(Config{Peers: pair}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func step(t *rapid.T, d *Detector, at time.Duration, e ...Evidence) []Change {
	changes, err := d.Step(at, e...)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

// Stepping at deadlines tells the same as stepping all the time: nothing is
// noticed late.
func TestDeadlinesMissNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := drawEvents(t)
		lazy, eager := detector(t), detector(t)
		var a, b []string
		note := func(to *[]string, at time.Duration, changes []Change) {
			for _, c := range changes {
				*to = append(*to, fmt.Sprintf("%s %s/%s %s %s", at, c.Node, c.Path, c.Was, c.Now))
			}
		}
		upTo := func(until time.Duration) {
			for at := eager.now + 10*time.Millisecond; at <= until; at += 10 * time.Millisecond {
				note(&b, at, step(t, eager, at))
			}
			for {
				at, ok := lazy.Deadline()
				if !ok || at > until {
					break
				}
				note(&a, at, step(t, lazy, at))
			}
		}
		for _, e := range events {
			e.at = e.at.Round(10 * time.Millisecond)
			upTo(e.at)
			note(&a, e.at, step(t, lazy, e.at, e.e))
			note(&b, e.at, step(t, eager, e.at, e.e))
		}
		upTo(eager.now + 20*time.Second)
		if !slices.Equal(a, b) {
			t.Fatalf("at deadlines:\n%q\nall the time:\n%q", a, b)
		}
	})
}

// A node is dead only if no path to it lives and its mirror link is quiet, or has none left
// to go over.
func TestDeadOnlyWhenEverythingIsLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := detector(t)
		for _, e := range drawEvents(t) {
			step(t, d, e.at, e.e)
			for i, v := range d.Verdicts() {
				own, ends := 0, 0
				for _, p := range v.Paths {
					if v.State == Dead && p.State != Dead {
						t.Fatalf("%s is dead, path %s %s", v.Node, p.Path, p.State)
					}
					if p.State == Alive && v.State != Alive {
						t.Fatalf("%s is %s, path %s alive", v.Node, v.State, p.Path)
					}
					if p.Reasons[0].Code.own() {
						own++
					}
					if c := p.Reasons[0].Code; c.own() || c == NoCarrier {
						ends++
					}
				}
				if v.State == Dead && own == len(v.Paths) {
					t.Fatalf("%s is called dead for this node's own faults: %+v", v.Node, v)
				}
				link := d.peers[i]
				if v.State == Dead && link.linkAlive && d.now-link.linkAt < d.cfg.LinkFresh && ends < len(v.Paths) {
					t.Fatalf("%s is dead while the mirror link lives", v.Node)
				}
				if len(v.Reasons) == 0 {
					t.Fatalf("%s is %s without a reason", v.Node, v.State)
				}
			}
		}
	})
}

// A second step at the same instant changes nothing, and changes chain.
func TestStepIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := detector(t)
		known := map[string]State{}
		for _, e := range drawEvents(t) {
			for _, c := range step(t, d, e.at, e.e) {
				key := c.Node + "/" + c.Path
				if c.Was == c.Now || known[key] != c.Was {
					t.Fatalf("change %+v after %s", c, known[key])
				}
				known[key] = c.Now
			}
			before := d.Verdicts()
			if again := step(t, d, e.at); len(again) > 0 || !reflect.DeepEqual(before, d.Verdicts()) {
				t.Fatalf("a second look sees %+v", again)
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	for name, cfg := range map[string]Config{
		"negative":      {Confirm: -1},
		"suspect later": {SuspectAfter: 2 * time.Second, DeadAfter: time.Second},
		"no name":       {Peers: []Peer{{}}},
		"peer twice":    {Peers: []Peer{{Node: "a"}, {Node: "a"}}},
		"path twice":    {Peers: []Peer{{Node: "a", Paths: []string{"x", "x"}}}},
	} {
		if _, err := New(cfg, 0); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	d, err := New(Config{Peers: pair}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []Evidence{{}, {Kind: Heard, Node: "beta", Path: "x"}, {Kind: Heard, Node: "x", Path: "lan"}, {Kind: CarrierUp, Path: "x"}, {Kind: LinkAlive}, {Kind: 99, Node: "beta", Path: "lan"}} {
		if _, err := d.Step(0, e); !errors.Is(err, ErrUnknownEvidence) {
			t.Errorf("%+v: %v", e, err)
		}
	}
}
