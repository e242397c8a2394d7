package sim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"hapair/test/script"
)

// TestScenarios plays every scenario with HAPAIR_SCENARIO_SEEDS seeds (20 unless
// set), from SEED on, and with those that failed once. HAPAIR_SCENARIO=NAME plays
// one.
func TestScenarios(t *testing.T) {
	all, err := script.All()
	if err != nil {
		t.Fatal(err)
	}
	seeds, first := envInt(20, "HAPAIR_SCENARIO_SEEDS"), uint64(envInt(1, "SEED"))
	if os.Getenv("HAPAIR_SIM_COUNT") != "" {
		countScenarios(all, seeds, first)
		return
	}
	for _, s := range all {
		if name := os.Getenv("HAPAIR_SCENARIO"); name == "" || name == s.Name {
			t.Run(s.Name, func(t *testing.T) { playSeeds(t, s, seeds, first) })
		}
	}
}

// run is a scenario in the world of a seed.
type run struct {
	scenario *script.Scenario
	seed     uint64
}

func (r run) play(keepLog bool) (*Scripted, error) {
	s := NewScripted(r.seed, keepLog)
	return s, r.scenario.Play(s, nil)
}

// playSeeds plays one scenario on all processors and tells of the lowest seed that
// fails.
func playSeeds(t *testing.T, s *script.Scenario, seeds int, first uint64) {
	todo := slices.Clone(s.Seeds)
	for n := range uint64(seeds) {
		todo = append(todo, first+n)
	}
	var mu sync.Mutex
	var failed []run
	var virtual time.Duration
	began, answers := time.Now(), 0
	var workers sync.WaitGroup
	jobs := make(chan run)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for r := range jobs {
				w, err := r.play(false)
				mu.Lock()
				virtual, answers = virtual+w.Now(), answers+w.answers
				if err != nil {
					failed = append(failed, r)
				}
				mu.Unlock()
			}
		})
	}
	for _, seed := range todo {
		jobs <- run{s, seed}
	}
	close(jobs)
	workers.Wait()
	if len(failed) > 0 {
		lowest := slices.MinFunc(failed, func(a, b run) int { return int(a.seed) - int(b.seed) })
		t.Fatalf("%d of %d seeds fail\n%s", len(failed), len(todo), lowest.report())
	}
	t.Logf("%d seeds, %d answers, %s of virtual time in %s", len(todo), answers, virtual.Round(time.Second), time.Since(began).Round(10*time.Millisecond))
}

// report tells of a run that fails: how, its log, and a shorter scenario that fails
// in the same way.
func (r run) report() string {
	w, err := r.play(true)
	path := filepath.Join(os.TempDir(), fmt.Sprintf("hapair-scenario-%s-%d.log", r.scenario.Name, r.seed))
	if werr := os.WriteFile(path, []byte(w.Log()), 0o644); werr != nil {
		path = werr.Error()
	}
	short := shrinkScenario(r, func(r run) error { _, err := r.play(false); return err })
	short.scenario.Seeds = append(slices.Clone(short.scenario.Seeds), r.seed)
	return fmt.Sprintf("seed %d: %v\nlog: %s\nshorter, for a file of its own:\n%s", r.seed, err, path, short.scenario)
}

// shrinkScenario leaves out the steps without which it fails by the same law.
func shrinkScenario(r run, fails func(run) error) run {
	way := wayOf(fails(r))
	for i := len(r.scenario.Steps) - 1; i >= 0; i-- {
		if r.scenario.Steps[i].Kind == script.Load {
			continue
		}
		short := *r.scenario
		short.Steps = slices.Delete(slices.Clone(short.Steps), i, i+1)
		if wayOf(fails(run{&short, r.seed})) == way {
			r.scenario = &short
		}
	}
	return r
}

// wayOf is how a run failed: the law, or the words of the step.
func wayOf(err error) string {
	var step *script.StepError
	if law := lawOf(err); law != "other" || !errors.As(err, &step) {
		return law
	}
	return step.Step.String()
}

// countScenarios says how many runs fail, and of which scenarios, for mutants.sh.
func countScenarios(all []*script.Scenario, seeds int, first uint64) {
	const enough = 12
	failed, runs := 0, 0
	var names []string
	for n := range uint64(seeds) {
		for _, s := range all {
			if failed == enough {
				break
			}
			runs++
			if _, err := (run{s, first + n}).play(false); err != nil {
				failed++
				if !slices.Contains(names, s.Name) {
					names = append(names, s.Name)
				}
			}
		}
	}
	fmt.Printf("MUTANT %d of %d scenarios%s\n", failed, runs, fmt.Sprint("; ", names))
}

// A scenario that fails is told shorter, and fails in the same way.
func TestShrinkScenario(t *testing.T) {
	s, err := script.Parse("x.txt", []byte("scenario x\nnever two-primaries\nnever ack-lost\nload on\nwait 10ms\nkill beta\nstart beta\npause alpha\nwait 10ms\n"))
	if err != nil {
		t.Fatal(err)
	}
	broken := func(r run) error {
		w, err := r.play(false)
		if err == nil && slices.ContainsFunc(r.scenario.Steps, func(s script.Step) bool { return s.Verb == script.Pause }) {
			err = fmt.Errorf("made up after %s", w.Now())
		}
		return err
	}
	if short := shrinkScenario(run{s, 3}, broken); len(short.scenario.Steps) != 2 || short.scenario.Steps[1].Verb != script.Pause {
		t.Fatalf("%s", short.scenario)
	}
}
