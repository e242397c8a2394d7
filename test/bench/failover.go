package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hapair/test/lab"
)

// outages is what the failover command was asked for.
type outages struct {
	times int
	dir   string
	bin   string
	only  []string // scenes
	what  []string // events
}

// scene is one way a resource may be set up.
type scene struct {
	key, title string
	mount      bool
	silent     bool // nobody is told that the address has moved
	seldom     bool // only when asked for: a client waits long
}

var scenes = []scene{
	{key: "bare", title: "bare volume and address"},
	{key: "services", title: "ext4, a service on it, and the address", mount: true},
	{key: "silent", title: "bare volume and address, not announced", silent: true, seldom: true},
}

const (
	settleMax   = 60 * time.Second
	outageMax   = 2 * time.Minute // of a client that nobody tells where the address is
	servicePort = 7000
	timesMax    = 1000

	refusalsMax  = 50
	refusalPause = 200 * time.Millisecond
)

func failoverCommand(out *string) *cobra.Command {
	var o outages
	c := &cobra.Command{
		Use: "failover", Args: cobra.NoArgs, Short: "how long a client waits when the Primary fails, and where the time goes (root)",
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), *out) },
	}
	f := c.Flags()
	f.IntVar(&o.times, "times", 20, "how often each event happens")
	f.StringVar(&o.dir, "dir", "/tmp/hapair-bench-lab", "where the lab keeps its files")
	f.StringVar(&o.bin, "bin", "bin", "directory of haagent-lab, hactl and halab")
	f.StringSliceVar(&o.only, "only", nil, "of bare, services, silent (the address is not announced; not by default: minutes for each event)")
	f.StringSliceVar(&o.what, "events", nil, "of "+strings.Join(eventKeys(), ", ")+" (default: all)")
	c.AddCommand(probeCommand())
	return c
}

func (o *outages) run(ctx context.Context, out string) error {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return err
	}
	o.bin = bin
	switch {
	case o.times < 1 || o.times > timesMax:
		return fmt.Errorf("--times %d: want 1 to %d", o.times, timesMax)
	case os.Geteuid() != 0:
		return errors.New("failover needs root: namespaces, mounts and loop devices")
	}
	if err := needTools(filepath.Join(bin, "haagent-lab"), filepath.Join(bin, "halab")); err != nil {
		return err
	}
	before, began := machineLoad(), time.Now()
	var rows, stages []string
	for _, s := range scenes {
		if len(o.only) > 0 && !slices.Contains(o.only, s.key) || len(o.only) == 0 && s.seldom {
			continue
		}
		for _, e := range events {
			if len(o.what) > 0 && !slices.Contains(o.what, e.key) || e.mounted && !s.mount {
				continue
			}
			acts, err := o.play(ctx, s, e)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.title, e.title, err)
			}
			rows = append(rows, row(s.title, e.title, acts))
			if e.moves {
				stages = append(stages, stageRow(s.title, e.title, acts))
			}
		}
	}
	return publish(out, "failover", func(w io.Writer) {
		fmt.Fprintf(w, "%d of each; witness, default timing, network namespaces on one machine with %d processors; load before %s, after %s; %s in all.\n\n",
			o.times, runtime.NumCPU(), before, machineLoad(), time.Since(began).Round(time.Second))
		fmt.Fprintln(w, "| resource | event | median, ms | quartiles, ms | worst, ms |")
		fmt.Fprintln(w, "|---|---|--:|--:|--:|")
		fmt.Fprintln(w, strings.Join(rows, "\n"))
		fmt.Fprintf(w, "\nWhere the time goes, medians in ms:\n\n%s\n%s\n", stageHead(), strings.Join(stages, "\n"))
	})
}

func row(what, event string, acts []act) string {
	ms := make([]float64, len(acts))
	for i := range acts {
		ms[i] = millis(acts[i].outage.wait)
	}
	s := spreadOf(ms)
	return fmt.Sprintf("| %s | %s | %.0f | %.0f–%.0f | %.0f |", what, event, s.median, s.low, s.high, slices.Max(ms))
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// play lets one event happen again and again, in a lab of its own.
func (o *outages) play(ctx context.Context, s scene, e event) (acts []act, err error) {
	l, err := lab.Up(ctx, o.options(s))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, keepLogs(l))
		}
		err = errors.Join(err, l.Down())
	}()
	t := &theatre{lab: l, scene: s, halab: filepath.Join(o.bin, "halab")}
	primary, err := t.settle(ctx)
	if err != nil {
		return nil, err
	}
	if err := t.serve(l.Data()...); err != nil {
		return nil, err
	}
	if t.probe, err = startProbe(l, fmt.Sprintf("%s:%d", lab.ServiceAddress, servicePort)); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.probe.stop()) }()
	for i := range o.times {
		if err := t.probe.served(ctx); err != nil {
			return nil, fmt.Errorf("before event %d: %w", i+1, err)
		}
		a, err := e.do(t, ctx, primary)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", i+1, err)
		}
		was := primary
		if primary, err = t.settle(ctx); err != nil {
			return nil, fmt.Errorf("after event %d: %w", i+1, err)
		}
		if e.moves {
			if a.stages, err = t.stages(ctx, was, &a); err != nil {
				return nil, fmt.Errorf("event %d: %w", i+1, err)
			}
		}
		acts = append(acts, a)
		fmt.Fprintf(os.Stderr, "%-9s %-12s %2d/%d %6.0f ms, until %6.0f ms; now %s; %s\n", s.key, e.key, i+1, o.times, millis(a.outage.wait), millis(a.outage.end.Sub(a.began)), primary, a.stages)
	}
	return acts, nil
}

// keepLogs saves what the agents wrote, and says where.
func keepLogs(l *lab.Lab) error {
	dir, err := os.MkdirTemp("", "hapair-failover-logs-")
	if err != nil {
		return err
	}
	for _, node := range append(l.Data(), "gamma") {
		text, err := os.ReadFile(l.LogFile(node))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, node+".log"), text, 0o600)
		}
		if err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stderr, "logs kept:", dir)
	return nil
}

func (o *outages) options(s scene) lab.Options {
	halab := filepath.Join(o.bin, "halab")
	address := fmt.Sprintf("address: {ip: %s/24, dev: eth0, announce: %t}", lab.ServiceAddress, !s.silent)
	out := lab.Options{Dir: o.dir, Agent: []string{filepath.Join(o.bin, "haagent-lab")}, Size: 64 << 20, Tether: true,
		Frontend: "export", Services: []string{address}}
	if s.mount {
		out.Frontend, out.Filesystem = "fuse", "ext4"
		out.Services = []string{
			"mount: {path: /srv/pg, type: ext4}",
			fmt.Sprintf("{name: records, exec: {start: [%[1]s, recordd, start], stop: [%[1]s, recordd, stop], status: [%[1]s, recordd, status]}}", halab),
			address,
		}
	}
	return out
}
