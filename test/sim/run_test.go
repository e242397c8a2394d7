package sim

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// story is one run: a seed, perhaps a shorter one, perhaps without some kinds of
// trouble.
type story struct {
	kind    kind
	seed    uint64
	steps   int
	without []string
}

// String is the story as a line of seeds.txt.
func (s story) String() string {
	text := fmt.Sprint(s.seed)
	if s.kind.name != plain.name {
		text = s.kind.name + " " + text
	}
	if s.steps != stepsPerSeed {
		text += fmt.Sprintf(" steps=%d", s.steps)
	}
	if len(s.without) > 0 {
		text += " without=" + strings.Join(s.without, ",")
	}
	return text
}

// parseStory reads a line: the kind of world unless it is plain, the seed, then
// steps= and without=, then words.
func parseStory(line string) (s story, err error) {
	s = story{kind: plain, steps: stepsPerSeed}
	words := strings.Fields(line)
	if len(words) > 0 {
		if k, ok := kinds[words[0]]; ok {
			s.kind, words = k, words[1:]
		}
	}
	if len(words) == 0 {
		return s, fmt.Errorf("%q: no seed", line)
	}
	if s.seed, err = strconv.ParseUint(words[0], 10, 64); err != nil {
		return s, fmt.Errorf("%q: seed: %w", line, err)
	}
	for _, word := range words[1:] {
		if n, ok := strings.CutPrefix(word, "steps="); ok {
			if s.steps, err = strconv.Atoi(n); err != nil {
				return s, fmt.Errorf("%q: steps: %w", line, err)
			}
		} else if list, ok := strings.CutPrefix(word, "without="); ok {
			s.without = strings.Split(list, ",")
		} else {
			break
		}
	}
	return s, nil
}

func (s story) world(keepLog bool) *World {
	w := s.kind.make(s.seed, keepLog)
	w.Without(s.without...)
	return w
}

func (s story) fails() error { return s.kind.run(s.world(false), s.steps) }

// report keeps the log of a story that fails, and says how to tell it again.
func (s story) report(err error) string {
	w := s.world(true)
	if second := s.kind.run(w, s.steps); second == nil || lawOf(second) != lawOf(err) {
		return fmt.Sprintf("%s fails differently the second time: %v, then %v", s, err, second)
	}
	path := fmt.Sprintf("%s/hapair-sim-%s-%d.log", os.TempDir(), s.kind.name, s.seed)
	if werr := os.WriteFile(path, []byte(w.Log()), 0o644); werr != nil {
		path = werr.Error()
	}
	return fmt.Sprintf("%s: %v\nlog: %s\nfor seeds.txt: %s", s, err, path, s)
}

// firstLine is what broke, without the stack of a panic, which is never twice the same.
func firstLine(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}

// shrink tells a story that fails in fewer steps and with fewer kinds of trouble,
// as long as it fails by the same law.
func shrink(s story, fails func(story) error) story {
	law := lawOf(fails(s))
	same := func(s story) bool { err := fails(s); return err != nil && lawOf(err) == law }
	lo, hi := 0, s.steps
	for hi-lo > 1 {
		short := s
		if short.steps = (lo + hi) / 2; same(short) {
			hi = short.steps
		} else {
			lo = short.steps
		}
	}
	s.steps = hi
	w := s.world(false)
	s.kind.run(w, s.steps) //nolint:errcheck // it fails: what came in it is asked
	for _, k := range slices.Sorted(maps.Keys(w.Troubles())) {
		short := s
		if short.without = append(slices.Clone(s.without), k); same(short) {
			s = short
		}
	}
	return s
}

// tally is what the workers of a run have done.
type tally struct {
	mu       sync.Mutex
	next     uint64
	answers  int
	troubles map[string]int
	failed   []failure
}

// failure is a story in which a law was broken.
type failure struct {
	story
	why error
}

// enough failures end a run: a fault that is found so easily needs no more, and a rare
// one is worth the rest of a long run, for what else there is.
const enough = 12

// runSeeds runs as many worlds of a kind as usual, or HAPAIR_SIM_SEEDS, or that part
// of SEEDS, from SEED on, on all processors.
func runSeeds(t *testing.T, usual, part int, k kind) {
	seeds, first := envInt(usual, "HAPAIR_SIM_SEEDS"), uint64(envInt(1, "SEED"))
	if n := envInt(0, "SEEDS"); n > 0 {
		seeds = max(n/part, 1)
	}
	if os.Getenv("HAPAIR_SIM_COUNT") != "" {
		countFailures(first, seeds, k)
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // worlds are small and many: half as many seconds
	start, x := time.Now(), tally{next: first, troubles: map[string]int{}}
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for seed, ok := x.take(first + uint64(seeds)); ok; seed, ok = x.take(first + uint64(seeds)) {
				x.tell(story{kind: k, seed: seed, steps: stepsPerSeed})
			}
		})
	}
	workers.Wait()
	if len(x.failed) > 0 {
		t.Fatal(x.report(x.next - first))
	}
	if x.answers == 0 {
		t.Fatal("no request was ever answered: the simulation does nothing")
	}
	t.Logf("%d seeds, %d requests answered, %.0f seeds/s", seeds, x.answers, float64(seeds)/time.Since(start).Seconds())
	text := ""
	for _, name := range slices.Sorted(maps.Keys(x.troubles)) {
		text += fmt.Sprintf(" %s %d,", name, x.troubles[name])
	}
	t.Logf("trouble:%s", strings.TrimSuffix(text, ","))
}

// take gives the next seed to a worker, until one has failed.
func (x *tally) take(end uint64) (seed uint64, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	seed = x.next
	if seed < end && len(x.failed) < enough {
		x.next++
		return seed, true
	}
	return 0, false
}

// report tells the failure of the lowest seed in full, and names the others.
func (x *tally) report(run uint64) string {
	slices.SortFunc(x.failed, func(a, b failure) int { return cmp.Compare(a.seed, b.seed) })
	first := x.failed[0]
	short := shrink(first.story, story.fails)
	text := fmt.Sprintf("%s\n\nshorter: %s", first.report(first.why), short.report(short.fails()))
	if len(x.failed) > 1 {
		text += fmt.Sprintf("\n\n%d of %d seeds fail:", len(x.failed), run)
		for _, f := range x.failed {
			text += fmt.Sprintf("\n%s: %s", f.story, firstLine(f.why))
		}
	}
	return text
}

func (x *tally) tell(s story) {
	w := s.world(false)
	err := s.kind.run(w, s.steps)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answers += w.Answers()
	for name, n := range w.Troubles() {
		x.troubles[name] += n
	}
	if err != nil {
		x.failed = append(x.failed, failure{s, err})
	}
}

// countFailures says in how many seeds something is wrong, for mutants.sh.
func countFailures(first uint64, seeds int, k kind) {
	failed, run, words := 0, 0, ""
	for ; run < seeds && failed < enough; run++ {
		seed := first + uint64(run)
		if err := k.run(k.make(seed, false), stepsPerSeed); err != nil {
			if failed++; failed == 1 {
				words = fmt.Sprintf("; seed %d: %.90s", seed, firstLine(err))
			}
		}
	}
	fmt.Printf("MUTANT %d of %d seeds%s\n", failed, run, words)
}

func envInt(otherwise int, name string) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}
