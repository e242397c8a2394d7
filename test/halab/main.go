// Command halab puts a pair, its witness and a client on one machine: to try
// hapair without two boxes, and to break it. It needs root.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"hapair/test/lab"
)

// version is stamped by the build.
var version = "unknown"

// defaultDir is where the lab is unless told otherwise.
const defaultDir = "/tmp/halab"

func main() {
	lab.Reexec()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command().ExecuteContext(ctx)
	if err == nil {
		return
	}
	var spoken *commandError
	if errors.As(err, &spoken) {
		os.Exit(spoken.code)
	}
	fmt.Fprintln(os.Stderr, "halab:", err)
	os.Exit(1)
}

// commandError is the end of what halab exec ran: it has spoken for itself.
type commandError struct{ code int }

// Error says how it ended.
func (e *commandError) Error() string { return fmt.Sprintf("ended with %d", e.code) }

func asCommand(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return &commandError{exit.ExitCode()}
	}
	return err
}

func command() *cobra.Command {
	var dir string
	root := &cobra.Command{
		Use: "halab", Version: version, SilenceUsage: true, SilenceErrors: true,
		Short: "a pair on one machine, to try hapair and to break it",
		Long: `halab puts two data nodes, a witness and a client on this machine. Each has a
network, mounts, processes and a host name of its own; the data nodes share a
crossover cable, all share a LAN. Nothing of it shows in the machine's own
network, mounts or /dev, and "halab down" leaves nothing behind.`,
		Example: `  halab up --filesystem ext4 --service 'mount: {path: /srv/pg, type: ext4}'
  halab exec alpha -- hactl status
  halab power off alpha
  halab exec beta -- hactl status
  halab power on alpha
  halab down`,
	}
	root.PersistentFlags().StringVar(&dir, "dir", defaultDir, "where the lab keeps its files; one lab in each")
	root.AddCommand(upCommand(&dir), downCommand(&dir), statusCommand(&dir), execCommand(&dir), logsCommand(&dir))
	root.AddCommand(powerCommand(&dir), linkCommand(&dir), diskCommand(&dir))
	for _, c := range []struct {
		use, short string
		do         func(*lab.Lab, string) error
	}{
		{"pause NODE", "stop the node's agent in its tracks (SIGSTOP)", (*lab.Lab).Pause},
		{"resume NODE", "let a paused agent go on (SIGCONT)", (*lab.Lab).Resume},
		{"kill NODE", "end the node's agent alone (SIGKILL)", (*lab.Lab).Kill},
		{"stop NODE", "ask the node's agent to end (SIGTERM)", (*lab.Lab).Stop},
		{"start NODE", "start the node's agent", (*lab.Lab).Start},
	} {
		root.AddCommand(&cobra.Command{Use: c.use, Short: c.short, Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error {
			return change(dir, func(l *lab.Lab) error { return c.do(l, args[0]) })
		}})
	}
	root.AddCommand(fenceCommand(), boardsCommand(&dir), bmcsCommand(&dir))
	root.AddCommand(demoCommand(&dir), recorddCommand(), writerCommand())
	return root
}

// change opens the lab for one command that changes it.
func change(dir string, do func(*lab.Lab) error) error {
	if _, err := lab.Open(dir); err != nil {
		return err // before Lock makes the directory
	}
	release, err := lab.Lock(dir)
	if err != nil {
		return err
	}
	defer release()
	l, err := lab.Open(dir)
	if err != nil {
		return err
	}
	return do(l)
}
