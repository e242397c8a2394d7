// Package fenceagent is the fence device that is one of ClusterLabs' fence
// agents: programs fence_NAME that find "option=value" lines on their standard
// input, one of them action=, and answer with an exit code. Redfish, IPMI and
// outlets of power strips are reached through them.
//
// A node counts as off when action off succeeded and status then said so, and the
// agent has said on of it before: many say off of whatever they do not understand.
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
	"time"

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
	Heard   Heard
}

// Heard tells of the node that is switched whether it runs.
type Heard struct {
	// Last is the latest instant at which it certainly ran: it has since answered what
	// was sent then. Zero: it never has. It waits for nothing. nil: nobody knows.
	Last func() time.Time
	// Within is how long after any instant Last is later than that, if it runs.
	Within time.Duration
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
	on       time.Time         // when it was last asked for the status and said on; zero: not yet
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

// Off asks for the status, switches the node off, and asks again.
func (a *Agent) Off(ctx context.Context, o device.Order) (out device.Outcome, said string) {
	if err := a.check(ctx); err != nil {
		return device.Refused, err.Error()
	}
	since := o.Met
	if since.IsZero() {
		since = time.Now()
	}
	again := true
	for n := 0; n < attempts && again; n++ {
		out, said, again = a.offOnce(ctx, since)
		again = again && out != device.Confirmed && ctx.Err() == nil
	}
	return out, said
}

// offOnce switches the node off and asks for its status, before and after. again says
// whether another attempt may help.
func (a *Agent) offOnce(ctx context.Context, since time.Time) (out device.Outcome, text string, again bool) {
	before, text, refused := a.status(ctx)
	switch {
	case refused:
		return device.Refused, text, false
	case before == unclear: // nothing would prove what is done now
		return device.Unknown, text, true
	}
	end, err := a.run(ctx, "off")
	switch {
	case err != nil:
		return device.Unknown, a.said("off", end, err), true
	case meaning[end.Code].refused:
		return device.Refused, a.said("off", end, nil), false
	case end.Code != exitOK:
		return device.Unknown, a.said("off", end, nil), true
	}
	after, text, _ := a.status(ctx)
	text = "switched off, and " + text
	switch {
	case after == isOn:
		return device.Refused, text, true
	case after == unclear:
		return device.Unknown, text, true
	case before == isOff && !a.saidOn(since):
		return device.Unknown, text + notProven, false
	}
	return device.Confirmed, text, false
}

// notProven is why a status of off, which was there beforehand, proves nothing.
const notProven = ", as it was before; it has not said on of the node since the two nodes met last, so it is not known whether it can: " +
	"a node that was off already, a wrong plug, and a device that takes everything for off look the same"

// status asks whether the node is on. refused says that the device denied the answer.
func (a *Agent) status(ctx context.Context) (is power, text string, refused bool) {
	asked := time.Now()
	end, err := a.run(ctx, "status")
	if err != nil {
		return unclear, a.said("status", end, err), false
	}
	is, text = judge(end.Code, end.Apart)
	switch {
	case is == isOn:
		a.mu.Lock()
		a.on = asked
		a.mu.Unlock()
	case is == unclear && end.Code != exitOK && end.Code != exitStatusOff:
		return unclear, a.said("status", end, nil), meaning[end.Code].refused
	case is == unclear && end.Output != "":
		text += ": " + end.Output
	}
	return is, text, false
}

// saidOn reports whether the device has said since then that the node is on.
func (a *Agent) saidOn(since time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.on.IsZero() && !a.on.Before(since)
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

// Monitor asks the agent whether the device could be used, and for the status, which
// has to be on of a node that is heard.
func (a *Agent) Monitor(ctx context.Context) error {
	if err := a.check(ctx); err != nil {
		return err
	}
	end, err := a.run(ctx, "monitor")
	if err != nil || end.Code != exitOK {
		return &device.Error{Text: a.said("monitor", end, err), Cause: err}
	}
	is, text, _ := a.status(ctx)
	switch {
	case is == unclear:
		return &device.Error{Text: text, Cause: context.Cause(ctx)}
	case is == isOff && a.heardSince(ctx, time.Now()):
		a.mu.Lock()
		a.on = time.Time{} // whatever it could tell then, it cannot now
		a.mu.Unlock()
		return ErrBlind
	}
	return nil
}

// ErrBlind is what Monitor returns of a device that says off of a node that runs.
var ErrBlind = errors.New("its status says OFF, and this node hears the other one: a wrong plug or address, a device that takes what it does not understand for off, " +
	"or the outlet of one of two supplies, switched off. No fence by it counts before it has said ON: correct its options, switch the outlet on, and ask the agent yourself with action=status")

// heardLook is how often to look for a word of the node: nothing tells of one.
const heardLook = 20 * time.Millisecond

// heardSince waits until the node has certainly run after that instant. It does not
// wait for one that is not heard at all.
func (a *Agent) heardSince(ctx context.Context, at time.Time) bool {
	h := a.cfg.Heard
	if h.Last == nil || at.Sub(h.Last()) > h.Within {
		return false
	}
	look := time.NewTicker(heardLook)
	defer look.Stop()
	for over := at.Add(h.Within); time.Now().Before(over); {
		if h.Last().After(at) {
			return true
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return false
		}
	}
	return false
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
		ApartMax: printedMax, Hide: hide, Tied: true})
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
	"fence_skalar":          "it says off of a machine whose host it has lost, and of one that is suspended or starts",
	"fence_zvmip":           "it says off of a machine that it does not find",
	"fence_sbd":             "it leaves a message, and does not know that anybody reads it",
}
