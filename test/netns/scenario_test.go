package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"hapair/test/lab"
	"hapair/test/lab/record"
	"hapair/test/play"
	"hapair/test/script"
)

// always are the scenarios that run here with every change: they bring what no
// other test of this package has. All of them run with HAPAIR_LONG=1.
var always = []string{"brief-resync", "outdate-early", "promote-and-demote", "resync-is-interrupted", "tiebreaker"}

// perPair is how many scenarios are played on one pair.
const perPair = 8

// TestScenarios plays the files of test/script/scenarios with real agents, as the
// simulator does in test/sim. HAPAIR_SCENARIO=NAME plays one.
func TestScenarios(t *testing.T) {
	all, err := script.All()
	if err != nil {
		t.Fatal(err)
	}
	var p *pair
	played, on := 0, 0
	for _, s := range all {
		if !wanted(s.Name) {
			continue
		}
		if on++; p == nil || on > perPair {
			if p != nil {
				p.down()
			}
			p, on = newPair(t, true, scenarioPair), 1
		}
		played++
		if !t.Run(s.Name, func(t *testing.T) { p.play(t, s) }) {
			on = perPair // what it left is not what the next one expects
		}
		p.t = t
	}
	if played == 0 {
		t.Fatal("no scenario was played")
	}
}

// scenarioPair gives disks and peers little time, so that nobody waits for long.
func scenarioPair(o *lab.Options) { o.Settings = []string{"disk_timeout: 3s", "peer_timeout: 6s"} }

func wanted(name string) bool {
	if one := os.Getenv("HAPAIR_SCENARIO"); one != "" {
		return one == name
	}
	return os.Getenv("HAPAIR_LONG") != "" || slices.Contains(always, name)
}

// play plays one scenario on the pair, from where every scenario begins.
func (p *pair) play(t *testing.T, s *script.Scenario) {
	p.t = t
	p.member(script.Alpha, script.Gamma, "alive")
	l := play.New(p.ctx, namespaces{p}, play.Speed{Pace: tick, Slow: 1})
	defer l.Close()
	p.must(l.Begin())
	p.must(s.Play(l, p.say))
	p.say("%d answers, at most %s without one", l.Answers(), l.Gap())
}

// namespaces is a pair for package play.
type namespaces struct{ *pair }

// Say implements play.Pair.
func (n namespaces) Say(format string, args ...any) { n.say(format, args...) }

// Do implements play.Pair.
func (n namespaces) Do(a script.Action) error {
	p := n.pair
	switch a.Verb {
	case script.Cut:
		return p.Cut(a.Node, a.Path)
	case script.Heal:
		return p.Heal(a.Node, a.Path)
	case script.DiskFails:
		return p.Fault(p.ctx, a.Node, brokenDisk)
	case script.DiskHangs:
		return p.Fault(p.ctx, a.Node, hangs)
	case script.DiskIsSlow:
		return p.Fault(p.ctx, a.Node, "write,flush delay=30ms")
	case script.DiskWorks:
		return errors.Join(p.Fault(p.ctx, a.Node, "clear"), p.Fault(p.ctx, a.Node, "release"))
	}
	do := map[script.Verb]func(*lab.Lab, string) error{
		script.PowerOff: (*lab.Lab).PowerOff, script.PowerOn: (*lab.Lab).PowerOn, script.Kill: (*lab.Lab).Kill, script.Stop: (*lab.Lab).Stop,
		script.Start: (*lab.Lab).Start, script.Pause: (*lab.Lab).Pause, script.Resume: (*lab.Lab).Resume,
	}[a.Verb]
	if do == nil {
		return fmt.Errorf("%s: not implemented in this lab", a)
	}
	return do(p.Lab, a.Node)
}

// Write implements play.Pair.
func (n namespaces) Write() (play.Writer, error) { return n.write(), nil }

// Acks implements play.Writer.
func (w *writer) Acks(from int) []record.Ack {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.acks[from:])
}

// End implements play.Writer.
func (w *writer) End() { w.end() }

// Check implements play.Pair. Records of earlier scenarios are looked for as well.
func (n namespaces) Check(_ context.Context, _ string, answered []record.Ack) error {
	for _, a := range answered {
		n.acked[a.N] = true
	}
	n.finish()
	if n.t.Failed() {
		return errors.New("see above")
	}
	return nil
}
