package netns

import (
	"fmt"
	"os"
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
