// Package fenceagent is the fence device that is one of ClusterLabs' fence
// agents: programs fence_NAME that find "option=value" lines on their standard
// input, one of them action=, and answer with an exit code. Redfish, IPMI and
// outlets of power strips are reached through them.
//
// A node counts as off when action off succeeded and status then said so.
package fenceagent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"golang.org/x/sys/unix"

	"hapair/fencing/device"
	"hapair/kernel/program"
)

// Dir is where fence agents are.
const Dir = "/usr/sbin"

// Config is one fence device.
type Config struct {
	Agent string // fence_NAME, which is in Dir, or the absolute path of one that is elsewhere
	// Options are handed to it, as its metadata names them. Secrets stand in files
	// that only root can read, one line each: password_file for password.
	Options map[string]string
}

var agentName = regexp.MustCompile(`^fence_[a-z0-9_]+$`)

// Agent is a fence agent. It is asked one thing at a time.
type Agent struct {
	cfg           Config
	program, name string

	mu       sync.Mutex
	resolved bool // it was asked what it is, and wants the options
	plain    map[string]string
	files    map[string]string // of secrets, by option
	ipmi     bool              // it speaks IPMI through ipmitool
}

// New judges what can be judged without the agent. It runs nothing.
func New(cfg Config) (*Agent, error) {
	dir, base := filepath.Split(cfg.Agent)
	switch {
	case !agentName.MatchString(base) || dir != "" && !filepath.IsAbs(dir):
		return nil, fmt.Errorf("%q is not the name of a fence agent, as fence_ipmilan, nor the absolute path of one", cfg.Agent)
	case nothing[base] != "":
		return nil, fmt.Errorf("fence agent %s is refused: %s", base, nothing[base])
	case dir == "":
		dir = Dir
	}
	if err := judgeOptions(cfg.Options); err != nil {
		return nil, fmt.Errorf("fence agent %s: %w", cfg.Agent, err)
	}
	return &Agent{cfg: cfg, program: filepath.Join(dir, base), name: nameOf(base, cfg.Options)}, nil
}

// nameOf tells devices of one kind apart by where they are and what they switch.
func nameOf(name string, options map[string]string) string {
	for _, alike := range [][]string{{"ip", "ipaddr"}, {"plug", "port"}} {
		for _, option := range alike {
			if v := options[option]; v != "" {
				name += " " + v
				break
			}
		}
	}
	return name
}

// Name is the agent's, with the address and the plug.
func (a *Agent) Name() string { return a.name }

// attempts is how often a node is switched off in one fence: many boards fail
// once when their controller was asleep. A login that is denied is not tried
// again: some lock the account then.
const attempts = 2

// Off switches the node off, and asks whether it is.
func (a *Agent) Off(ctx context.Context, _ device.Order) (out device.Outcome, said string) {
	if err := a.check(ctx); err != nil {
		return device.Refused, err.Error()
	}
	again := true
	for n := 0; n < attempts && again; n++ {
		out, said, again = a.offOnce(ctx)
		again = again && out != device.Confirmed && ctx.Err() == nil
	}
	return out, said
}

// offOnce switches the node off and asks for its status. again says whether
// another attempt may help.
func (a *Agent) offOnce(ctx context.Context) (out device.Outcome, text string, again bool) {
	end, err := a.run(ctx, "off")
	switch {
	case err != nil:
		return device.Unknown, a.said("off", end, err), true
	case meaning[end.Code].refused:
		return device.Refused, a.said("off", end, nil), false
	case end.Code != exitOK:
		return device.Unknown, a.said("off", end, nil), true
	}
	if end, err = a.run(ctx, "status"); err != nil {
		return device.Unknown, a.said("switched off, but status", end, err), true
	}
	out, text = proof(end.Code, end.Apart)
	if out != device.Confirmed && end.Output != "" {
		text += ": " + end.Output
	}
	return out, "switched off, and " + text, true
}

// said puts the end of an action into words. fence_ipmilan keeps what ipmitool
// said to itself: where to look is said for it.
func (a *Agent) said(action string, end program.Ended, err error) string {
	means := meaning[end.Code].text
	if end.Code == exitFailed && a.ipmi {
		means += "; where the board can be reached: look at username, password, cipher, privlvl"
	}
	return action + ": " + end.Text(err, means)
}

// Monitor asks the agent whether the device could be used.
func (a *Agent) Monitor(ctx context.Context) error {
	if err := a.check(ctx); err != nil {
		return err
	}
	end, err := a.run(ctx, "monitor")
	if err != nil || end.Code != exitOK {
		return &device.Error{Text: a.said("monitor", end, err), Cause: err}
	}
	return nil
}

// run runs the agent with all its options and secrets.
func (a *Agent) run(ctx context.Context, action string) (program.Ended, error) {
	a.mu.Lock()
	plain, files := a.plain, a.files
	a.mu.Unlock()
	secrets, hide, err := readSecrets(files)
	if err != nil {
		return program.Ended{Code: -1}, err
	}
	return program.Run(ctx, program.Command{Argv: []string{a.program}, Env: environment(), Input: input(action, plain, secrets),
		ApartMax: printedMax, Hide: hide})
}

const printedMax = 16 << 10

// environment keeps the agents, which are Python, from warning of Python.
func environment() []string { return append(program.Environment(), "PYTHONWARNINGS=ignore") }

// Check asks the agent on this machine whether it is there, can prove a node off,
// and wants the options, and looks at the files of secrets. It runs nothing but the
// agent's metadata.
func Check(ctx context.Context, cfg Config) error {
	a, err := New(cfg)
	if err != nil {
		return err
	}
	if err := a.check(ctx); err != nil {
		return err
	}
	_, _, err = readSecrets(a.files)
	return err
}

// check asks the agent, once, what it is.
func (a *Agent) check(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.resolved {
		return nil
	}
	m, err := a.metadata(ctx)
	if err != nil {
		return err
	}
	plain, files := resolve(m, a.cfg.Options)
	all := maps.Clone(plain)
	for option := range files {
		all[option] = ""
	}
	if err := errors.Join(m.fits(), m.refuse(all)); err != nil {
		return fmt.Errorf("fence agent %s: %w", a.cfg.Agent, err)
	}
	tool := m.ipmitool(plain)
	if err := installed(tool); err != nil {
		return fmt.Errorf("fence agent %s runs %s, which is not installed (Debian: ipmitool): %w", a.cfg.Agent, tool, err)
	}
	a.plain, a.files, a.ipmi, a.resolved = plain, files, tool != "", true
	return nil
}

// installed reports why a program cannot be run; "" is none, and is not missed.
func installed(program string) error {
	if program == "" {
		return nil
	}
	if err := unix.Access(program, unix.X_OK); err != nil {
		return &os.PathError{Op: "access", Path: program, Err: err}
	}
	return nil
}

// metadata asks the agent what it is.
func (a *Agent) metadata(ctx context.Context) (*metadata, error) {
	if err := installed(a.program); err != nil {
		return nil, fmt.Errorf("fence agent %s is not installed (Debian: fence-agents): %w", a.cfg.Agent, err)
	}
	end, err := program.Run(ctx, program.Command{Argv: []string{a.program}, Env: environment(), Input: input("metadata"), ApartMax: metadataMax})
	if err != nil || end.Code != exitOK {
		return nil, &device.Error{Text: "ask fence agent " + a.cfg.Agent + " what it is: " + a.said("metadata", end, err), Cause: err}
	}
	m, err := parseMetadata(end.Apart)
	if err != nil {
		return nil, fmt.Errorf("fence agent %s: %w", a.cfg.Agent, err)
	}
	return m, nil
}

// nothing says why an agent's "off" is no proof that the node does not run.
var nothing = map[string]string{
	"fence_dummy":           "it switches nothing off; it is there for tests",
	"fence_ack_manual":      "it asks a person in a way of its own: use the device manual",
	"fence_crosslink":       "a cable that does not answer is no proof that the node is off",
	"fence_heuristics_ping": "it switches nothing off; it only looks at the network",
	"fence_kdump":           "it switches nothing off; it waits for a node that crashes to say so",
	"fence_compute":         "it tells OpenStack of a node, and does not switch it off",
	"fence_evacuate":        "it tells OpenStack of a node, and does not switch it off",
	"fence_sbd":             "it leaves a message, and does not know that anybody reads it",
}
