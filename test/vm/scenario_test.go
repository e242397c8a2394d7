package vm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/test/play"
	"hapair/test/script"
)

// handful are the scenarios that are played here unless HAPAIR_SCENARIO names others,
// or is "all": some of each kind.
var handful = []string{"power-off-primary", "everything-loses-power", "isolate-primary", "tiebreaker",
	"disk-of-primary-fails", "power-off-secondary", "ports-die-one-by-one", "restarted-agent", "disk-of-primary-hangs",
	"crossover-is-cut", "quorum-lost-and-back"}

// speed is that of machines whose every instruction is translated, on processors
// that all of them share. Each look at a node takes it a good part of a second.
var speed = play.Speed{Pace: time.Second, Slow: slow}

// TestScenarios plays scenarios in virtual machines: make vm-lab.
func TestScenarios(t *testing.T) {
	o := options(t)
	o.Early = 0.3
	all := chosen(t)
	ctx, l := up(t, o)
	for _, node := range []string{script.Alpha, script.Beta} {
		readyForShortMemory(ctx, t, l, node)
	}
	for _, s := range all {
		if !t.Run(s.Name, func(t *testing.T) { playOn(ctx, t, l, s) }) {
			return // what it left is not what the next one expects
		}
	}
}

// readyForShortMemory wants a node's agent to be granted what it asks the kernel for:
// here it is root of a whole machine.
func readyForShortMemory(ctx context.Context, t *testing.T, l *Lab, node string) {
	t.Helper()
	s := l.status(ctx, t, node)
	if w := s.WriteOut; !w.Ready || w.Flushers != w.Threads || w.Threads == 0 {
		t.Errorf("%s is not ready for when memory is short: %+v", node, w)
	}
}

// status waits for a node's agent to answer: it may have just been started.
func (l *Lab) status(ctx context.Context, t *testing.T, node string) *apiv1.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, doTimeout)
	defer cancel()
	for {
		var s apiv1.Status
		err := l.Call(ctx, node, http.MethodGet, apiv1.PathStatus, nil, &s)
		if err == nil {
			return &s
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(time.Second):
		}
	}
}

// options are where make vm-lab has put things.
func options(t *testing.T) Options {
	cache := os.Getenv("HAPAIR_VM")
	if cache == "" {
		t.Skip("needs QEMU and a kernel: make vm-lab")
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	say := func(format string, args ...any) { t.Logf(time.Now().UTC().Format("15:04:05.000 ")+format, args...) }
	return Options{Kernel: cache, Bin: bin, Busybox: filepath.Join(cache, "bin/busybox"), Say: say}
}

// labDir is a new directory in memory where there is one: what a disk of a machine
// keeps need not survive this machine. Its path is short: sockets are in it. What a
// killed run has left is removed.
func labDir(t *testing.T) string {
	for _, parent := range []string{"/dev/shm", os.TempDir()} {
		old, err := filepath.Glob(filepath.Join(parent, "hapair-vm-*-*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range old {
			var pid, n int
			if _, err := fmt.Sscanf(filepath.Base(dir), "hapair-vm-%d-%d", &pid, &n); err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				t.Logf("removed %s, which a killed run had left: %v", dir, os.RemoveAll(dir))
			}
		}
		if dir, err := os.MkdirTemp(parent, fmt.Sprintf("hapair-vm-%d-", os.Getpid())); err == nil {
			return dir
		}
	}
	t.Fatal("no directory can be made for the lab")
	return ""
}

// chosen are the scenarios that are asked for, by names with commas between.
func chosen(t *testing.T) (some []*script.Scenario) {
	all, err := script.All()
	if err != nil {
		t.Fatal(err)
	}
	names := handful
	switch asked := os.Getenv("HAPAIR_SCENARIO"); asked {
	case "all":
		return all
	case "":
	default:
		names = strings.Split(asked, ",")
	}
	for _, name := range names {
		i := slices.IndexFunc(all, func(s *script.Scenario) bool { return s.Name == name })
		if i < 0 {
			t.Fatalf("there is no scenario %q", name)
		}
		some = append(some, all[i])
	}
	return some
}

func playOn(ctx context.Context, t *testing.T, l *Lab, s *script.Scenario) {
	began := time.Now()
	p := play.New(ctx, l, speed)
	defer p.Close()
	if err := p.Begin(); err != nil {
		t.Fatal(err)
	}
	if err := s.Play(p, l.Say); err != nil {
		t.Fatal(err)
	}
	l.Say("%d answers, at most %s without one; %s in all", p.Answers(), p.Gap().Round(time.Millisecond), time.Since(began).Round(time.Second))
}

// tell shows the end of the logs.
func (l *Lab) tell(t *testing.T) {
	for name, m := range l.machines {
		t.Logf("the console of %s:\n%s", name, tail(filepath.Join(m.dir, "console.log")))
		if !m.isOn() {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), doTimeout)
		text, err := m.run(ctx, "/bin/cat", "/run/agent.log")
		cancel()
		t.Logf("the log of %s (%v):\n%s", name, err, text[max(0, len(text)-4000):])
	}
}
