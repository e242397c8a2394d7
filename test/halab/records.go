package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"hapair/test/lab/record"
)

const recorddPatience = 10 * time.Second

// recordd is the service of the demo.
type recordd struct {
	file, listen, pidFile string
}

func recorddCommand() *cobra.Command {
	var r recordd
	c := &cobra.Command{Use: "recordd serve|start|stop|status", Short: "a service that keeps numbered records in a file", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			do, ok := map[string]func(context.Context) error{"serve": r.serve, "start": r.start, "stop": r.stop, "status": r.status}[args[0]]
			if !ok {
				return fmt.Errorf("recordd %s: serve, start, stop or status", args[0])
			}
			return do(c.Context())
		}}
	c.Flags().StringVar(&r.file, "file", "/srv/pg/records", "the file the records go to")
	c.Flags().StringVar(&r.listen, "listen", fmt.Sprintf(":%d", record.DefaultPort), "where to listen")
	c.Flags().StringVar(&r.pidFile, "pidfile", "/run/recordd.pid", "where the number of the process is kept")
	return c
}

// serve runs in the foreground and prints "ready" when it listens.
func (r *recordd) serve(ctx context.Context) error {
	s, err := record.Open(r.file)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // every record was synced before it was answered
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", r.listen)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return s.Serve(ctx, l)
}

// start starts a server in the background; it listens when start returns.
func (r *recordd) start(ctx context.Context) error {
	if r.status(ctx) == nil {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "recordd", "serve", "--file", r.file, "--listen", r.listen)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	word := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, word); err != nil {
		return errors.Join(errors.New("the server did not come up"), cmd.Wait())
	}
	return os.WriteFile(r.pidFile, []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600)
}

// pid returns the server's number, 0 when none runs.
func (r *recordd) pid() (int, error) {
	text, err := os.ReadFile(r.pidFile)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%s: %q is no process", r.pidFile, text)
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(cmdline), "recordd\x00serve") {
		return 0, nil // ended; the number may be another's by now
	}
	return pid, nil
}

// stop of what does not run succeeds.
func (r *recordd) stop(ctx context.Context) error {
	pid, err := r.pid()
	if err != nil || pid == 0 {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, recorddPatience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := r.pid()
		if err != nil || now == 0 {
			return errors.Join(err, os.Remove(r.pidFile))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d does not end", pid)
		case <-tick.C:
		}
	}
}

func (r *recordd) status(context.Context) error {
	pid, err := r.pid()
	if err == nil && pid == 0 {
		err = errors.New("not running")
	}
	return err
}

func writerCommand() *cobra.Command {
	var address string
	var first uint64
	var slow int
	var pause time.Duration
	var quiet bool
	c := &cobra.Command{Use: "writer", Short: "put numbered records until interrupted, then count what was answered", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			w := &record.Writer{Address: address, First: first, Slow: slow, Pause: pause}
			if !quiet { // one line for each answer: number and clock
				w.OnAck = func(a record.Ack) { fmt.Fprintln(c.OutOrStdout(), a) }
			}
			w.Run(ctx)
			return reckon(c.OutOrStdout(), w, address)
		}}
	c.Flags().StringVar(&address, "address", fmt.Sprintf("192.168.1.50:%d", record.DefaultPort), "the service, host:port")
	c.Flags().Uint64Var(&first, "first", 1, "the first number; one that no other writer used")
	c.Flags().IntVar(&slow, "slow", 1, "how many times longer than usual an attempt may take")
	c.Flags().DurationVar(&pause, "pause", 0, "how long to rest between two records")
	c.Flags().BoolVar(&quiet, "quiet", false, "do not print each answer")
	return c
}

// reckon compares what was answered with what the service has.
func reckon(out io.Writer, w *record.Writer, address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), recorddPatience)
	defer cancel()
	present, err := record.List(ctx, address)
	if err != nil {
		return err
	}
	gap, from := w.Gap()
	missing := record.Missing(w.Acks, present)
	fmt.Fprintf(out, "answered %d, missing %d, retries %d, longest gap %s from %s\n", len(w.Acks), len(missing), w.Retries, gap.Round(time.Millisecond), from.Format("15:04:05.000"))
	if len(missing) > 0 {
		return fmt.Errorf("answered but lost: %v", missing)
	}
	return nil
}
