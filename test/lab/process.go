package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// identify reads when a process began.
func identify(pid int) (process, error) {
	fields, err := statOf(pid)
	if err != nil {
		return process{}, err
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return process{}, fmt.Errorf("start of process %d: %w", pid, err)
	}
	return process{PID: pid, Start: start}, nil
}

// statOf returns the fields of /proc/PID/stat from the third, the state, on.
func statOf(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	// The second field is a name in parentheses, which may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return nil, fmt.Errorf("process %d: /proc/PID/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

// alive reports whether it is still this process, and not dead but unburied. A
// process whose first thread ended is alive while another has not.
func (p process) alive() bool {
	if p.PID == 0 {
		return false
	}
	fields, err := statOf(p.PID)
	if err != nil || fields[19] != strconv.FormatUint(p.Start, 10) {
		return false
	}
	if fields[0] != "Z" && fields[0] != "X" {
		return true
	}
	return len(p.threads()) > 1
}

// threads returns the state of each thread, such as S, T or Z.
func (p process) threads() []string {
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.PID))
	if err != nil {
		return nil // only a bad pattern fails, and this one is constant
	}
	var out []string
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil {
			out = append(out, string(text[bytes.LastIndexByte(text, ')')+2]))
		}
	}
	return out
}

// eachProcess calls f for every process of the machine.
func eachProcess(f func(pid int)) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return // without /proc nothing else here works either
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			f(pid)
		}
	}
}

// inNode returns the processes of a node by their number inside it.
func (p process) inNode() map[int]process {
	out := map[int]process{}
	want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p.PID))
	if err != nil || !p.alive() {
		return out
	}
	eachProcess(func(pid int) {
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err != nil || got != want {
			return
		}
		if who, err := identify(pid); err == nil {
			out[innerPID(pid)] = who
		}
	})
	return out
}

// innerPID is a process's number in the innermost namespace.
func innerPID(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(rest)
			n, err := strconv.Atoi(fields[len(fields)-1])
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// strays are the processes that carry this lab's mark in their environment.
func (l *Lab) strays() []int {
	mark := []byte(idVariable + "=" + l.state.ID + "\x00")
	var out []int
	eachProcess(func(pid int) {
		env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
		if err == nil && bytes.Contains(env, mark) && pid != os.Getpid() {
			out = append(out, pid)
		}
	})
	return out
}

// findStrays finds the first process of a node whose number was never written
// down, because whoever booted it died in between.
func (l *Lab) findStrays() {
	if l.state.ID == "" {
		return
	}
	for _, pid := range l.strays() {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || innerPID(pid) != 1 || !bytes.HasPrefix(name, []byte(initName+"\x00")) {
			continue
		}
		_, spec, _ := strings.Cut(strings.TrimRight(string(name), "\x00"), "\x00")
		for i := range l.state.Nodes {
			n := &l.state.Nodes[i]
			if strings.Contains(spec, fmt.Sprintf("%q:%q", "Node", n.Name)) && !n.Init.alive() {
				if who, err := identify(pid); err == nil {
					n.Init = who
				}
			}
		}
	}
}
