package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
	"hapair/test/lab"
)

// What the demo allows, and how long it lets things run.
const (
	outageMax   = 3 * time.Second // a failover at its worst
	settleMax   = 30 * time.Second
	steadyTime  = 3 * time.Second
	demoTimeout = 2 * time.Minute
	secondRun   = 1_000_000 // first number of the second writer
	comparisons = 20        // while the file system writes back
)

// demo plays one story on a lab and judges it.
type demo struct {
	lab              *lab.Lab
	out              io.Writer
	victim, survivor string
	wrong            []error
}

func demoCommand(dir *string) *cobra.Command {
	var keep bool
	var frontend string
	c := &cobra.Command{Use: "demo", Short: "a power cut of the Primary, its return, and a switchover: shown and judged", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), demoTimeout)
			defer cancel()
			release, err := lab.Lock(*dir)
			if err != nil {
				return err
			}
			defer release()
			return runDemo(ctx, c.OutOrStdout(), *dir, frontend, keep)
		}}
	c.Flags().BoolVar(&keep, "keep", false, "leave the pair running")
	c.Flags().StringVar(&frontend, "frontend", "auto", "auto or fuse")
	return c
}

func demoOptions(dir, frontend string) (lab.Options, error) {
	all, err := services([]string{"mount,exec,address"})
	return lab.Options{Dir: dir, Filesystem: "ext4", Frontend: frontend, Services: all}, err
}

func runDemo(ctx context.Context, out io.Writer, dir, frontend string, keep bool) (err error) {
	o, err := demoOptions(dir, frontend)
	if err != nil {
		return err
	}
	o.Tether = !keep
	began := time.Now()
	fmt.Fprintln(out, "Two data nodes, a witness and a client come up, each with a network, mounts and processes of its own.")
	l, err := lab.Up(ctx, o)
	if err != nil {
		return err
	}
	d := &demo{lab: l, out: out}
	if keep {
		defer tryThis(out, dir)
	} else {
		defer func() { err = errors.Join(err, d.down()) }()
	}
	if err := errors.Join(d.play(ctx), errors.Join(d.wrong...)); err != nil {
		d.keepLogs()
		return fmt.Errorf("the demo FAILED: %w", err)
	}
	d.say("\nAll of it held, in %s.", time.Since(began).Round(time.Second))
	return nil
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// judge prints a line and remembers what was wrong.
func (d *demo) judge(err error, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if err == nil {
		d.say("  ok      %s", text)
		return
	}
	d.say("  WRONG   %s: %v", text, err)
	d.wrong = append(d.wrong, fmt.Errorf("%s: %w", text, err))
}

// play is the story.
func (d *demo) play(ctx context.Context) error {
	for _, act := range []func(context.Context) error{d.settle, d.powerCut, d.comeBack, d.switchBack} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

// settle waits for the pair to choose a Primary and to bring its services up.
func (d *demo) settle(ctx context.Context) error {
	began := time.Now()
	if err := d.findPrimary(ctx); err != nil {
		return err
	}
	for _, name := range []string{d.victim, d.survivor} {
		if _, err := d.lab.AwaitResource(ctx, name, settleMax, bothInSync); err != nil {
			return err
		}
	}
	d.say("%s is Primary, both copies are current; ext4, the record service and %s are up after %s.\n",
		d.victim, lab.ServiceAddress, time.Since(began).Round(10*time.Millisecond))
	return nil
}

func (d *demo) findPrimary(ctx context.Context) error {
	nodes := d.lab.Data()
	r, err := d.lab.AwaitResource(ctx, nodes[0], settleMax, func(r *apiv1.Resource) bool { return r.Primary != "" })
	if err != nil {
		return err
	}
	d.victim, d.survivor = r.Primary, nodes[0]
	if d.victim == nodes[0] {
		d.survivor = nodes[1]
	}
	_, err = d.lab.AwaitResource(ctx, d.victim, settleMax, serving)
	return err
}

func serving(r *apiv1.Resource) bool {
	idle := func(s apiv1.Service) bool { return s.State != apiv1.ServiceRunning }
	return r.Role == "Primary" && len(r.Services) > 0 && !slices.ContainsFunc(r.Services, idle)
}

func bothInSync(r *apiv1.Resource) bool {
	return len(r.InSync) == 2 && r.DiskState == "UpToDate" && len(r.Peers) == 1 && r.Peers[0].Replication == "Established"
}

// powerCut cuts the Primary's power under a writer.
func (d *demo) powerCut(ctx context.Context) error {
	c, err := startClient(d.lab, 1)
	if err != nil {
		return err
	}
	if _, err := c.await(ctx, time.Now().Add(steadyTime), settleMax); err != nil {
		return err
	}
	before, err := d.lab.Status(ctx, d.survivor)
	if err != nil {
		return err
	}
	d.say("A client writes records to %s, one after the other, each synced: %d accepted, one every %s.",
		lab.ServiceAddress, c.count(), c.median().Round(10*time.Microsecond))
	cut := time.Now()
	if err := d.lab.PowerOff(d.victim); err != nil {
		return err
	}
	d.say("The power of %s is cut.\n", d.victim)
	first, err := c.await(ctx, time.Now(), settleMax)
	if err != nil {
		return err
	}
	if _, err := c.await(ctx, time.Now().Add(steadyTime/2), settleMax); err != nil {
		return err
	}
	if err := d.timeline(ctx, before.EventSeq, cut, first.At); err != nil {
		return err
	}
	gap := c.gap()
	d.judge(within(gap, outageMax), "the client waited %s at the longest", gap.Round(time.Millisecond))
	said, err := c.stop()
	d.judge(err, "every accepted record is there: %s", said)
	return nil
}

func within(d, limit time.Duration) error {
	if d > limit {
		return fmt.Errorf("more than %s", limit)
	}
	return nil
}

// comeBack gives the victim its power again: only what changed is copied.
func (d *demo) comeBack(ctx context.Context) error {
	r, err := d.lab.AwaitResource(ctx, d.survivor, settleMax, func(r *apiv1.Resource) bool { return len(r.Volumes) == 1 && len(r.Peers) == 1 })
	if err != nil {
		return err
	}
	owed, size := r.Peers[0].DirtyBytes, r.Volumes[0].SizeBytes
	d.say("\n%s has its power again. It lacks %.1f MiB of %d MiB.\n", d.victim, float64(owed)/(1<<20), size>>20)
	began := time.Now()
	if err := d.lab.PowerOn(d.victim); err != nil {
		return err
	}
	for _, name := range []string{d.survivor, d.victim} {
		if _, err := d.lab.AwaitResource(ctx, name, settleMax, bothInSync); err != nil {
			return err
		}
	}
	var few error
	if owed == 0 || owed > size/2 {
		few = fmt.Errorf("%d bytes of %d", owed, size)
	}
	d.judge(few, "it booted and copied what changed, %s after the power came", time.Since(began).Round(time.Millisecond))
	d.judge(d.compare(ctx, d.survivor), "both copies are the same, byte for byte")
	return nil
}

// switchBack moves everything to the victim again, as an operator would.
func (d *demo) switchBack(ctx context.Context) error {
	c, err := startClient(d.lab, secondRun)
	if err != nil {
		return err
	}
	if _, err := c.await(ctx, time.Now().Add(steadyTime/2), settleMax); err != nil {
		return err
	}
	d.say("\nA planned switchover to %s, under the same kind of writer.\n", d.victim)
	if err := d.lab.Verb(ctx, d.survivor, apiv1.VerbSwitchover, apiv1.SwitchoverRequest{To: d.victim}, nil); err != nil {
		return err
	}
	if _, err := c.await(ctx, time.Now().Add(steadyTime/2), settleMax); err != nil {
		return err
	}
	if _, err := d.lab.AwaitResource(ctx, d.victim, settleMax, serving); err != nil {
		return err
	}
	gap := c.gap()
	d.judge(within(gap, outageMax), "the client waited %s at the longest", gap.Round(time.Millisecond))
	said, err := c.stop()
	d.judge(err, "every accepted record is there: %s", said)
	d.judge(d.compare(ctx, d.victim), "both copies are the same, byte for byte")
	return nil
}

// compare compares the files behind both disks, once nothing is on its way.
func (d *demo) compare(ctx context.Context, primary string) error {
	var last error
	for range comparisons {
		if _, err := d.lab.Run(ctx, primary, "sync", "-f", "/srv/pg"); err != nil {
			return err
		}
		if last = sameFiles(d.lab.Image(d.victim), d.lab.Image(d.survivor)); last == nil || ctx.Err() != nil {
			return last
		}
		select { // the file system writes back in its own time
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
	return last
}

// down takes the lab down and looks for what it left.
func (d *demo) down() error {
	err := d.lab.Down()
	if leaks := d.lab.Leaks(); len(leaks) > 0 {
		err = errors.Join(err, fmt.Errorf("left behind: %q", leaks))
	}
	return err
}

// keepLogs keeps the agents' logs of a demo that failed.
func (d *demo) keepLogs() {
	for _, name := range d.lab.Nodes() {
		text, err := os.ReadFile(d.lab.LogFile(name))
		if err != nil || len(text) == 0 {
			continue
		}
		kept := filepath.Join(os.TempDir(), "hapair-demo-"+name+".log")
		if err := os.WriteFile(kept, text, 0o600); err == nil {
			d.say("the log of %s is kept in %s", name, kept)
		}
	}
}

func tryThis(out io.Writer, dir string) {
	flag := ""
	if dir != defaultDir {
		flag = " --dir " + dir
	}
	fmt.Fprintf(out, `
The pair is still up. Things to try:
  bin/halab%[1]s status
  bin/halab%[1]s exec alpha -- hactl status --watch
  bin/halab%[1]s exec beta -- hactl explain pg
  bin/halab%[1]s exec client -- halab writer --quiet --first 2000000   (interrupt it: it counts)
  bin/halab%[1]s link cut alpha crossover      (and: link heal alpha crossover)
  bin/halab%[1]s link cut alpha lan
  bin/halab%[1]s pause alpha                   (and: resume alpha)
  bin/halab%[1]s power off alpha               (and: power on alpha)
  bin/halab%[1]s exec alpha -- bash
  bin/halab%[1]s down                          (leaves nothing)
`, flag)
}
