package commands

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hapair/agent/apiv1"
)

func (a *app) fenceCmd() *cobra.Command {
	var req apiv1.FenceRequest
	var wait time.Duration
	var yes bool
	c := &cobra.Command{
		Use: "fence NODE", Short: "switch the other node off, and make sure that it is",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.nodeArg,
		Long: "fence has the other node switched off by its fence devices, level by level, until one\n" +
			"has confirmed that it is off. What runs there is lost with it. It asks first when a\n" +
			"person can answer. A node that is alive is switched off with --force only; hactl\n" +
			"standby NODE moves what runs there in order.",
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Node, req.WaitMS = args[0], wait.Milliseconds()
			if !yes && a.env.InTerminal {
				if err := a.askName(cmd.Context(), req.Node, "Type the node's name to switch it off: ", "nothing was changed"); err != nil {
					return err
				}
			}
			return a.changed(a.client().Fence(cmd.Context(), req))
		},
	}
	c.Flags().BoolVar(&req.Force, "force", false, "even when it is alive")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the record")
	waitFlagOf(c, &wait, "as long as its fence devices may take, 2m at least")
	return c
}

func (a *app) fenceConfirmCmd() *cobra.Command {
	var req apiv1.FenceConfirmRequest
	c := &cobra.Command{
		Use: "fence-confirm NODE --i-have-checked", Short: "say that a node is off, where its fence waits for that or has failed",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.nodeArg,
		Long: "fence-confirm is an operator's word that NODE is off, or has just been. This node goes\n" +
			"on alone by it. If NODE still runs, both may write, and the copies diverge: look at\n" +
			"the machine, or at its supply, and not at the network.",
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Node = args[0]
			return a.changed(a.client().FenceConfirm(cmd.Context(), req))
		},
	}
	c.Flags().BoolVar(&req.IHaveChecked, "i-have-checked", false, "the node is off, and I have seen it")
	return c
}

// askName lets a person type a name: nobody does that by mistake. Another answer is
// refused with what came of it. When ctx ends so does the question; the read does not,
// and takes one more line of the input if there ever is one: ask nothing after that.
func (a *app) askName(ctx context.Context, name, question, otherwise string) error {
	fmt.Fprint(a.env.Err, question)
	type answer struct {
		line string
		err  error
	}
	typed := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(a.env.In).ReadString('\n')
		typed <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.env.Err) // the question's line has no end
		return &apiv1.Problem{Code: apiv1.CodeTimeout, Text: "interrupted; " + otherwise}
	case got := <-typed:
		if got.err != nil && got.line == "" {
			return fmt.Errorf("read the answer: %w", got.err)
		}
		if strings.TrimSpace(got.line) != name {
			return &apiv1.Problem{Code: apiv1.CodeRefused, Text: "not confirmed; " + otherwise}
		}
		return nil
	}
}

// renderWatchdog draws what resets this machine.
func renderWatchdog(w *apiv1.Watchdog, s style) string {
	if w == nil {
		return ""
	}
	petted := s.good("petted")
	if w.Because != "" {
		petted = s.bad("not petted")
	}
	text := fmt.Sprintf("watchdog  %s %s (%s), %s ago, time-out %s", petted, clean(w.Device), clean(w.Driver), millisText(w.PettedMS), millisText(w.TimeoutMS))
	if w.NoWayOut {
		text += ", cannot be disarmed"
	}
	switch {
	case w.Disk != "" && w.DiskBecause != "":
		text += fmt.Sprintf("\n  %s: %s: %s", s.bad("reads no pills"), clean(w.Disk), clean(w.DiskBecause))
	case w.Disk != "":
		text += ", and while " + clean(w.Disk) + " has no pill"
	}
	return text + "\n"
}

// renderSelf draws what is wrong with what resets this machine.
func renderSelf(b *strings.Builder, w *apiv1.Watchdog, s style) {
	switch {
	case w == nil:
	case w.Because != "":
		fmt.Fprintf(b, "%s for %s, and is reset at %s: %s\n", s.bad("this machine's watchdog is not petted"), millisText(w.PettedMS), millisText(w.TimeoutMS), clean(w.Because))
	case w.DiskBecause != "":
		fmt.Fprintf(b, "%s %s: %s\n", s.warn("no pills are read from"), clean(w.Disk), clean(w.DiskBecause))
	}
}

// renderFencing draws the nodes that cannot be fenced, are being fenced, or were
// lately.
func renderFencing(b *strings.Builder, st *apiv1.Status, s style) {
	renderSelf(b, st.Watchdog, s)
	for i := range st.Fencing {
		f := &st.Fencing[i]
		if !f.Ready {
			fmt.Fprintf(b, "%s %s: %s\n", s.warn("cannot be fenced"), s.bold(clean(f.Node)), clean(f.Because))
		} else {
			renderUseless(b, f, s)
		}
		if u := f.UnderWay; u != nil {
			fmt.Fprintf(b, "%s %s for %s, level %d: %s\n", s.warn("fencing"), s.bold(clean(f.Node)), secondsText(int64(st.Time.Sub(u.Since).Seconds())), u.Level, clean(u.Because))
			if u.Failed != "" {
				fmt.Fprintf(b, "  %s\n", clean(u.Failed))
			}
			if u.WaitsForOperator {
				fmt.Fprintf(b, "  an operator's word is waited for. Make sure that %s is off, then: hactl fence-confirm %s --i-have-checked\n", clean(f.Node), clean(f.Node))
			}
		}
	}
	if n := len(st.Fences); n > 0 && st.Time.Sub(st.Fences[n-1].Since) < problemShown {
		x := st.Fences[n-1]
		outcome := s.bad(x.Outcome)
		if x.Outcome == apiv1.FenceConfirmed {
			outcome = s.good(x.Outcome)
		}
		fmt.Fprintf(b, "fence of %s at %s: %s (%s): %s\n", s.bold(clean(x.Node)), x.Since.Format("15:04:05"), outcome, orNone(clean(x.Device)), clean(x.Reason))
	}
}

// renderUseless draws the devices that cannot be used of a node that can be fenced by
// others: an operator is one of these.
func renderUseless(b *strings.Builder, f *apiv1.Fencing, s style) {
	for i := range f.Devices {
		if d := &f.Devices[i]; !d.Usable && d.Checked != nil {
			fmt.Fprintf(b, "%s %s, which fences %s on level %d: %s\n", s.warn("cannot be used"), s.bold(clean(d.Name)), clean(f.Node), d.Level, clean(d.Because))
		}
	}
}
