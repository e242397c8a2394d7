package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"

	"hapair/mirror/front"
)

const (
	bootTimeout  = 15 * time.Second
	deathTimeout = 20 * time.Second
	idVariable   = "HAPAIR_LAB_ID" // in the environment of every process of a lab
)

// bootSpec tells process 1 of a node what to become.
type bootSpec struct {
	Node  string
	Dir   string // of the node
	Agent []string
	Env   []string
}

// boot switches a node on: network, process 1, its file system. The agent is
// started separately.
func (l *Lab) boot(n *node) error {
	if n.Init.alive() {
		return fmt.Errorf("%s is on already", n.Name)
	}
	if n.Init.PID != 0 { // its outlet was switched off
		if err := l.cutPower(n); err != nil {
			return err
		}
	}
	if err := l.plugIn(n); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(l.dir, n.Name, noteFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	init, err := l.startInit(n)
	if err != nil {
		return fmt.Errorf("boot %s: %w", n.Name, err)
	}
	n.Init = init
	l.log("%s is on", n.Name)
	return l.save()
}

func (l *Lab) startInit(n *node) (process, error) {
	spec := bootSpec{Node: n.Name, Dir: filepath.Join(l.dir, n.Name), Agent: l.agentCommand(n), Env: l.environment()}
	text, err := json.Marshal(spec)
	if err != nil {
		return process{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return process{}, err
	}
	log, err := os.OpenFile(filepath.Join(spec.Dir, "init.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return process{}, err
	}
	defer log.Close() //nolint:errcheck // process 1 has its own copy
	ready, told, err := os.Pipe()
	if err != nil {
		return process{}, err
	}
	defer ready.Close() //nolint:errcheck // only read from
	tether, err := l.tether()
	if err != nil {
		return process{}, errors.Join(err, told.Close())
	}
	cmd := &exec.Cmd{
		Path: self, Args: []string{initName, string(text)}, Env: spec.Env, Dir: "/",
		Stdout: log, Stderr: log, ExtraFiles: []*os.File{told},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC},
	}
	if tether != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, tether)
		defer tether.Close() //nolint:errcheck // process 1 has its own copy
	}
	if err := startIn(l.nsName(n.Name), cmd); err != nil {
		return process{}, errors.Join(err, told.Close())
	}
	go cmd.Wait() //nolint:errcheck // only so that no zombie stays; how it died is known
	return awaitReady(cmd.Process.Pid, ready, told)
}

// tether returns the reading end of a pipe that this process never writes to
// and never closes: it ends with this process.
func (l *Lab) tether() (*os.File, error) {
	if !l.state.Options.Tether {
		return nil, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	tethers = append(tethers, w) // kept from the garbage collector
	return r, nil
}

var tethers []*os.File

// startIn starts a command on a thread inside a network namespace.
func startIn(ns string, cmd *exec.Cmd) error {
	return onOwnThread(func() error {
		h, err := netns.GetFromName(ns)
		if err != nil {
			return err
		}
		defer h.Close() //nolint:errcheck // only a handle
		if err := netns.Set(h); err != nil {
			return err
		}
		return cmd.Start()
	})
}

// awaitReady reads what process 1 says: nothing but an end of file when it is
// up, else why not.
func awaitReady(pid int, ready, told *os.File) (process, error) {
	if err := told.Close(); err != nil {
		return process{}, err
	}
	if err := ready.SetReadDeadline(time.Now().Add(bootTimeout)); err != nil {
		return process{}, err
	}
	said, err := io.ReadAll(ready)
	if text := strings.TrimSpace(string(said)); err != nil || text != "ready" {
		kill := syscall.Kill(pid, syscall.SIGKILL) // ours, started above
		return process{}, errors.Join(fmt.Errorf("process 1 said %q", text), err, kill)
	}
	return identify(pid)
}

// PowerOff cuts a node's power: its links go dark, then every process dies at
// once. Data that was not flushed is lost when the agent keeps a volatile cache.
func (l *Lab) PowerOff(name string) error {
	n, err := l.node(name)
	if err != nil {
		return err
	}
	if n.Init.PID == 0 {
		return fmt.Errorf("lab: %s is off already", name)
	}
	if err := l.cutPower(n); err != nil {
		return fmt.Errorf("lab: power off %s: %w", name, err)
	}
	l.log("%s is off", name)
	return l.save()
}

// PowerOn boots a node and starts its agent. Cables that were cut stay so.
func (l *Lab) PowerOn(name string) error {
	n, err := l.node(name)
	if err != nil {
		return err
	}
	if err := l.boot(n); err != nil {
		return fmt.Errorf("lab: power on %s: %w", name, err)
	}
	if n.Kind == kindClient || l.state.Options.NoAgents {
		return nil
	}
	return l.Start(name)
}

// cutPower takes the links down first: a dying process must not say goodbye.
func (l *Lab) cutPower(n *node) error {
	dark := l.darken(n)
	l.seen = append(l.seen, n.Init.loops()...) // they detach by themselves; Leaks looks
	if err := n.Init.kill(); err != nil {
		return errors.Join(dark, err)
	}
	n.Init = process{}
	return errors.Join(dark, l.unplug(n), l.noteOff(n.Name))
}

// kill ends process 1 and with it everything in the node, and waits for the
// end of it. What hangs in the kernel is freed, so that the machine does not
// hang as well, and is an error.
func (p process) kill() error {
	if !p.alive() {
		return nil
	}
	connections := Connections(p.PID, front.DefaultFuseDir)
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	if p.gone(connections) {
		return nil
	}
	return fmt.Errorf("process %d does not die: something in it hangs in the kernel", p.PID)
}

// gone waits for the end of a killed process. One that hangs is given up and
// freed.
func (p process) gone(connections []string) bool {
	ended := func() bool { return !p.alive() }
	if await(context.Background(), deathTimeout, ended) {
		return true
	}
	if AbortConnections(connections) == nil {
		await(context.Background(), deathTimeout, ended)
	}
	return false
}
