package sim

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// stepsPerSeed is how long a world is under faults before it heals.
const stepsPerSeed = 4000

// TestSeeds runs SEEDS worlds (200 unless set) from SEED on.
func TestSeeds(t *testing.T) { runSeeds(t, 200, plain) }

// TestRotSeeds runs worlds with verifies, and with copies that rot.
func TestRotSeeds(t *testing.T) { runSeeds(t, 30, rot) }

// TestHangSeeds runs worlds whose disks hang.
func TestHangSeeds(t *testing.T) { runSeeds(t, 60, hang) }

// kind is what a seed is run as.
type kind struct {
	name string
	make func(seed uint64, keepLog bool) *World
	run  func(w *World, steps int) error
}

var (
	plain = kind{"", New, (*World).Run}
	hang  = kind{"hang-", NewHang, (*World).Run}
	rot   = kind{"rot-", NewRot, (*World).RunRot}
)

func runSeeds(t *testing.T, usual int, k kind) {
	seeds, first := envInt(usual, "SEEDS", "HAPAIR_SIM_SEEDS"), envInt(1, "SEED")
	if os.Getenv("HAPAIR_SIM_COUNT") != "" {
		countFailures(uint64(first), seeds, k)
		return
	}
	start, answers := time.Now(), 0
	for seed := first; seed < first+seeds; seed++ {
		answers += runSeed(t, uint64(seed), stepsPerSeed, k)
	}
	if answers == 0 {
		t.Fatal("no request was ever answered: the simulation does nothing")
	}
	t.Logf("%d seeds, %d requests answered, %.0f seeds/s", seeds, answers, float64(seeds)/time.Since(start).Seconds())
}

// TestSeedsThatFailedOnce runs what seeds.txt lists: one seed a line, and what
// it found.
func TestSeedsThatFailedOnce(t *testing.T) {
	f, err := os.Open("seeds.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		number, _, _ := strings.Cut(lines.Text(), " ")
		if number == "" || number[0] == '#' {
			continue
		}
		seed, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			t.Fatalf("seeds.txt: %v", err)
		}
		runSeed(t, seed, stepsPerSeed, plain)
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

// countFailures says in how many seeds something is wrong, for mutants.sh. A few
// are enough to know how easily a fault is found.
func countFailures(first uint64, seeds int, k kind) {
	const enough = 12
	failed, run, words := 0, 0, ""
	for ; run < seeds && failed < enough; run++ {
		seed := first + uint64(run)
		if err := k.run(k.make(seed, false), stepsPerSeed); err != nil {
			if failed++; failed == 1 {
				first, _, _ := strings.Cut(err.Error(), "\n")
				words = fmt.Sprintf("; seed %d: %.90s", seed, first)
			}
		}
	}
	fmt.Printf("MUTANT %d of %d seeds%s\n", failed, run, words)
}

func runSeed(t *testing.T, seed uint64, steps int, k kind) (answers int) {
	t.Helper()
	w := k.make(seed, false)
	err := k.run(w, steps)
	if err == nil {
		return w.Answers()
	}
	again := k.make(seed, true)
	if second := k.run(again, steps); second == nil || second.Error() != err.Error() {
		t.Errorf("seed %d fails differently the second time: %v", seed, second)
	}
	path := fmt.Sprintf("%s/hapair-sim-%s%d.log", os.TempDir(), k.name, seed)
	if werr := os.WriteFile(path, []byte(again.Log()), 0o644); werr != nil {
		t.Log(werr)
	}
	t.Fatalf("seed %d: %v\nlog: %s\nagain: make sim SEEDS=1 SEED=%d", seed, err, path, seed)
	return 0
}

func envInt(otherwise int, names ...string) int {
	for _, name := range names {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
	}
	return otherwise
}
