package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"hapair/mirror/front"
)

const startTimeout = 10 * time.Second

// note reads what process 1 of a node last told of its agent.
func (l *Lab) note(name string) (agentNote, error) {
	var n agentNote
	text, err := os.ReadFile(filepath.Join(l.dir, name, noteFile))
	if errors.Is(err, os.ErrNotExist) {
		return n, nil
	}
	if err != nil {
		return n, err
	}
	return n, json.Unmarshal(text, &n)
}

// agent finds the agent among the machine's processes.
func (l *Lab) agent(name string) (process, error) {
	n, err := l.node(name)
	if err != nil {
		return process{}, err
	}
	note, err := l.note(name)
	if err != nil {
		return process{}, fmt.Errorf("lab: %w", err)
	}
	if p, ok := n.Init.inNode()[note.PID]; ok && note.PID > 1 {
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
	before, err := l.note(name)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := syscall.Kill(n.Init.PID, syscall.SIGUSR1); err != nil {
		return fmt.Errorf("lab: start the agent of %s: %w", name, err)
	}
	var now agentNote
	if !await(context.Background(), startTimeout, func() bool {
		now, err = l.note(name)
		return err != nil || now.Starts > before.Starts
	}) {
		return fmt.Errorf("lab: the agent of %s was not started in %s", name, startTimeout)
	}
	if err != nil || now.Error != "" {
		return fmt.Errorf("lab: the agent of %s did not start: %s%s", name, now.Error, words(err))
	}
	l.log("the agent of %s is started", name)
	return nil
}

// program is a link to the agent of a node that has one of its own.
func (l *Lab) program(name string) string { return filepath.Join(l.dir, name, "haagent-lab") }

// Replace has a node that was given an agent of its own (Options.Programs) start
// another program the next time, as an upgrade does.
func (l *Lab) Replace(name, program string) error {
	if _, ok := l.state.Options.Programs[name]; !ok {
		return fmt.Errorf("lab: %s has no agent of its own to replace", name)
	}
	fresh := l.program(name) + ".new"
	if err := os.Symlink(program, fresh); err != nil {
		return fmt.Errorf("lab: replace the agent of %s: %w", name, err)
	}
	if err := os.Rename(fresh, l.program(name)); err != nil {
		return fmt.Errorf("lab: replace the agent of %s: %w", name, err)
	}
	l.log("%s has another agent: %s", name, program)
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
	connections := Connections(p.PID, front.DefaultFuseDir)
	if err := syscall.Kill(p.PID, sig); err != nil {
		return fmt.Errorf("lab: end the agent of %s: %w", name, err)
	}
	if !p.gone(connections) {
		return fmt.Errorf("lab: the agent of %s does not end by %s", name, sig)
	}
	l.log("the agent of %s ended by %s", name, sig)
	return nil
}

// Pause stops the agent in its tracks, as a suspended machine or a long stall
// would, and returns when no thread of it runs. Resume lets it go on.
func (l *Lab) Pause(name string) error {
	if err := l.signal(name, syscall.SIGSTOP); err != nil {
		return err
	}
	p, err := l.agent(name)
	if err != nil {
		return err
	}
	stopped := func() bool {
		return !slices.ContainsFunc(p.threads(), func(state string) bool { return state != "T" && state != "Z" })
	}
	if !await(context.Background(), startTimeout, stopped) {
		return fmt.Errorf("lab: the agent of %s does not stop: a thread hangs in the kernel", name)
	}
	return nil
}

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
