package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// initName is what a program is called when it is to be process 1 of a node.
const initName = "halab-node-init"

// Descriptors that process 1 is given.
const (
	readyFD  = 3
	tetherFD = 4
)

// Reexec turns the running program into process 1 of a node, the lab's fence agent
// or the chassis of a node, if it was started as one, and then never returns. Call it first
// thing in main and TestMain.
func Reexec() {
	if filepath.Base(os.Args[0]) == FenceName {
		os.Exit(FenceAgent(context.Background(), os.Stdin, os.Stdout, os.Stderr))
	}
	if filepath.Base(os.Args[0]) == chassisName {
		says, err := chassis(context.Background(), os.Args)
		if err != nil {
			fmt.Fprintln(os.Stderr, chassisName+":", err)
			os.Exit(1)
		}
		fmt.Println(says)
		os.Exit(0)
	}
	if os.Args[0] != initName {
		return
	}
	ready := os.NewFile(readyFD, "ready")
	err := runInit(ready)
	fmt.Fprintln(os.Stderr, "node-init:", err)
	fmt.Fprintln(ready, err) //nolint:errcheck // whoever waited may be gone; standard error has it
	os.Exit(1)
}

func runInit(ready *os.File) error {
	if len(os.Args) != 2 || os.Getpid() != 1 {
		return errors.New("to be started by halab only")
	}
	var spec bootSpec
	if err := json.Unmarshal([]byte(os.Args[1]), &spec); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(spec.Node)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := makeRoot(spec.Dir); err != nil {
		return err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGUSR1, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	outlet, err := openOutlet(spec.Dir)
	if err != nil {
		return err
	}
	if err := watchOver(WatchdogDevice, func() { endHere(spec.Dir) }); err != nil {
		return err
	}
	go listen(spec.Dir, outlet)
	go hang()
	if _, err := fmt.Fprintln(ready, "ready"); err != nil {
		return err
	}
	if err := ready.Close(); err != nil {
		return err
	}
	serve(spec, signals)
	return nil
}

// hang ends the node when the process that tethered it is gone.
func hang() {
	tether := os.NewFile(tetherFD, "tether")
	if _, err := tether.Stat(); err != nil {
		return // not tethered
	}
	var b [1]byte
	n, err := tether.Read(b[:])
	if n > 0 || err == nil {
		return
	}
	// The others first: this one keeps the mounts until they are gone.
	for {
		if err := syscall.Kill(-1, syscall.SIGKILL); err != nil {
			os.Exit(0) // nobody is left
		}
		time.Sleep(time.Millisecond)
	}
}

// serve starts the agent on SIGUSR1 and buries the dead. The death of an agent
// may come to light after the wish for the next one, so the wish is kept.
func serve(spec bootSpec, signals <-chan os.Signal) {
	agent, starts, wanted := 0, 0, false
	for s := range signals {
		wanted = wanted || s == syscall.SIGUSR1
		if bury(agent) {
			agent = 0
			note(spec, starts, 0, nil)
		}
		if !wanted || agent != 0 {
			continue
		}
		wanted = false
		pid, err := startAgent(spec)
		starts++
		note(spec, starts, pid, err)
		agent = pid
	}
}

// bury waits for all that died and reports whether the agent is among them.
func bury(agent int) (died bool) {
	for {
		var how syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &how, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return died
		}
		if pid == agent {
			died = true
			fmt.Fprintf(os.Stderr, "node-init: the agent ended: %s\n", ending(how))
		}
	}
}

func ending(how syscall.WaitStatus) string {
	if how.Signaled() {
		return "killed by " + how.Signal().String()
	}
	return "exit status " + strconv.Itoa(how.ExitStatus())
}

// note writes down, where the lab looks, how often an agent was started and
// its number now: 0 when it ended or did not start.
func note(spec bootSpec, starts, pid int, why error) {
	text, err := json.Marshal(agentNote{Starts: starts, PID: pid, Error: words(why)})
	file := filepath.Join(spec.Dir, noteFile)
	if err == nil {
		err = os.WriteFile(file+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "node-init:", err)
	}
}

// agentNote is what process 1 of a node tells of its agent.
type agentNote struct {
	Starts int
	PID    int // inside the node
	Error  string
}

func startAgent(spec bootSpec) (int, error) {
	log, err := os.OpenFile(filepath.Join(spec.Dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close() //nolint:errcheck // the agent has its own copy
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close() //nolint:errcheck // only read from
	p, err := os.StartProcess(spec.Agent[0], spec.Agent, &os.ProcAttr{
		Dir: "/", Env: spec.Env, Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, err
	}
	defer p.Release() //nolint:errcheck // serve waits for it by its number
	return p.Pid, nil
}

func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
