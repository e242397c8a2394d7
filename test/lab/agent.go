package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const startTimeout = 10 * time.Second

// agentPID is the agent's number inside the node, 0 when it does not run.
func (l *Lab) agentPID(name string) (int, error) {
	text, err := os.ReadFile(filepath.Join(l.dir, name, pidFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	word := strings.TrimSpace(string(text))
	n, err := strconv.Atoi(word)
	if err != nil {
		return 0, fmt.Errorf("agent of %s: %s", name, word)
	}
	return n, nil
}

// agent finds the agent among the machine's processes.
func (l *Lab) agent(name string) (process, error) {
	n, err := l.node(name)
	if err != nil {
		return process{}, err
	}
	inner, err := l.agentPID(name)
	if err != nil {
		return process{}, fmt.Errorf("lab: %w", err)
	}
	if p, ok := n.Init.inNode()[inner]; ok && inner > 1 {
		return p, nil
	}
	return process{}, fmt.Errorf("lab: no agent runs on %s", name)
}

// AgentRuns reports whether a node's agent is alive (paused counts).
func (l *Lab) AgentRuns(name string) bool {
	p, err := l.agent(name)
	return err == nil && p.alive()
}

// Start starts the agent of a node that is on.
func (l *Lab) Start(name string) error {
	n, err := l.node(name)
	switch {
	case err != nil:
		return err
	case n.Kind == kindClient:
		return fmt.Errorf("lab: %s has no agent", name)
	case !n.Init.alive():
		return fmt.Errorf("lab: %s is off", name)
	case l.AgentRuns(name):
		return fmt.Errorf("lab: the agent of %s runs already", name)
	}
	if err := os.Remove(filepath.Join(l.dir, name, pidFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("lab: %w", err)
	}
	if err := syscall.Kill(n.Init.PID, syscall.SIGUSR1); err != nil {
		return fmt.Errorf("lab: start the agent of %s: %w", name, err)
	}
	told := func() bool {
		_, err := os.Stat(filepath.Join(l.dir, name, pidFile))
		return err == nil
	}
	if !await(context.Background(), startTimeout, told) {
		return fmt.Errorf("lab: the agent of %s was not started in %s", name, startTimeout)
	}
	if _, err := l.agentPID(name); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	l.log("the agent of %s is started", name)
	return nil
}

// Kill ends the agent alone, with SIGKILL, and waits for its end. The rest of
// the node goes on.
func (l *Lab) Kill(name string) error { return l.end(name, syscall.SIGKILL) }

// Stop asks the agent to end, with SIGTERM, and waits for it.
func (l *Lab) Stop(name string) error { return l.end(name, syscall.SIGTERM) }

func (l *Lab) end(name string, sig syscall.Signal) error {
	p, err := l.agent(name)
	if err != nil {
		return err
	}
	if err := syscall.Kill(p.PID, sig); err != nil {
		return fmt.Errorf("lab: end the agent of %s: %w", name, err)
	}
	if !await(context.Background(), deathTimeout, func() bool { return !p.alive() }) {
		return fmt.Errorf("lab: the agent of %s does not end by %s", name, sig)
	}
	l.log("the agent of %s ended by %s", name, sig)
	return nil
}

// Pause stops the agent in its tracks, as a suspended machine or a long stall
// would; Resume lets it go on.
func (l *Lab) Pause(name string) error { return l.signal(name, syscall.SIGSTOP) }

// Resume lets a paused agent go on.
func (l *Lab) Resume(name string) error { return l.signal(name, syscall.SIGCONT) }

func (l *Lab) signal(name string, sig syscall.Signal) error {
	p, err := l.agent(name)
	if err != nil {
		return err
	}
	if err := syscall.Kill(p.PID, sig); err != nil {
		return fmt.Errorf("lab: signal the agent of %s: %w", name, err)
	}
	l.log("the agent of %s: %s", name, sig)
	return nil
}
