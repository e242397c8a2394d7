package bubble

import (
	"fmt"
	"testing"
	"time"

	"hapair/failover/ledger"
)

// patient is a configuration for a machine that is busy with other things.
func patient() setup {
	return setup{silence: 3 * time.Second,
		timing: ledger.Timing{Heartbeat: time.Second, Lease: 4 * time.Second, Renew: 500 * time.Millisecond, Margin: time.Second}}
}

// prompt is how long a cold start may take: a voter that began promises nothing
// before every promise it may have forgotten has run out, by a clock that may
// be slow; meanwhile the ledger finds its leader, in a second vote at the
// latest. The rest is what the machines themselves take.
func (s setup) prompt() time.Duration {
	owed := (max(s.timing.Lease, 500*time.Millisecond) + s.timing.Margin) * 102 / 100
	elected := 4 * max(s.timing.Heartbeat, 200*time.Millisecond)
	return max(owed, elected) + 150*time.Millisecond
}

// switchOn boots nodes, all at once.
func (w *World) switchOn(nodes ...string) {
	for _, n := range nodes {
		w.boot(n)
	}
}

// runWell is run for one that is on, and well.
func runWell(t *testing.T, s setup, fn func(w *World)) {
	run(t, 1, s, func(w *World) {
		w.switchOn(s.nodes()...)
		w.await(60*time.Second, "all is well at first", w.ailing)
		fn(w)
	})
}

// manualPair has no witness, and alpha serves first.
func manualPair() setup {
	s := usual()
	s.manual, s.preferred = true, alpha
	return s
}

// startsOn waits until node serves, and no longer than a cold start may take.
func (w *World) startsOn(node string) {
	w.t.Helper()
	took := w.await(w.setup.prompt(), node+" serves", func() string {
		if p := w.primary(); p != node {
			return fmt.Sprintf("serving: %q", p)
		}
		return ""
	})
	w.t.Logf("%s serves after %v", node, took)
}

// coldly plays fn with each configuration and several seeds.
func coldly(t *testing.T, fn func(t *testing.T, seed int64, s setup)) {
	for name, s := range map[string]setup{"usual": usual(), "patient": patient()} {
		for seed := range int64(6) {
			s.preferred = dataNodes[seed%2]
			t.Run(fmt.Sprintf("%s %s %d", name, s.preferred, seed), func(t *testing.T) { fn(t, seed, s) })
		}
	}
}

// A fresh pair is declared and promoted once, where it is preferred: nothing is
// taken out of the set and copied on the way.
func TestAFreshPairStarts(t *testing.T) {
	coldly(t, func(t *testing.T, seed int64, s setup) {
		run(t, seed, s, func(w *World) {
			w.switchOn(allNodes...)
			w.startsOn(s.preferred)
			if r, _ := w.get(s.preferred).ledger.Record(resource); r.Token != 2 {
				w.failf("declared and promoted is token 2, the record says %+v", r)
			}
			w.await(10*time.Second, "all is well", w.ailing)
		})
	})
}

// A pair that was stopped in order starts where it is preferred, also when
// another node stays away.
func TestARestedPairStarts(t *testing.T) {
	coldly(t, func(t *testing.T, seed int64, s setup) {
		first := s.preferred
		sets := [][]string{{first, other(first), witness}, {witness, other(first), first}, {first, witness}, {first, other(first)}}
		run(t, seed, s, func(w *World) {
			w.switchOn(allNodes...)
			w.await(30*time.Second, "all is well at first", w.ailing)
			for _, nodes := range sets {
				w.hush(true)
				time.Sleep(100 * time.Millisecond)
				p := w.primary()
				for _, n := range []string{other(p), p, witness} {
					if err := w.stop(n); err != nil {
						t.Errorf("stop %s: %v", n, err)
					}
				}
				w.hush(false)
				time.Sleep(10 * time.Second)
				w.switchOn(nodes...)
				w.startsOn(first)
				w.recover(again)
			}
			w.still()
		})
	})
}

// When all power was cut, the last Primary goes on where it was.
func TestAPairWithoutPowerStarts(t *testing.T) {
	coldly(t, func(t *testing.T, seed int64, s setup) {
		run(t, seed, s, func(w *World) {
			w.switchOn(allNodes...)
			w.await(30*time.Second, "all is well at first", w.ailing)
			p := w.primary()
			for _, n := range []string{other(p), p, witness} {
				w.crash(n, true)
			}
			time.Sleep(10 * time.Second)
			w.switchOn(allNodes...)
			w.startsOn(p)
			w.recover(again)
			w.still()
		})
	})
}
