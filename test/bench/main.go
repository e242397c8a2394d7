// Command bench measures hapair beside what QEMU offers: one copy without a
// mirror, and the quorum driver, which mirrors to a second process. It never
// judges a figure; it fails when a system could not be run or its copies differ.
//
//  1. main.go      what may be asked for
//  2. tools.go     the programs it needs, and where they come from
//  3. process.go   servers: start, end, the processor time they took
//  4. qemu.go      the systems without hapair
//     box.go       the processors of each
//  5. hapair.go    two agents and a witness on loopback addresses
//  6. fio.go       the client
//  7. compare.go   the systems in turn, repetition by repetition
//  8. stats.go     medians and spreads; table.go as Markdown
//  9. rig.go       a pair within one process; profile.go, and the benchmarks of the tests
//  10. failover.go how long a client waits for a failover, in the lab
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"hapair/test/lab"
)

func main() {
	lab.Reexec()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are those of the comparison.
type options struct {
	reps    int
	seconds int
	mib     int64
	quick   bool
	full    bool
	media   []string
	only    []string
	disk    string
	network int
	mixed   bool
	keep    bool
	agent   string
	ctl     string
	out     string
}

const (
	repsMax    = 1000
	secondsMax = 3600
	mibMin     = 16
	mibMax     = 64 << 10
)

func command() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use: "bench", SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		Short: "compare hapair with one copy and with QEMU's quorum driver",
		RunE: func(c *cobra.Command, _ []string) error {
			o.preset(c.Flags().Changed)
			return runCompare(c.Context(), &o)
		},
	}
	f := c.Flags()
	f.IntVar(&o.reps, "reps", 5, "repetitions; within each the systems take turns")
	f.IntVar(&o.seconds, "seconds", 3, "length of one measurement")
	f.Int64Var(&o.mib, "size", 256, "MiB of one volume; in memory there are up to five of them")
	f.BoolVar(&o.quick, "quick", false, "3 repetitions of 1 s")
	f.BoolVar(&o.full, "full", false, "15 repetitions of 5 s")
	f.StringSliceVar(&o.media, "media", []string{"tmpfs", "disk"}, "where the copies lie")
	f.StringSliceVar(&o.only, "only", nil, "of the workloads: "+workloadNames())
	f.StringVar(&o.disk, "disk", "/var/tmp", "directory on a real file system")
	f.IntVar(&o.network, "network", 10, "second byte of the loopback addresses, 127.N.0.0/16")
	f.BoolVar(&o.mixed, "mixed", false, "let everybody use all processors; else client and first node have one half, as one box, and the second node the other")
	f.StringVar(&o.agent, "agent", "bin/haagent", "the agent's program")
	f.StringVar(&o.ctl, "hactl", "bin/hactl", "the operator's command")
	f.BoolVar(&o.keep, "keep", false, "keep the files of the run, logs included")
	c.PersistentFlags().StringVarP(&o.out, "output", "o", "", "file whose marked section is replaced; default: print")
	c.AddCommand(profileCommand(), failoverCommand(&o.out))
	return c
}

// preset sets what --quick and --full stand for, unless said otherwise.
func (o *options) preset(said func(flag string) bool) {
	reps, seconds := o.reps, o.seconds
	switch {
	case o.quick:
		reps, seconds = 3, 1
	case o.full:
		reps, seconds = 15, 5
	}
	if !said("reps") {
		o.reps = reps
	}
	if !said("seconds") {
		o.seconds = seconds
	}
}

func (o *options) check() error {
	switch {
	case o.quick && o.full:
		return errors.New("--quick and --full: one of them")
	case o.reps < 1 || o.reps > repsMax:
		return fmt.Errorf("--reps %d: want 1 to %d", o.reps, repsMax)
	case o.seconds < 1 || o.seconds > secondsMax:
		return fmt.Errorf("--seconds %d: want 1 to %d", o.seconds, secondsMax)
	case o.mib < mibMin || o.mib > mibMax:
		return fmt.Errorf("--size %d: want %d to %d MiB", o.mib, mibMin, int64(mibMax))
	case o.network < 1 || o.network > 254:
		return fmt.Errorf("--network %d: want 1 to 254", o.network)
	case len(o.media) == 0:
		return errors.New("--media: at least one of tmpfs and disk")
	}
	for _, p := range []*string{&o.agent, &o.ctl, &o.disk} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}

func runCompare(ctx context.Context, o *options) error {
	if err := o.check(); err != nil {
		return err
	}
	loads, err := chosen(o.only)
	if err != nil {
		return err
	}
	if err := needTools(o.agent, o.ctl, "fio", "qemu-storage-daemon"); err != nil {
		return err
	}
	began := time.Now()
	report := &report{o: o, loads: loads, before: machineLoad()}
	for _, name := range o.media {
		m, err := newMedium(name, o)
		if err != nil {
			return err
		}
		got, err := compare(ctx, o, m, loads)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		report.media = append(report.media, *got)
	}
	report.after, report.took = machineLoad(), time.Since(began)
	return publish(o.out, "bench", report.write)
}

// publish prints a section, or replaces it in a file.
func publish(file, section string, write func(io.Writer)) error {
	if file == "" {
		write(os.Stdout)
		return nil
	}
	return replaceSection(file, section, write)
}
