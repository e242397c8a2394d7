package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// outages is what the failover command was asked for.
type outages struct {
	times int
	dir   string
	bin   string
	only  []string
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

// event is what happens to the Primary.
type event struct {
	key, title string
	do         func(t *theatre, ctx context.Context, primary string) (time.Duration, error)
}

var events = []event{
	{"power-loss", "power loss of the Primary", (*theatre).powerLoss},
	{"switchover", "switchover", (*theatre).switchover},
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
		Use: "failover", Args: cobra.NoArgs, Short: "how long a client waits when the Primary loses power, and at a switchover (root)",
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), *out) },
	}
	f := c.Flags()
	f.IntVar(&o.times, "times", 20, "power losses, and as many switchovers")
	f.StringVar(&o.dir, "dir", "/tmp/hapair-bench-lab", "where the lab keeps its files")
	f.StringVar(&o.bin, "bin", "bin", "directory of haagent-lab, hactl and halab")
	f.StringSliceVar(&o.only, "only", nil, "of bare, services, silent (the address is not announced; not by default: minutes for each event)")
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
	var rows []string
	for _, s := range scenes {
		if len(o.only) > 0 && !slices.Contains(o.only, s.key) || len(o.only) == 0 && s.seldom {
			continue
		}
		for _, e := range events {
			waits, err := o.play(ctx, s, e)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.title, e.title, err)
			}
			rows = append(rows, row(s.title, e.title, waits))
		}
	}
	return publish(out, "failover", func(w io.Writer) {
		fmt.Fprintf(w, "%d of each; witness, default timing, network namespaces on one machine with %d processors; load before %s, after %s; %s in all.\n\n",
			o.times, runtime.NumCPU(), before, machineLoad(), time.Since(began).Round(time.Second))
		fmt.Fprintln(w, "| resource | event | median, ms | quartiles, ms | worst, ms |")
		fmt.Fprintln(w, "|---|---|--:|--:|--:|")
		fmt.Fprintln(w, strings.Join(rows, "\n"))
	})
}

func row(what, event string, waits []time.Duration) string {
	ms := make([]float64, len(waits))
	for i, d := range waits {
		ms[i] = float64(d) / float64(time.Millisecond)
	}
	s := spreadOf(ms)
	return fmt.Sprintf("| %s | %s | %.0f | %.0f–%.0f | %.0f |", what, event, s.median, s.low, s.high, slices.Max(ms))
}

// play lets one event happen again and again, in a lab of its own.
func (o *outages) play(ctx context.Context, s scene, e event) (waits []time.Duration, err error) {
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
		wait, err := e.do(t, ctx, primary)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", i+1, err)
		}
		waits = append(waits, wait)
		if primary, err = t.settle(ctx); err != nil {
			return nil, fmt.Errorf("after event %d: %w", i+1, err)
		}
		fmt.Fprintf(os.Stderr, "%-9s %-10s %2d/%d %6.0f ms; now %s\n", s.key, e.key, i+1, o.times, float64(wait)/float64(time.Millisecond), primary)
	}
	return waits, nil
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

// theatre is a lab in which things happen.
type theatre struct {
	lab   *lab.Lab
	scene scene
	halab string
	probe *probe
}

// serve starts the record service on nodes where no agent starts it.
func (t *theatre) serve(nodes ...string) error {
	if t.scene.mount {
		return nil
	}
	for _, n := range nodes {
		// Without pipes: the server would inherit them and keep them open.
		cmd := exec.Command(t.halab, "recordd", "start", "--file", "/run/records")
		if err := t.lab.Enter(n, cmd); err != nil {
			return err
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("start the record service on %s: %w", n, err)
		}
	}
	return nil
}

// settle waits until both copies are current and everything runs, and returns
// the Primary.
func (t *theatre) settle(ctx context.Context) (string, error) {
	var primary string
	for _, n := range t.lab.Data() {
		r, err := t.lab.AwaitResource(ctx, n, settleMax, func(r *apiv1.Resource) bool {
			return r.Primary != "" && !r.Suspect && len(r.InSync) == 2 && r.DiskState == "UpToDate" && len(r.Peers) == 1 && r.Peers[0].Replication == "Established"
		})
		if err != nil {
			return "", err
		}
		primary = r.Primary
	}
	_, err := t.lab.AwaitResource(ctx, primary, settleMax, func(r *apiv1.Resource) bool {
		idle := func(s apiv1.Service) bool { return s.State != apiv1.ServiceRunning }
		return r.Role == "Primary" && !slices.ContainsFunc(r.Services, idle)
	})
	return primary, err
}

// powerLoss cuts the Primary's power, waits for the client to be served again,
// and gives the power back.
func (t *theatre) powerLoss(ctx context.Context, primary string) (time.Duration, error) {
	began := time.Now()
	if err := t.lab.PowerOff(primary); err != nil {
		return 0, err
	}
	wait, err := t.probe.gapSince(ctx, began)
	if err != nil {
		return 0, err
	}
	if err := t.lab.PowerOn(primary); err != nil {
		return 0, err
	}
	if err := t.lab.AwaitAPI(ctx, primary); err != nil {
		return 0, err
	}
	return wait, t.serve(primary)
}

// switchover asks for one, again while it is refused: the Primary may not know
// yet what its peer says of itself.
func (t *theatre) switchover(ctx context.Context, primary string) (time.Duration, error) {
	path := apiv1.PathResources + t.lab.Resource() + "/switchover"
	for refused := 0; ; refused++ {
		began := time.Now()
		err := t.lab.Call(ctx, primary, http.MethodPost, path, apiv1.SwitchoverRequest{}, new(json.RawMessage))
		if err == nil {
			return t.probe.gapSince(ctx, began)
		}
		var no *apiv1.Problem
		if !errors.As(err, &no) || refused == refusalsMax {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(refusalPause):
		}
	}
}
