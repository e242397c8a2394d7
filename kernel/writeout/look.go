package writeout

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const adjustFile = "/proc/self/oom_score_adj"

// noWaiting is PF_MEMALLOC_NOIO of the kernel's task flags (include/linux/sched.h),
// the half of an I/O flusher that /proc shows of every thread.
const noWaiting = 0x00080000

// State is how ready the process is, as the kernel says.
type State struct {
	Threads     int   // of the process
	Flushers    int   // of them that get memory without waiting for writes
	LockedBytes int64 // that stay in memory
	OOMScoreAdj int   // -1000: never ended when memory is short
}

// Ready reports that nothing is missing.
func (s State) Ready() bool {
	return s.Flushers == s.Threads && s.LockedBytes > 0 && s.OOMScoreAdj == neverEnded
}

// Look asks the kernel. It reads a file for each thread.
func Look() (State, error) {
	var s State
	tasks, err := filepath.Glob("/proc/self/task/*/stat")
	if err != nil {
		return s, fmt.Errorf("look at the threads: %w", err)
	}
	for _, name := range tasks {
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has ended
		}
		if err != nil {
			return s, fmt.Errorf("look at a thread: %w", err)
		}
		flags, err := flagsOf(b)
		if err != nil {
			return s, fmt.Errorf("look at a thread: %s: %w", name, err)
		}
		s.Threads++
		if flags&noWaiting != 0 {
			s.Flushers++
		}
	}
	maps, err := os.ReadFile("/proc/self/smaps_rollup") // VmLck counts what is only reserved
	if err != nil {
		return s, fmt.Errorf("look at the memory: %w", err)
	}
	if s.LockedBytes, err = lockedOf(maps); err != nil {
		return s, fmt.Errorf("look at the memory: %w", err)
	}
	s.OOMScoreAdj, err = adjusted()
	return s, err
}

// errFormat is what the kernel does not write.
var errFormat = errors.New("not as proc(5) describes it")

// flagsOf takes the task's flags, the ninth word, from the words of a thread's stat.
// The second is a name in parentheses, which may hold anything.
func flagsOf(stat []byte) (uint64, error) {
	after := bytes.LastIndexByte(stat, ')')
	words := bytes.Fields(stat[after+1:])
	if after < 0 || len(words) < 7 {
		return 0, fmt.Errorf("%w: %.100q", errFormat, stat)
	}
	n, err := strconv.ParseUint(string(words[6]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: flags %.100q", errFormat, words[6])
	}
	return n, nil
}

// lockedOf takes what is locked of the memory in use, in kB, from the sum of the
// mappings.
func lockedOf(maps []byte) (bytesLocked int64, err error) {
	for line := range strings.Lines(string(maps)) {
		rest, ok := strings.CutPrefix(line, "Locked:")
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 53)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("%w: %.100q", errFormat, line)
		}
		return n << 10, nil
	}
	return 0, fmt.Errorf("%w: no Locked", errFormat)
}

func adjusted() (int, error) {
	b, err := os.ReadFile(adjustFile)
	if err != nil {
		return 0, fmt.Errorf("look at the OOM killer's favour: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("look at the OOM killer's favour: %w: %.100q", errFormat, b)
	}
	return n, nil
}
