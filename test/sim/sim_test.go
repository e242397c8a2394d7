package sim

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
)

// stepsPerSeed is how long a world is under faults before it heals.
const stepsPerSeed = 4000

// TestSeeds runs SEEDS worlds (200 unless set) from SEED on.
func TestSeeds(t *testing.T) { runSeeds(t, 200, 1, plain) }

// TestRotSeeds runs worlds with verifies, and with copies that rot.
func TestRotSeeds(t *testing.T) { runSeeds(t, 30, 20, rot) }

// TestHangSeeds runs worlds whose disks hang.
func TestHangSeeds(t *testing.T) { runSeeds(t, 60, 4, hang) }

// TestGrowSeeds runs worlds whose volumes grow.
func TestGrowSeeds(t *testing.T) { runSeeds(t, 60, 4, grow) }

// TestProtocolSeeds runs worlds by protocols A and B.
func TestProtocolSeeds(t *testing.T) { runSeeds(t, 60, 2, loose) }

// TestGiveUpSeeds runs worlds in which somebody gives up what only one side has, for
// no reason: nothing that was answered is lost by it.
func TestGiveUpSeeds(t *testing.T) { runSeeds(t, 30, 20, giveUp) }

// TestErrorSeeds runs worlds in which applications are told of errors: I/O fails where
// there is no quorum for long, and where a disk fails.
func TestErrorSeeds(t *testing.T) { runSeeds(t, 60, 4, errs) }

// TestForceSeeds runs worlds in which copies that are not current are promoted by force.
func TestForceSeeds(t *testing.T) { runSeeds(t, 60, 4, force) }

// TestWideSeeds runs worlds with a bitmap of several pages.
func TestWideSeeds(t *testing.T) { runSeeds(t, 20, 20, wide) }

// TestEverySeeds runs worlds in which all of this happens at once.
func TestEverySeeds(t *testing.T) { runSeeds(t, 60, 4, every) }

// kind is what a seed is run as.
type kind struct {
	name string
	make func(seed uint64, keepLog bool) *World
	run  func(w *World, steps int) error
}

var (
	plain  = kind{"plain", New, (*World).Run}
	hang   = kind{"hang", NewHang, (*World).Run}
	rot    = kind{"rot", NewRot, (*World).RunRot}
	grow   = kind{"grow", NewGrow, (*World).Run}
	loose  = kind{"protocol", NewEarly, (*World).Run}
	giveUp = kind{"give-up", NewGiveUp, (*World).Run}
	errs   = kind{"errors", NewErrors, (*World).Run}
	force  = kind{"force", NewForce, (*World).Run}
	wide   = kind{"wide", NewWide, (*World).Run}
	every  = kind{"every", NewEvery, (*World).RunRot}
	kinds  = map[string]kind{every.name: every, wide.name: wide, plain.name: plain, hang.name: hang, rot.name: rot, grow.name: grow, loose.name: loose, giveUp.name: giveUp, errs.name: errs, force.name: force}
)

// TestSeedsThatFailedOnce runs what seeds.txt lists, a story a line.
func TestSeedsThatFailedOnce(t *testing.T) {
	f, err := os.Open("seeds.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		s, err := parseStory(lines.Text())
		if err != nil {
			t.Fatalf("seeds.txt: %v", err)
		}
		if err := s.fails(); err != nil {
			t.Error(s.report(err))
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

// The same seed gives the same run, to the last line.
func TestSameSeedSameRun(t *testing.T) {
	var logs [2]string
	for i := range logs {
		w := New(7, true)
		if err := w.Run(stepsPerSeed); err != nil {
			t.Fatal(err)
		}
		logs[i] = w.Log()
	}
	if logs[0] != logs[1] {
		t.Fatal("two runs of seed 7 differ")
	}
}

// A story that fails is told shorter, and fails in the same way.
func TestShrink(t *testing.T) {
	s := story{kind: plain, seed: 7, steps: stepsPerSeed}
	broken := func(s story) error {
		w := s.world(false)
		if err := s.kind.run(w, s.steps); err != nil {
			return err
		}
		if w.Troubles()["crash"] > 0 && w.Troubles()["pause"] > 0 {
			return fmt.Errorf("made up: a crash and a pause")
		}
		return nil
	}
	if broken(s) == nil {
		t.Fatal("seed 7 has neither a crash nor a pause: choose another")
	}
	short := shrink(s, broken)
	if broken(short) == nil || short.steps > stepsPerSeed/2 || len(short.without) < 5 {
		t.Fatalf("%s", short)
	}
	again, err := parseStory(short.String() + " words")
	if err != nil || again.String() != short.String() {
		t.Fatalf("%s is read as %s: %v", short, again, err)
	}
}
