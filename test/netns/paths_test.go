package netns

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// pathTrial is one kind of trouble with the crossover, and what it cost.
type pathTrial struct {
	name string
	ill  func(p *pair, primary, secondary string)
	mend func(p *pair, primary, secondary string)
}

func pathTrials() []pathTrial {
	ail := func(ill lab.Ill, at func(primary, secondary string) []string) pathTrial {
		return pathTrial{ill: func(p *pair, primary, secondary string) {
			for _, node := range at(primary, secondary) {
				p.must(p.Ail(node, lab.Crossover, ill))
			}
		}, mend: func(p *pair, primary, secondary string) {
			for _, node := range at(primary, secondary) {
				p.must(p.Heal(node, lab.Crossover))
			}
		}}
	}
	toSecondary := func(_, s string) []string { return []string{s} }
	toPrimary := func(p, _ string) []string { return []string{p} }
	both := func(p, s string) []string { return []string{p, s} }
	named := func(name string, t pathTrial) pathTrial { t.name = name; return t }
	return []pathTrial{
		{"cable cut", func(p *pair, primary, _ string) { p.must(p.Cut(primary, lab.Crossover)) },
			func(p *pair, primary, _ string) { p.must(p.Heal(primary, lab.Crossover)) }},
		named("silent, both ways", ail(lab.Deaf, both)),
		named("silent, to the Secondary", ail(lab.Deaf, toSecondary)),
		named("silent, to the Primary", ail(lab.Deaf, toPrimary)),
		named("large frames vanish, both ways", ail(lab.Narrow, both)),
		named("large frames vanish, to the Secondary", ail(lab.Narrow, toSecondary)),
		named("large frames vanish, to the Primary", ail(lab.Narrow, toPrimary)),
		{"flapping: 1 s out, 1 s in, five times", flap, func(*pair, string, string) {}},
	}
}

func flap(p *pair, primary, _ string) {
	for range 5 {
		p.must(p.Cut(primary, lab.Crossover))
		idle(p, time.Second)
		p.must(p.Heal(primary, lab.Crossover))
		idle(p, time.Second)
	}
}

// idle lets time pass that is itself what is tried.
func idle(p *pair, d time.Duration) {
	select {
	case <-time.After(d):
	case <-p.ctx.Done():
		p.t.Fatal(p.ctx.Err())
	}
}

// Whatever ails the crossover while its carrier is there: the mirror leaves it,
// comes back when it is well, and no request fails. The in-sync set stays what it
// was, but for a machine that is too busy to dial within the time a session may be
// without streams.
func TestSickCrossover(t *testing.T) {
	if os.Getenv("HAPAIR_LONG") == "" {
		t.Skip("takes long: HAPAIR_LONG=1")
	}
	p := newPair(t, false, nil)
	primary, secondary := p.settle()
	p.pathOf(primary, lab.Crossover)
	changed, sick := 0, pathTrials()[1:7]
	for _, trial := range sick {
		b := p.probe(primary)
		b.progress(steady)
		before := p.look(primary).Token
		trial.ill(p, primary, secondary)
		p.pathOf(primary, lab.LAN)
		b.progress(steady)
		trial.mend(p, primary, secondary)
		after := p.pathOf(primary, lab.Crossover).Token
		b.progress(steady)
		b.stop()
		if f := b.failures(); len(f) > 0 {
			t.Errorf("%s: requests failed: %+v", trial.name, f)
		}
		if after != before {
			changed++
			p.say("%s: the in-sync set changed", trial.name)
		}
		p.unmoved(primary)
	}
	if changed > len(sick)/2 {
		t.Errorf("the in-sync set changed in %d of %d trials", changed, len(sick))
	}
	p.finish()
}

// A cable that comes and goes is left alone for longer each time, and taken again
// in the end.
func TestFlappingCrossover(t *testing.T) {
	if os.Getenv("HAPAIR_LONG") == "" {
		t.Skip("takes long: HAPAIR_LONG=1")
	}
	p := newPair(t, false, nil)
	primary, secondary := p.settle()
	p.pathOf(primary, lab.Crossover)
	b := p.probe(primary)
	flap(p, primary, secondary)
	x := p.streams(primary, secondary)
	if x.Use != apiv1.PathHeld && x.Use != apiv1.PathBad || x.Losses < 3 || x.Moves > x.Losses {
		t.Errorf("after five flaps: %+v", x)
	}
	p.pathOf(primary, lab.Crossover)
	b.progress(steady)
	b.stop()
	p.unmoved(primary)
	p.finish()
}

// streams is what a node knows of the crossover to another.
func (p *pair) streams(of, about string) *apiv1.Streams {
	p.t.Helper()
	s, err := p.Status(p.ctx, of)
	p.must(err)
	for _, m := range s.Members {
		for _, x := range m.Paths {
			if m.Name == about && x.Name == lab.Crossover && x.Streams != nil {
				return x.Streams
			}
		}
	}
	p.t.Fatalf("%s says nothing of its crossover to %s", of, about)
	return nil
}

// TestPathTrials prints, for each kind of trouble, what mirror, ledger and
// heartbeat made of it. Nothing of the figures is asserted but that no request
// failed and nobody changed its role.
func TestPathTrials(t *testing.T) {
	if os.Getenv("HAPAIR_PATHS") == "" {
		t.Skip("a measurement: make paths")
	}
	p := newPair(t, false, nil)
	primary, secondary := p.settle()
	var lines []string
	for _, trial := range pathTrials() {
		lines = append(lines, p.tryPath(trial, primary, secondary))
	}
	p.finish()
	t.Logf("\n%-40s %8s %8s %6s %7s  %s\n%s", "", "gap", "settled", "set", "leader", "after 4 s: the mirror's path, heartbeat's word on the crossover; back on the crossover, gap then", strings.Join(lines, "\n"))
}

// TestPathCuts prints how long a write waited at most when the cable that carries
// the mirror is cut, and when nothing is. None of the figures is asserted.
func TestPathCuts(t *testing.T) {
	if os.Getenv("HAPAIR_PATHS") == "" {
		t.Skip("a measurement: make paths")
	}
	p := newPair(t, false, nil)
	primary, secondary := p.settle()
	b := p.probe(primary)
	b.progress(steady)
	const cuts, look = 12, time.Second
	var quiet, cut []time.Duration
	before := p.look(primary).Token
	for range cuts {
		p.settle()
		path := p.look(primary).Peers[0].Path // whichever carries the mirror
		began := bootTime()
		idle(p, look)
		quiet = append(quiet, b.gap(began, bootTime()))
		began = bootTime()
		p.must(p.Cut(primary, path))
		idle(p, look)
		cut = append(cut, b.gap(began, bootTime()))
		p.resource(primary, "mirrors over the other path", func(r *apiv1.Resource) bool { return inSync(r) && r.Peers[0].Path != path })
		p.must(p.Heal(primary, path))
		p.pathState(primary, secondary, path, apiv1.MemberAlive)
		p.say("so far: cut %s, not %s; in-sync set changed %d times", cut, quiet, p.look(primary).Token-before)
	}
	changes := p.settleRecord(primary).Token - before
	b.stop()
	p.unmoved(primary)
	t.Logf("longest wait of a write within %s: %s when the cable is cut, %s when it is not; %d cuts, the in-sync set changed %d times", look, spread(cut), spread(quiet), len(cut), changes)
}

// spread is median and range of figures.
func spread(all []time.Duration) string {
	slices.Sort(all)
	return fmt.Sprintf("median %s (%s to %s)", all[len(all)/2], all[0], all[len(all)-1])
}

// tryPath plays one trial and says in a line what came of it.
func (p *pair) tryPath(trial pathTrial, primary, secondary string) string {
	p.t.Helper()
	p.overCrossover(primary)
	b := p.probe(primary)
	b.progress(steady)
	before := p.look(primary)
	began, wasLeader := bootTime(), p.leader(primary)
	trial.ill(p, primary, secondary)
	idle(p, 4*time.Second)
	ill := bootTime()
	path, word := "none", p.word(primary, secondary)
	if r := p.look(primary); r != nil && r.Peers[0].Connection == "Connected" {
		path = r.Peers[0].Path
	}
	trial.mend(p, primary, secondary)
	back := "not within 15 s"
	mended := bootTime()
	for bootTime()-mended < 15*time.Second {
		if r := p.look(primary); r != nil && inSync(r) && r.Peers[0].Path == lab.Crossover {
			back = fmt.Sprintf("after %.1f s", (bootTime() - mended).Seconds())
			break
		}
		idle(p, tick)
	}
	idle(p, time.Second)
	again := bootTime()
	b.progress(steady)
	after := p.settleRecord(primary)
	b.stop()
	if f := b.failures(); len(f) > 0 && !strings.Contains(fmt.Sprint(f), "interrupted") {
		p.t.Errorf("%s: requests failed: %+v", trial.name, f)
	}
	p.unmoved(primary)
	return fmt.Sprintf("%-40s %8s %8s %6d %7t  %s, %s; %s, %s", trial.name, b.gap(began, ill), b.settled(began, ill), after.Token-before.Token,
		wasLeader != p.leader(primary), path, word, back, b.gap(mended, again))
}

// overCrossover has the mirror go over the crossover, by force if need be.
func (p *pair) overCrossover(primary string) {
	p.t.Helper()
	p.settle()
	if p.look(primary).Peers[0].Path != lab.Crossover {
		p.must(p.Cut(primary, lab.LAN))
		p.pathOf(primary, lab.Crossover)
		p.must(p.Heal(primary, lab.LAN))
		p.pathState(primary, p.other(primary), lab.LAN, apiv1.MemberAlive)
	}
	p.settle()
}

// settleRecord waits until both copies are in the set and returns the resource.
func (p *pair) settleRecord(primary string) *apiv1.Resource {
	return p.resource(primary, "both copies are current", func(r *apiv1.Resource) bool { return serving(r) && inSync(r) })
}

// leader is the ledger's, by a node's word.
func (p *pair) leader(node string) string {
	s, err := p.Status(p.ctx, node)
	p.must(err)
	return s.Quorum.Leader
}

// word is what the heartbeat of a node says of the crossover to another.
func (p *pair) word(of, about string) string {
	s, err := p.Status(p.ctx, of)
	p.must(err)
	for _, m := range s.Members {
		for _, x := range m.Paths {
			if m.Name == about && x.Name == lab.Crossover {
				return x.State
			}
		}
	}
	return "nothing"
}

// gap is the longest time without an answered write in a span.
func (b *probe) gap(from, to time.Duration) time.Duration {
	longest, _ := b.gaps(from, to)
	return longest.Round(time.Millisecond)
}

// settled is when the last gap of more than 100 ms of a span was over, from its
// begin on.
func (b *probe) settled(from, to time.Duration) time.Duration {
	_, last := b.gaps(from, to)
	return last.Round(time.Millisecond)
}

func (b *probe) gaps(from, to time.Duration) (longest, over time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := from
	for _, a := range b.answers {
		if a.kind != b.kind || a.failure != "" || a.ended < from || a.ended > to {
			continue
		}
		if a.ended-at > longest {
			longest = a.ended - at
		}
		if a.ended-at > 100*time.Millisecond {
			over = a.ended - from
		}
		at = a.ended
	}
	if to-at > longest {
		longest, over = to-at, to-from
	}
	return longest, over
}
